"""Labelled examples in memory, and how an epoch's batches are cut from them.

Images stay uint8 until they are used. Augmentation is drawn for every example of the data set, chosen or
not, so that two runs with one seed show an example alike in the same epoch whatever their pruners keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sadp_bench.datasets.examples import Examples

AUGMENTATIONS = ("none", "crop", "crop-flip")
PADDING = 4  # pixels on each side, the customary crop of CIFAR's 32; smaller images get an eighth of their side


@dataclass(frozen=True, slots=True, eq=False)
class Augmentation:
    """How each example of the data set is shown in one epoch: crop offsets in pixels and mirroring, [N] each."""

    row_N: Tensor
    column_N: Tensor
    mirrored_N: Tensor


def draw_augmentation(kind: str, num_examples: int, padding: int, generator: torch.Generator) -> Augmentation | None:
    """Drawn for all N examples at once, so that it does not depend on which are chosen."""
    if kind == "none":
        return None
    row_N, column_N = torch.randint(0, 2 * padding + 1, (2, num_examples), generator=generator)
    mirrored_N = torch.rand(num_examples, generator=generator) < (0.5 if kind == "crop-flip" else 0)
    return Augmentation(row_N, column_N, mirrored_N)


class Loader:
    """Makes model input of indices, on the device: gather, crop and mirror as uint8, then normalise.

    Static images give [B, C, H, W], events [T, B, C, H, W], channels last in memory. The examples lie on the
    device where they fit in half of its free memory, otherwise in pinned memory beside it.
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
        input_N = examples.input_N.movedim(-3, -1).contiguous()
        self.device = device
        self.label_N = examples.label_N.to(device)
        if _fits(input_N, device):
            input_N = input_N.to(device)
        elif device.type == "cuda":
            input_N = input_N.pin_memory()
        self._input_N = input_N
        self.padding = min(PADDING, examples.input_shape[-1] // 8)
        gain = 1 / (scale * torch.tensor(std, dtype=torch.float64))
        self._gain_C = gain.to(device, dtype)
        self._shift_C = (-torch.tensor(mean, dtype=torch.float64) * gain * scale).to(device, dtype)

    def __len__(self) -> int:
        return len(self.label_N)

    def input(self, index_B: Tensor, augmentation: Augmentation | None = None) -> Tensor:
        """index_B: int64, on the CPU, as are the augmentation's tensors."""
        pixels = self._input_N[index_B.to(self._input_N.device)].to(self.device, non_blocking=True)
        if pixels.dim() == 5:
            pixels = pixels.transpose(0, 1).contiguous()
        if augmentation is not None:
            pixels = self._augmented(pixels, index_B, augmentation)
        return (pixels * self._gain_C + self._shift_C).movedim(-1, -3)

    def _augmented(self, pixels: Tensor, index_B: Tensor, augmentation: Augmentation) -> Tensor:
        height, width = pixels.shape[-3:-1]
        pad = self.padding
        column_BW = torch.arange(width).expand(len(index_B), -1)
        column_BW = torch.where(augmentation.mirrored_N[index_B, None], width - 1 - column_BW, column_BW)
        column_BW = column_BW + augmentation.column_N[index_B, None]
        row_BH = torch.arange(height) + augmentation.row_N[index_B, None]
        padded = nn.functional.pad(pixels, (0, 0, pad, pad, pad, pad))
        row_BH = torch.arange(len(index_B))[:, None] * (height + 2 * pad) + row_BH
        flat = row_BH[:, :, None] * (width + 2 * pad) + column_BW[:, None, :]
        # One gather of whole pixels: crop and mirror in the same pass.
        lead = padded.shape[:-4]
        picked = padded.reshape(*lead, -1, padded.shape[-1]).index_select(len(lead), flat.flatten().to(self.device))
        return picked.view(pixels.shape)


def _fits(input_N: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return input_N.numel() * input_N.element_size() < free / 2
