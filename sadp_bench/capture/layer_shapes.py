"""Shapes of the inputs and outputs of convolution, linear and norm layers, and patches of convolutions.

Shape letters: T time steps, B examples, C channels, H rows, W columns, L positions. A linear layer treats each token of an
example separately.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, pad, unfold
from torch.nn.modules.conv import _ConvNd

from sadp_bench.core.errors import BadInput

# Layer types whose weights can be pruned, and whose operations are counted.
WEIGHT_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Weight layers whose gradients have a bound and an exact norm.
BOUNDED = (nn.Conv1d, nn.Conv2d, nn.Linear)


def unbounded_layers(model: nn.Module) -> list[tuple[str, str]]:
    """Returns the name and the type of each linear layer or convolution, also transposed, that has no gradient bound."""
    return [
        (name, type(module).__name__)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | _ConvNd) and not isinstance(module, BOUNDED)
    ]


def multi_step(layer: nn.Module) -> bool:
    """Returns whether the layer takes all time steps at once, time first: SpikingJelly's step mode "m"."""
    return getattr(layer, "step_mode", None) == "m"


def num_features(layer: nn.Module, x: Tensor) -> int:
    """Returns how many last dimensions of a layer's input or output belong to an example (or token) at a time step."""
    if isinstance(layer, nn.BatchNorm1d):
        return x.dim() - (2 if multi_step(layer) else 1)
    return 1 if isinstance(layer, nn.Linear) else 2 if isinstance(layer, nn.Conv1d) else 3


def by_time(layer: nn.Module, x: Tensor, batch: int, time_first: bool | None = True) -> Tensor:
    """Returns a layer's input or output as [T, B, tokens..., features...]; T = 1 where there is no time.

    Args:
        layer: The layer.
        x: Its input or output.
        batch: The number of examples, B.
        time_first: Whether the leading dimension is time. See `arranged`.

    Raises:
        BadInput: The shape does not fit the batch.
    """
    try:
        return arranged(x, num_features(layer, x), batch, time_first)
    except BadInput as error:
        raise BadInput(f"{type(layer).__name__}: {error}") from None


def arranged(x: Tensor, features: int, batch: int, time_first: bool | None = True) -> Tensor:
    """Returns a tensor as [T, B, tokens..., features...].

    Args:
        x: [T, B, ...], [T * B, ...], [B, ...], [B, tokens, ...], [B * tokens, ...] or [tokens, B, ...].
        features: The number of last dimensions that are neither time nor batch nor tokens.
        batch: The number of examples, B.
        time_first: Whether the dimension before the batch, or folded into it, is time. False: there is no time, and
            tokens may be folded behind the batch ([B * tokens, ...]). None: unknown.

    Raises:
        BadInput: The rows do not divide among the examples, or `time_first` is None where the result depends on it.
    """
    lead = x.shape[: x.dim() - features]
    first, second = lead[0] if lead else 0, lead[1] if len(lead) > 1 else 0
    folds = first >= batch and first % batch == 0
    if not folds and second != batch:
        raise BadInput(f"its rows, {list(lead)}, do not divide among the {batch} examples that were observed")
    if time_first is None and folds and (second == batch or first != batch):
        raise BadInput(
            f"its rows, {list(lead)} for {batch} examples, may be time steps or tokens: set time_first=True for [T, B, ...] "
            "and [T * B, ...], or time_first=False for [B, T or tokens, ...], also folded"
        )
    if second == batch and (time_first or (time_first is None and not folds)):
        return x
    if first == batch:
        return x[None]
    if time_first is not False:
        return x.unflatten(0, (-1, batch))
    return (x.unflatten(0, (batch, -1)) if folds else x.transpose(0, 1))[None]


def time_of_batch_first(x: Tensor, features: int, batch: int) -> Tensor:
    """Returns a tensor with examples before time as [T, B, tokens..., features...].

    Args:
        x: [B, T, ...], [B * T, ...] or [B, ...].
        features: The number of last dimensions that are neither time nor batch nor tokens.
        batch: The number of examples, B.

    Raises:
        BadInput: The rows do not divide among the examples.
    """
    if x.shape[0] % batch:
        raise BadInput(f"its rows, {list(x.shape[: x.dim() - features])}, do not divide among the {batch} examples")
    if x.shape[0] != batch:
        x = x.unflatten(0, (batch, -1))
    elif x.dim() == features + 1:
        return x[None]
    return x.transpose(0, 1)


class Window(NamedTuple):
    """Geometry of a convolution; a one-dimensional convolution has images of one row.

    Attributes:
        size: Rows and columns of the kernel.
        dilation: Steps between the kernel's rows and columns.
        stride: Steps between patches.
        pads: Padding on the left, right, top and bottom.
        mode: PyTorch's `padding_mode`.
    """

    size: tuple[int, ...]
    dilation: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[int, ...]
    mode: str

    def unfold(self, image: Tensor) -> Tensor:
        """Returns the patches, [n, C * size, positions], of images [n, C, H, W]."""
        left, _, top, _ = self.pads
        if self.pads_evenly():
            return unfold(image, self.size, self.dilation, (top, left), self.stride)
        return unfold(self._pad(image), self.size, self.dilation, 0, self.stride)

    def pads_evenly(self) -> bool:
        """Returns whether the padding is zeros, with as many on opposite sides."""
        left, right, top, bottom = self.pads
        return self.mode == "zeros" and (left, top) == (right, bottom)

    def times_taken(self, height: int, width: int) -> Tensor:
        """Returns how many patches contain each pixel, or a copy of it in the padding. Float64, [H, W]."""
        # Each pixel of the padded image holds the index of its source in the image, or -1 for a zero.
        source = self._pad(torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width), -1)
        patches = torch.ones_like(unfold(source, self.size, self.dilation, 0, self.stride))
        times = fold(patches, source.shape[-2:], self.size, self.dilation, 0, self.stride).flatten()
        of_pixel = torch.zeros(1 + height * width, dtype=torch.float64).index_add(0, source.flatten().long() + 1, times)
        return of_pixel[1:].view(height, width)

    def _pad(self, image: Tensor, zero: float = 0.0) -> Tensor:
        if self.mode == "zeros":
            return pad(image, self.pads, value=zero)
        return pad(image, self.pads, mode=self.mode)


def window(layer: nn.Conv1d | nn.Conv2d) -> Window:
    """Returns the geometry of a convolution."""
    row = (1,) * (2 - len(layer.kernel_size))
    pads = (*layer._reversed_padding_repeated_twice, *(0, 0) * len(row))
    mode = str(layer.padding_mode)
    return Window((*row, *layer.kernel_size), (*row, *layer.dilation), (*row, *layer.stride), pads, mode)


def images(layer: nn.Module, x: Tensor) -> Tensor:
    """Returns the input [..., C, L] of a one-dimensional convolution as [..., C, 1, L]; any other input unchanged."""
    return x.unsqueeze(-2) if isinstance(layer, nn.Conv1d) else x


def channels_last(x: Tensor) -> bool:
    """Returns whether images [..., C, H, W] have their channels last in memory."""
    return x.dim() > 2 and x.stride(-3) == 1


def patches_per_pixel(layer: nn.Module, image: Tensor, last: bool) -> Tensor | None:
    """Returns how many patches of a convolution contain each number of its input; None where each is in one patch.

    Args:
        layer: The layer; None is returned unless it is a convolution.
        image: Its input, [..., C, H, W].
        last: Whether the result has channels last.

    Returns:
        The counts, flat: [H * W * C] or [C * H * W].
    """
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return None
    shape = window(layer)
    if shape.size == shape.stride == (1, 1):
        return None
    return _patches_per_pixel(shape, *image.shape[-3:], last, image.dtype, image.device)


@lru_cache(maxsize=128)  # Entries. A network needs fewer; the limit bounds memory for inputs of ever new lengths.
def _patches_per_pixel(
    shape: Window, channels: int, height: int, width: int, last: bool, dtype: torch.dtype, device: Any
) -> Tensor:
    times_HW = shape.times_taken(height, width)
    times = times_HW[..., None].expand(-1, -1, channels) if last else times_HW.expand(channels, -1, -1)
    return times.flatten().to(device, dtype)
