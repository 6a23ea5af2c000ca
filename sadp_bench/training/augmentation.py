"""The augmentation of an epoch: how each example of the data set is shown, drawn for all of them at once.

So runs with the same seed show an example alike in the same epoch, whatever their pruners select. N examples, B of a batch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sadp_bench.training.image_changes import CHANGES, NUM_CHANGES

MOVES = ("roll", "rotate", "shear")  # moves of `nda`; each recording gets one of them


@dataclass(frozen=True, slots=True, eq=False)
class Augmentation:
    """The augmentation of each example of the data set in one epoch. A part that `--augment` does not name is None.

    Args:
        row_N: First row of the crop in the padded image, pixels.
        column_N: First column of the crop, pixels.
        mirrored_N: Whether the image is mirrored, bool.
        hole_N2: Row and column of the hole's centre in the image as it is shown, pixels.
        change_NR: Changes of RandAugment in their order, places in `image_changes.CHANGES`.
        sign_NR: The direction of each change, 1 or -1.
        move_N: The move of a recording, a place in `MOVES`.
        amount_N2: How far it moves along rows and columns, from -1 to 1. Rotation and shear use the first number.
        partner_N: The example with which each is mixed.
        share_N: The example's share of each pixel outside of the box, in (0, 1].
        box_N4: Top, bottom, left and right of the box that shows the partner alone, pixels; empty for mixup.
    """

    row_N: Tensor
    column_N: Tensor
    mirrored_N: Tensor
    hole_N2: Tensor | None = None
    change_NR: Tensor | None = None
    sign_NR: Tensor | None = None
    move_N: Tensor | None = None
    amount_N2: Tensor | None = None
    partner_N: Tensor | None = None
    share_N: Tensor | None = None
    box_N4: Tensor | None = None

    def to(self, device: torch.device) -> Augmentation:
        """Returns the augmentation on a device. Tensors that lie there already are not copied."""
        drawn = (getattr(self, part.name) for part in dataclasses.fields(self))
        return Augmentation(*(part if part is None else part.to(device) for part in drawn))  # type: ignore[arg-type]


def draw_augmentation(
    kind: str,
    num_examples: int,
    padding: tuple[int, int],
    sides: tuple[int, int],
    generator: torch.Generator,
    device: torch.device | None = None,
) -> Augmentation | None:
    """Returns the augmentation of all N examples, drawn at once so that no selection changes it; None for "none".

    Args:
        kind: The value of `--augment`: "none", or parts with commas between them (`records.fields.AUGMENTATIONS`).
        num_examples: N.
        padding: See `Loader`.
        sides: See `Loader`.
        generator: Makes the draws, on the CPU.
        device: Device of the returned augmentation, usually the loader's; None: the CPU.
    """
    if kind == "none":
        return None
    parts = kind.split(",")
    row_N, column_N = (torch.randint(0, 2 * pad + 1, (num_examples,), generator=generator) for pad in padding)
    mirrored_N = torch.rand(num_examples, generator=generator) < (0.5 if "crop-flip" in parts else 0)
    # The draws above are made in any case, so an example has the same hole with and without crops.
    if not {"crop", "crop-flip"} & set(parts):
        row_N, column_N = (torch.full((num_examples,), pad) for pad in padding)
    drawn = Augmentation(row_N, column_N, mirrored_N)
    if "cutout" in parts:
        hole_N2 = torch.stack([torch.randint(0, side, (num_examples,), generator=generator) for side in sides], 1)
        drawn = dataclasses.replace(drawn, hole_N2=hole_N2)
    if "nda" in parts:
        drawn = dataclasses.replace(
            drawn,
            move_N=torch.randint(0, len(MOVES), (num_examples,), generator=generator),
            amount_N2=2 * torch.rand(num_examples, 2, generator=generator) - 1,
        )
    if "randaugment" in parts:
        size = num_examples, NUM_CHANGES
        drawn = dataclasses.replace(
            drawn,
            change_NR=torch.randint(0, len(CHANGES), size, generator=generator),
            sign_NR=1 - 2 * torch.randint(0, 2, size, generator=generator),
        )
    if {"mixup", "cutmix"} & set(parts):
        drawn = _with_partners(drawn, parts, num_examples, sides, generator)
    return drawn if device is None else drawn.to(device)


def _with_partners(
    drawn: Augmentation, parts: list[str], num_examples: int, sides: tuple[int, int], generator: torch.Generator
) -> Augmentation:
    """Returns the augmentation with the partner, the share and the box of each example.

    A partner is any of the N examples, selected in this epoch or not. So no selection changes how an example is shown.
    Mixup draws the share from Beta(1/2, 1/2). Cutmix draws it uniformly, from Beta(1, 1), before its box is clipped at the
    edges. With both parts, each example gets one of the two at random.

    Sources: Zhang et al., "mixup", ICLR 2018; Yun et al., "CutMix", ICCV 2019, with its Beta(1, 1). The 1/2 of mixup is
    Spikformer's on CIFAR-10 (Zhou et al., ICLR 2023, its code). These draw once for a batch; here each example has its draw.
    """
    partner_N = torch.randint(0, num_examples, (num_examples,), generator=generator)
    uniform_N, lot_N = torch.rand(2, num_examples, generator=generator)
    centre_N2 = torch.stack([torch.randint(0, side, (num_examples,), generator=generator) for side in sides], 1)
    boxed_N = lot_N < 0.5 if {"mixup", "cutmix"} <= set(parts) else torch.full((num_examples,), "cutmix" in parts)
    box = []
    for side, centre_N in zip(sides, centre_N2.T, strict=True):
        length_N = (side * (1 - uniform_N).sqrt()).long() * boxed_N
        box += [(centre_N - length_N // 2).clamp(0, side), (centre_N - length_N // 2 + length_N).clamp(0, side)]
    mixed_N = (math.pi / 2 * uniform_N).sin().square()  # the inverse distribution function of Beta(1/2, 1/2)
    share_N = torch.where(boxed_N, 1.0, mixed_N)
    return dataclasses.replace(drawn, partner_N=partner_N, share_N=share_N, box_N4=torch.stack(box, 1))


def shown_index(index_B: Tensor, augmentation: Augmentation | None) -> Tensor:
    """Returns the examples whose stored values a batch needs: its own and, where it is mixed, their partners. [B] or [2B]."""
    if augmentation is None or augmentation.partner_N is None:
        return index_B
    partner_B = augmentation.partner_N[index_B.to(augmentation.partner_N.device)]
    return torch.cat([index_B, partner_B.to(index_B.device)])


def own_share(augmentation: Augmentation, index_B: Tensor, sides: tuple[int, int]) -> Tensor:
    """Returns the example's own share of each pixel, [B, H, W] float32; its mean is at least a half.

    Where the partner's mean share is larger, the two shares are exchanged. The distribution of mixed images stays the same.
    An example's loss, score and correctness then depend on itself more than on its partner.
    """
    assert augmentation.share_N is not None and augmentation.box_N4 is not None
    box_B4 = augmentation.box_N4[index_B]
    inside = []
    for side, low, high in ((sides[0], 0, 1), (sides[1], 2, 3)):
        place_S = torch.arange(side, device=index_B.device)
        inside.append((place_S >= box_B4[:, low, None]) & (place_S < box_B4[:, high, None]))
    in_box_BHW = inside[0][:, :, None] & inside[1][:, None, :]
    share_BHW = augmentation.share_N[index_B, None, None].expand(-1, *sides).masked_fill(in_box_BHW, 0.0)
    return torch.where(share_BHW.mean((1, 2), keepdim=True) < 0.5, 1 - share_BHW, share_BHW)
