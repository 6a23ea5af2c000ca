"""Squared norms of a layer's inputs (A) and output gradients (E); their product bounds the layer's squared gradient norm.

Shape letters: T time steps, B examples.
"""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based.neuron import IFNode, LIFNode, ParametricLIFNode
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import by_time, channels_last, images, num_features, patches_per_pixel
from sadp_bench.core.precision import wide_dtype
from sadp_bench.core.row_squares import attached_row_squares

# Attribute of a spiking layer's output: the tensor's version whose values are all 0 or 1.
SPIKES = "_sadp_bench_spikes"
# Parts of a row. The norm of each is rounded to bfloat16 before they add up, and several rounding errors average out.
NORMS_OF_ROW = 16


def middle(x: Tensor) -> Tensor:
    """Returns the middle time step of [T, ...], the later of two: [...]."""
    return x[x.shape[0] // 2]


def mark_spikes(layer: nn.Module, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
    """Marks a layer's output as spikes; a forward hook. A later change in place gives the tensor another version."""
    if not spikes.is_inference():  # Inference tensors have no version.
        setattr(spikes, SPIKES, spikes._version)


def are_spikes(x: Tensor) -> bool:
    """Returns whether a tensor is a spiking layer's output, unchanged since `mark_spikes`."""
    version = getattr(x, SPIKES, None)
    return version is not None and version == x._version


def fires_ones(layer: nn.Module) -> bool:
    """Returns whether a layer's output is always 0 or 1, and never graded."""
    surrogate: Any = getattr(layer, "surrogate_function", None)
    return isinstance(layer, IFNode | LIFNode | ParametricLIFNode) and getattr(surrogate, "spiking", False)


def squares(x: Tensor, lead: int = 2, times: Tensor | None = None, binary: bool = False) -> Tensor:
    """Returns the sum of squares of a layer's input or output, for each time step and example.

    Images with channels last in memory are read in that order, without a copy.

    Args:
        x: [T, B, ...].
        lead: The number of leading dimensions that are not summed over.
        times: How often each number counts, flat, in the order of x in memory; once by default.
        binary: Whether all numbers are 0 or 1, and so equal their squares.

    Returns:
        The first `lead` dimensions, [T, B] by default; at least float32.
    """
    return row_squares(in_rows(x, lead), times, binary).view(x.shape[:lead])


def in_rows(x: Tensor, lead: int) -> Tensor:
    """Returns the first `lead` dimensions as rows, [n, m]. Images with channels last in memory are read in that order."""
    rows = x.shape[:lead].numel()
    return (x.movedim(lead, -1) if x.dim() == lead + 3 and channels_last(x) else x).reshape(rows, -1)


def row_squares(x: Tensor, times: Tensor | None, binary: bool) -> Tensor:
    """Returns each row's sum of squares.

    Args:
        x: [n, m].
        times: How often each column counts, [m]; once by default.
        binary: Whether all numbers are 0 or 1.

    Returns:
        [n], at least float32. The relative error is at most 2^-7 for bfloat16.
    """
    wide = wide_dtype(x)
    if times is None and x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.shape[1] % NORMS_OF_ROW == 0:
        # With a dtype, vector_norm makes a copy first. Without one it sums in float32, and rounds the norm to bfloat16.
        norms = torch.linalg.vector_norm(x.view(len(x), NORMS_OF_ROW, -1), dim=2)
        return norms.to(wide).square().sum(1)
    if times is None:
        return torch.linalg.vector_norm(x, dim=1, dtype=wide).square()
    if binary and x.dtype != torch.float16:  # The sum can exceed the range of float16.
        return (x @ times).to(wide)
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        return (x.square() @ times).to(wide)
    return x.to(wide).square() @ times.to(wide)


def error_squares(layer: nn.Module, error: Tensor, batch: int) -> Tensor:
    """Returns E_l by time step, [T, B]: the sum of squares of the gradient at a layer's output.

    Args:
        layer: The layer.
        error: The gradient. If sums of squares are attached to it, they are returned.
        batch: The number of examples, B.
    """
    square_N = attached_row_squares(error)
    return squares(by_time(layer, error, batch)) if square_N is None else square_N.view(-1, batch)


def input_squares(layer: nn.Module, input: Tensor, output: Tensor, batch: int) -> Tensor:
    """Returns A_l by time step: the sum of squares of a layer's inputs, plus one for each output position with a bias.

    Each input counts once for each patch of the convolution that contains it.

    Args:
        layer: The layer.
        input: Its input.
        output: Its output; only the shape is used.
        batch: The number of examples, B.

    Returns:
        [T, B].
    """
    return squares_of_input(layer, by_time(layer, input.detach(), batch), output, 2, are_spikes(input))


def squares_of_input(layer: nn.Module, x: Tensor, output: Tensor, lead: int, binary: bool) -> Tensor:
    """Returns A_l, as `input_squares` does, for each index of the first `lead` dimensions of x.

    Args:
        layer: The layer.
        x: Its input, or a part of it.
        output: Its output, or a tensor of the same last dimensions.
        lead: The number of leading dimensions that are not summed over.
        binary: Whether all inputs are 0 or 1.
    """
    image = images(layer, x)
    square = squares(image, lead, patches_per_pixel(layer, image, channels_last(image)), binary)
    added = of_bias(layer, x, output, lead)
    return square + added if added else square


def of_bias(layer: nn.Module, x: Tensor, output: Tensor, lead: int) -> int:
    """Returns the number of output positions, which a bias adds to A_l; 0 without a bias."""
    if getattr(layer, "bias", None) is None:
        return 0
    positions = output.shape[output.dim() - num_features(layer, output) + 1 :].numel()
    return positions * x.shape[lead : x.dim() - num_features(layer, x)].numel()
