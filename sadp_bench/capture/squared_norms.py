"""The squares that a layer's gradient is bounded by: of its inputs, A, and of the errors at its output, E.

T time steps, B examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from spikingjelly.activation_based.neuron import IFNode, LIFNode, ParametricLIFNode
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import by_time, images, num_features, patches_per_pixel

SPIKES = "_sadp_bench_spikes"  # on a spiking layer's output: which version of it is 0 or 1, whoever takes it as it is


def every(x: Tensor) -> Tensor:
    """All of T time steps."""
    return x


def middle(x: Tensor) -> Tensor:
    """The middle one of T time steps, of two the later: [1, ...] of [T, ...]."""
    return x[len(x) // 2 :][:1]


def mark_spikes(layer: nn.Module, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
    """A forward hook of layers that fire ones. What is later changed in place has another version."""
    if not spikes.is_inference():  # which have no versions
        setattr(spikes, SPIKES, spikes._version)


def are_spikes(x: Tensor) -> bool:
    version = getattr(x, SPIKES, None)
    return version is not None and version == x._version


def fires_ones(layer: nn.Module) -> bool:
    """Whether its output is 0 or 1, and not graded."""
    surrogate: Any = getattr(layer, "surrogate_function", None)
    return isinstance(layer, IFNode | LIFNode | ParametricLIFNode) and getattr(surrogate, "spiking", False)


def squares(x: Tensor, lead: int = 2, times: Tensor | None = None, binary: bool = False, last: bool = True) -> Tensor:
    """The sum of the squares of each step and example, of a layer's input or output, [T, B, ...]. [T, B].

    lead: how many of the first dimensions are not summed over. times: how often each number counts, flat. binary: all are 0
    or 1, and so their own squares. last: images are read channels last, not first; without a copy where they lie so.
    """
    shape, wide = x.shape[:lead], wide_type(x)
    x = (x.movedim(lead, -1) if last and x.dim() == lead + 3 else x).reshape(shape.numel(), -1)
    if binary and times is not None and x.dtype != torch.float16:  # whose range such a sum leaves
        square = x @ times
    elif x.dtype == torch.bfloat16 and x.device.type == "cpu":
        # Its norms would first make a float32 copy; its products accumulate in float32 as they are, many times as fast.
        square = torch.bmm(x[:, None], (x if times is None else x * times)[:, :, None])
    elif times is None:
        square = torch.linalg.vector_norm(x, dim=1, dtype=wide).square()
    else:
        square = x.to(wide).square() @ times.to(wide)
    return square.view(shape).to(wide)


def input_squares(
    layer: nn.Module, input: Tensor, output: Tensor, batch: int, steps: Callable[[Tensor], Tensor] = every
) -> Tensor:
    """A_l by step: the squares of a layer's inputs, each as often as a patch takes it, and the bias's ones. [T, B].

    steps: which of the time steps, of [T, ...].
    """
    x = steps(by_time(layer, input.detach(), batch))
    return squares_of_input(layer, x, output, 2, are_spikes(input))


def squares_of_input(layer: nn.Module, x: Tensor, output: Tensor, lead: int, binary: bool, last: bool = True) -> Tensor:
    """The same for each index of the first `lead` dimensions of x, a layer's input or a part of it. output: for its shape."""
    image = images(layer, x)
    square = squares(image, lead, patches_per_pixel(layer, image, last), binary, last)
    if getattr(layer, "bias", None) is None:
        return square
    positions = output.shape[output.dim() - num_features(layer, output) + 1 :].numel()
    tokens = x.shape[lead : x.dim() - num_features(layer, x)].numel()
    return square + positions * tokens


def wide_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
