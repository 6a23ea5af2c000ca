"""How the inputs and outputs of convolution, linear and norm layers lie, and what a convolution's patches take of its input.

T time steps, B examples, tokens: of an example, each treated by itself by a linear layer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, pad, unfold
from torch.nn.modules.conv import _ConvNd

from sadp_bench.core.errors import BadInput

# What counts as a weight layer: its weights can be pruned, and its operations are counted.
WEIGHT_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
BOUNDED = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Linear,
)  # weight layers whose gradients can be bounded, and their norms taken exactly


def unbounded_layers(model: nn.Module) -> list[tuple[str, str]]:
    """Returns the name and the type of each weight layer, or transposed convolution, whose gradient can't be bounded."""
    return [
        (name, type(module).__name__)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | _ConvNd) and not isinstance(module, BOUNDED)
    ]


def multi_step(layer: nn.Module) -> bool:
    """Whether it takes all time steps at once, time first, as SpikingJelly's layers in step mode "m" do."""
    return getattr(layer, "step_mode", None) == "m"


def num_features(layer: nn.Module, x: Tensor) -> int:
    """How many of the last dimensions of a layer's input or output are those of one example (or token) at one step."""
    if isinstance(layer, nn.BatchNorm1d):
        return x.dim() - (2 if multi_step(layer) else 1)
    return 1 if isinstance(layer, nn.Linear) else 2 if isinstance(layer, nn.Conv1d) else 3


def by_time(layer: nn.Module, x: Tensor, batch: int, time_first: bool | None = True) -> Tensor:
    """A layer's input or output -> [T, B, tokens..., features...]; T = 1 where there is no time. See `arranged`."""
    try:
        return arranged(x, num_features(layer, x), batch, time_first)
    except BadInput as error:
        raise BadInput(f"{type(layer).__name__}: {error}") from None


def arranged(x: Tensor, features: int, batch: int, time_first: bool | None = True) -> Tensor:
    """[T, B, ...], [T * B, ...], [B, ...], [B, tokens, ...] or [tokens, B, ...] -> [T, B, tokens..., features...].

    features: how many of the last dimensions are no time, batch or tokens. time_first: whether what lies before the batch,
    or is folded into it, is time; if False there is none, and tokens are folded behind the batch ([B * tokens, ...]); None:
    not known, and refused where it matters. Raises BadInput where the numbers do not divide among the examples.
    """
    lead = x.shape[: x.dim() - features]
    first, second = lead[0] if lead else 0, lead[1] if len(lead) > 1 else 0
    folds = first >= batch and first % batch == 0
    if not folds and second != batch:
        raise BadInput(f"its rows, {list(lead)}, do not divide among the {batch} examples that were observed")
    if time_first is None and folds and (second == batch or first != batch):
        raise BadInput(
            f"its rows, {list(lead)} for {batch} examples, may be time steps or tokens: say time_first=True where they lie "
            "as [T, B, ...] or [T * B, ...], time_first=False where as [B, tokens, ...]"
        )
    if second == batch and (time_first or (time_first is None and not folds)):
        return x
    if first == batch:
        return x[None]
    if time_first is not False:
        return x.unflatten(0, (-1, batch))
    return (x.unflatten(0, (batch, -1)) if folds else x.transpose(0, 1))[None]


class Window(NamedTuple):
    """A convolution's geometry, of a one-dimensional one that of an image of one row. pads: left, right, top, bottom."""

    size: tuple[int, ...]
    dilation: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[int, ...]
    mode: str

    def unfold(self, image: Tensor) -> Tensor:
        """[n, C, H, W] -> the patches, [n, C * size, positions]."""
        left, right, top, bottom = self.pads
        if self.mode == "zeros" and (left, top) == (right, bottom):
            return unfold(image, self.size, self.dilation, (top, left), self.stride)
        return unfold(self._pad(image), self.size, self.dilation, 0, self.stride)

    def times_taken(self, height: int, width: int) -> Tensor:
        """How many patches take each pixel, a copy of it in the padding included. [H, W]."""
        # Each pixel of the padded image is one of the image, or, as -1, a zero.
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
    row = (1,) * (2 - len(layer.kernel_size))
    pads = (*layer._reversed_padding_repeated_twice, *(0, 0) * len(row))
    mode = str(layer.padding_mode)
    return Window((*row, *layer.kernel_size), (*row, *layer.dilation), (*row, *layer.stride), pads, mode)


def images(layer: nn.Module, x: Tensor) -> Tensor:
    """[..., C, L] of a one-dimensional convolution -> [..., C, 1, L]; others as they are."""
    return x.unsqueeze(-2) if isinstance(layer, nn.Conv1d) else x


def channels_last(x: Tensor) -> bool:
    """Whether images [..., C, H, W] lie so in memory."""
    return x.dim() > 2 and x.stride(-3) == 1


def patches_per_pixel(layer: nn.Module, image: Tensor, last: bool) -> Tensor | None:
    """How many patches of a convolution take each number of its input [..., C, H, W]; None: one each. Flat, channels last or
    first."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return None
    shape = window(layer)
    if shape.size == shape.stride == (1, 1):
        return None
    return _patches_per_pixel(shape, *image.shape[-3:], last, image.dtype, image.device)


@lru_cache(maxsize=128)  # a network's; sounds or sentences of every length would add up
def _patches_per_pixel(
    shape: Window, channels: int, height: int, width: int, last: bool, dtype: torch.dtype, device: Any
) -> Tensor:
    times_HW = shape.times_taken(height, width)
    times = times_HW[..., None].expand(-1, -1, channels) if last else times_HW.expand(channels, -1, -1)
    return times.flatten().to(device, dtype)
