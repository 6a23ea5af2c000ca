"""The convolution of spikes, computed by the C core at a cost in proportion to the spikes.

N images, I and O channels, H rows and W columns of the input, h and w of the output, k the side of the kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sadp_bench.native.library import Conv, address, call, channels_last

MOST = 2**31  # places in a list are 32-bit
LEAST = 1024  # input channels times output channels; with fewer, a dense convolution takes less time


def takes(conv: nn.Conv2d, x: Tensor) -> bool:
    """Returns whether the core computes a convolution of an input: whether it can, and whether that saves time.

    It depends on shapes and types alone: float32 on a CPU, a square kernel of 3 or more, no groups, enough channels.

    Args:
        conv: The layer. Its input may have any numbers, but only zeros save time.
        x: The input, [N, I, H, W].
    """
    (k, p), plain = (conv.kernel_size[0], conv.padding[0]), conv.groups == 1 and conv.padding_mode == "zeros"
    square = all(len(set(pair)) == 1 for pair in (conv.kernel_size, conv.stride, conv.padding))
    if not plain or not square or conv.dilation != (1, 1) or not isinstance(p, int) or k < 3:
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu") or not x.numel():
        return False
    height, width = x.shape[-2:]
    read = max((width + 2 * p) * conv.in_channels, (height + k) * (width + k)) * conv.out_channels
    return conv.in_channels * conv.out_channels >= LEAST and max(read, x[0].numel()) < MOST


def spike_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Returns a convolution's output, [N, O, h, w], channels last.

    Args:
        x: The input, [N, I, H, W], float32, on the CPU.
        weight: The weight, [O, I, k, k].
        bias: The bias, [O]; None: no bias.
        stride: The stride of rows and columns.
        padding: The number of zeros on each side.
    """
    made: Tensor = _SpikeConv.apply(x, weight, bias, stride, padding)
    return made


class _SpikeConv(torch.autograd.Function):
    """See `spike_conv`. The gradient at the input is dense, and torch computes it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        """Returns the output."""
        x = channels_last(x)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.biased = stride, padding, bias is not None
        return output(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients at the input, the weight and the bias."""
        x, weight = ctx.saved_tensors
        error = channels_last(error)
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        dx = dweight = None
        if of_x:
            sides = [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], 1
            dx = torch.ops.aten.convolution_backward(error, x, weight, None, *sides, [True, False, False])[0]
        if of_weight:
            dweight = weight_gradient(x, error, len(weight[0, 0]), ctx.stride, ctx.padding)
        return dx, dweight, error.sum((0, 2, 3)) if ctx.biased and of_bias else None, None, None


def output(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Returns the output of `spike_conv` for an input that lies channels last, without a graph."""
    outputs, inputs, size, _ = weight.shape
    images, _, height, width = x.shape
    rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
    y = torch.empty((images, outputs, rows, columns), memory_format=torch.channels_last)
    by_input = weight.permute(2, 3, 1, 0).contiguous()
    conv = Conv(images, height, width, inputs, rows, columns, outputs, size, stride, padding)
    conv.x, conv.weight, conv.bias, conv.y = map(address, (x, by_input, bias, y))
    call("spike_conv_forward", conv)
    return y


def weight_gradient(x: Tensor, error: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Returns the gradient at the weight, [O, I, k, k], channels last.

    Args:
        x: The input, [N, I, H, W], channels last.
        error: The gradient at the output, [N, O, h, w], channels last.
        size: The side of the kernel, k.
        stride: The stride of rows and columns.
        padding: The number of zeros on each side.
    """
    (images, inputs, height, width), (_, outputs, rows, columns) = x.shape, error.shape
    made = torch.empty(size, size, inputs, outputs)
    conv = Conv(images, height, width, inputs, rows, columns, outputs, size, stride, padding)
    conv.x, conv.dy, conv.dweight = map(address, (x, error, made))
    call("spike_conv_backward", conv)
    return channels_last(made.permute(3, 2, 0, 1))
