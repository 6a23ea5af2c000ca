"""The network's input, made of stored examples: gathered, augmented and normalised.

Images stay uint8 until they are used. The module `augmentation` draws how the examples of an epoch are shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sadp_bench.datasets.examples import Examples
from sadp_bench.training.augmentation import Augmentation, own_share, shown_index
from sadp_bench.training.image_changes import cropped, moved_recordings, rand_augmented

PADDING = 4  # pixels at each edge, as is customary for CIFAR's side of 32; a shorter side gets an eighth of itself


class Loader:
    """Makes the network's input on the device: gathers and augments examples as uint8, then normalises and mixes them.

    Static images give [B, C, H, W] and events [T, B, C, H, W], channels last in memory. Examples in memory are copied to
    a GPU where they take less than half of its free memory, otherwise to pinned host memory. Examples in a mapped file
    stay on the disk until a batch reads them. A source makes its examples when a batch needs them.

    Args:
        examples: The data.
        scale: The stored value of full intensity.
        mean: Mean of each channel, of values divided by the scale.
        std: Standard deviation of each channel, likewise.
        device: The network's device.
        dtype: Data type of the input.
        num_classes: Classes, for the targets of mixed examples; 0 where none are mixed.

    Attributes:
        padding: Rows above and below an image, and columns left and right of it: how far a crop can move.
        sides: Rows and columns of an image.
        data_seconds: Seconds that all batches so far waited for their stored values. Copies within a GPU's memory do not
            count.
    """

    def __init__(
        self,
        examples: Examples,
        scale: float,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        num_classes: int = 0,
    ) -> None:
        input_N = examples.input_N.movedim(-3, -1)
        self.device, self.num_classes, self._scale = device, num_classes, scale
        self.label_N = examples.label_N.to(device)
        self.data_seconds = 0.0
        self._row_N, self._source = examples.row_N, examples.source
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
        """The device of the examples. Indices on it are not copied, so no batch waits for a copy."""
        return torch.device("cpu") if self._source is not None else self._input_N.device

    def expect(self, batches: Iterable[Tensor], augmentation: Augmentation | None = None) -> None:
        """Announces the coming batches of this process, in order, so that a source can make them ahead.

        Args:
            batches: Indices of each batch's examples, on `place`.
            augmentation: How the examples will be shown: an example that is mixed with another needs both.
        """
        if self._source is not None and self._row_N is not None:
            shown = (shown_index(index_B, augmentation).to(self.place) for index_B in batches)
            self._source.expect([self._row_N[index_B] for index_B in shown])

    def input(self, index_B: Tensor, augmentation: Augmentation | None = None) -> Tensor:
        """Returns the input of these examples. The index is int64; it and the augmentation may lie on any device."""
        begun = time.perf_counter()
        row_B = shown_index(index_B, augmentation).to(self.place)
        if self._row_N is not None:
            row_B = self._row_N[row_B]
        pixels = self._input_N[row_B] if self._source is None else self._source.read(row_B, self.device.type == "cuda")
        self.data_seconds += time.perf_counter() - begun
        pixels = pixels.to(self.device, non_blocking=True)
        if pixels.dim() == 5:
            pixels = pixels.transpose(0, 1).contiguous()
        if augmentation is None:
            return (pixels * self._gain_C + self._shift_C).movedim(-1, -3)
        index_B, augmentation = index_B.to(self.device), augmentation.to(self.device)
        input = self._augmented(pixels, shown_index(index_B, augmentation), augmentation)
        if augmentation.partner_N is not None:
            own, partner = input.chunk(2, dim=-4)
            share = own_share(augmentation, index_B, self.sides)[..., None].to(input.dtype)
            input = share * own + (1 - share) * partner
        return input.movedim(-1, -3)

    def target(self, index_B: Tensor, augmentation: Augmentation | None = None) -> Tensor:
        """Returns the targets of these examples: their labels, or shares of the classes where examples are mixed.

        Args:
            index_B: The examples, int64.
            augmentation: How they are shown; None: as they are stored.

        Returns:
            label_B, int64; or shares [B, C], of the input's type.
        """
        index_B = index_B.to(self.device, non_blocking=True)
        if augmentation is None or augmentation.partner_N is None:
            return self.label_N[index_B]
        augmentation = augmentation.to(self.device)
        own, partner = one_hot(self.label_N[shown_index(index_B, augmentation)], self.num_classes).chunk(2)
        share_B1 = own_share(augmentation, index_B, self.sides).mean((1, 2))[:, None]
        return (share_B1 * own + (1 - share_B1) * partner).to(self._gain_C.dtype)

    def _augmented(self, pixels: Tensor, index_B: Tensor, augmentation: Augmentation) -> Tensor:
        """Returns the augmented and normalised input of stored values, [..., B, H, W, C], before examples are mixed."""
        drawn = augmentation
        places = drawn.row_N[index_B], drawn.column_N[index_B], drawn.mirrored_N[index_B]
        pixels = cropped(pixels, *places, self.padding)
        if drawn.move_N is not None and drawn.amount_N2 is not None:
            pixels = moved_recordings(pixels, drawn.move_N[index_B], drawn.amount_N2[index_B])
        if drawn.change_NR is not None and drawn.sign_NR is not None:
            pixels = rand_augmented(pixels, drawn.change_NR[index_B], drawn.sign_NR[index_B], self._scale)
        input = pixels * self._gain_C + self._shift_C
        if drawn.hole_N2 is not None:
            input.masked_fill_(self._hole(drawn.hole_N2[index_B])[..., None], 0)  # the channel's mean
        return input

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


def _placed(input_N: Tensor, device: torch.device) -> Tensor:
    """Returns the examples on the device where they fit there, otherwise in pinned host memory."""
    if device.type != "cuda":
        return input_N.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    return input_N.to(device) if input_N.numel() * input_N.element_size() < free / 2 else input_N.pin_memory()
