"""The network's input, made of examples in memory: gathered, augmented and normalised.

Images stay uint8 until they are used. Augmentation is drawn for every example of the data set, selected or not. So runs
with the same seed show an example alike in the same epoch, whatever their pruners select.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sadp_bench.datasets.examples import Examples

PADDING = 4  # pixels at each edge, as is customary for CIFAR's side of 32; a shorter side gets an eighth of itself


@dataclass(frozen=True, slots=True, eq=False)
class Augmentation:
    """The augmentation of each example of the data set in one epoch.

    Args:
        row_N: First row of the crop in the padded image, pixels.
        column_N: First column of the crop, pixels.
        mirrored_N: Whether the image is mirrored, bool.
        hole_N2: Row and column of the hole's centre in the image as it is shown, pixels; None: no holes.
    """

    row_N: Tensor
    column_N: Tensor
    mirrored_N: Tensor
    hole_N2: Tensor | None = None

    def to(self, device: torch.device) -> Augmentation:
        """Returns the augmentation on a device; the same tensors where they lie there already."""
        drawn = (self.row_N, self.column_N, self.mirrored_N, self.hole_N2)
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
        kind: As `--augment`: "none", or "crop", "crop-flip" and "cutout" with commas between them.
        num_examples: N.
        padding: See `Loader`.
        sides: See `Loader`.
        generator: Of the draws.
        device: Where the augmentation shall lie, the loader's; None: on the CPU, where it is drawn.
    """
    if kind == "none":
        return None
    parts = kind.split(",")
    row_N, column_N = (torch.randint(0, 2 * pad + 1, (num_examples,), generator=generator) for pad in padding)
    mirrored_N = torch.rand(num_examples, generator=generator) < (0.5 if "crop-flip" in parts else 0)
    if parts == [
        "cutout"
    ]:  # The draws above are made all the same, so an example has the same hole with and without them.
        row_N, column_N = (torch.full((num_examples,), pad) for pad in padding)
    hole_N2 = None
    if "cutout" in parts:
        hole_N2 = torch.stack([torch.randint(0, side, (num_examples,), generator=generator) for side in sides], 1)
    drawn = Augmentation(row_N, column_N, mirrored_N, hole_N2)
    return drawn if device is None else drawn.to(device)


class Loader:
    """Makes the network's input on the device: gathers, crops and mirrors examples as uint8, then normalises them.

    Static images give [B, C, H, W], events [T, B, C, H, W], channels last in memory. The examples lie on the device
    where they fit in half of its free memory, otherwise in pinned host memory. The map of a file stays on the disk, and
    its rows are read as they are needed.

    Args:
        examples: The data.
        scale: The stored value of full intensity.
        mean: Of each channel, of values divided by the scale.
        std: Of each channel, likewise.
        device: The network's.
        dtype: Of the input.

    Attributes:
        padding: Rows above and below an image, columns left and right of it: how far a crop can move along each side.
        sides: Rows and columns of an image.
    """

    def __init__(
        self,
        examples: Examples,
        scale: float,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        input_N = examples.input_N.movedim(-3, -1)
        self.device = device
        self.label_N = examples.label_N.to(device)
        self._row_N = examples.row_N
        self._input_N = _placed(input_N.contiguous(), device) if self._row_N is None else input_N
        _, height, width = examples.input_shape
        self.padding = min(PADDING, height // 8), min(PADDING, width // 8)
        self.sides = height, width
        gain = 1 / (scale * torch.as_tensor(std, dtype=torch.float64))
        self._gain_C = gain.to(device, dtype)
        self._shift_C = (-torch.as_tensor(mean, dtype=torch.float64) * gain * scale).to(device, dtype)

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def place(self) -> torch.device:
        """The device of the examples. Indices that lie there too are not copied, and so no batch waits for a copy."""
        return self._input_N.device

    def input(self, index_B: Tensor, augmentation: Augmentation | None = None) -> Tensor:
        """Returns the input of these examples. The index is int64; it and the augmentation may lie on any device."""
        row_B = index_B.to(self._input_N.device)
        if self._row_N is not None:
            row_B = self._row_N[row_B]
        pixels = self._input_N[row_B].to(self.device, non_blocking=True)
        if pixels.dim() == 5:
            pixels = pixels.transpose(0, 1).contiguous()
        if augmentation is not None:
            index_B, augmentation = index_B.to(self.device), augmentation.to(self.device)
            pixels = self._augmented(pixels, index_B, augmentation)
        input = pixels * self._gain_C + self._shift_C
        if augmentation is not None and augmentation.hole_N2 is not None:
            input.masked_fill_(self._hole(augmentation.hole_N2[index_B])[..., None], 0)  # the channel's mean
        return input.movedim(-1, -3)

    def _hole(self, centre_B2: Tensor) -> Tensor:
        """Returns which pixels lie in a hole, [B, H, W]: half of each side around the centre, clipped at the edges.

        A half that is no whole number is rounded up. Every time step of an event has the same hole.

        Source: DeVries & Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017: one hole of
        16x16 pixels in each image of CIFAR-10. Other versions draw the area, and leave some images whole.
        """
        inside = []
        for side, centre_B in zip(self.sides, centre_B2.T, strict=True):
            hole = (side + 1) // 2
            offset_BS = torch.arange(side, device=self.device) - (centre_B[:, None] - hole // 2)
            inside.append((offset_BS >= 0) & (offset_BS < hole))
        rows_BH, columns_BW = inside
        return rows_BH[:, :, None] & columns_BW[:, None, :]

    def _augmented(self, pixels: Tensor, index_B: Tensor, augmentation: Augmentation) -> Tensor:
        height, width = pixels.shape[-3:-1]
        rows, columns = self.padding
        column_BW = torch.arange(width, device=self.device).expand(len(index_B), -1)
        column_BW = torch.where(augmentation.mirrored_N[index_B, None], width - 1 - column_BW, column_BW)
        column_BW = column_BW + augmentation.column_N[index_B, None]
        row_BH = torch.arange(height, device=self.device) + augmentation.row_N[index_B, None]
        padded = nn.functional.pad(pixels, (0, 0, columns, columns, rows, rows))
        row_BH = torch.arange(len(index_B), device=self.device)[:, None] * (height + 2 * rows) + row_BH
        flat = row_BH[:, :, None] * (width + 2 * columns) + column_BW[:, None, :]
        # One gather of whole pixels crops and mirrors in the same pass.
        lead = padded.shape[:-4]
        picked = padded.reshape(*lead, -1, padded.shape[-1]).index_select(len(lead), flat.flatten())
        return picked.view(pixels.shape)


def _placed(input_N: Tensor, device: torch.device) -> Tensor:
    """Returns the examples on the device where they fit there, otherwise in pinned host memory."""
    if device.type != "cuda":
        return input_N.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    return input_N.to(device) if input_N.numel() * input_N.element_size() < free / 2 else input_N.pin_memory()
