"""The convolution of every backbone."""

from __future__ import annotations

from spikingjelly.activation_based import layer
from torch import Tensor

from sadp_bench.native.spike_conv import spike_conv, takes


class SpikeConv2d(layer.Conv2d):
    """SpikingJelly's convolution. With the kernel "native" the C core computes it, if the input is spikes.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        size: Side of the kernel.
        stride: Stride of rows and columns.
        bias: Whether each output channel has a bias.
        step_mode: SpikingJelly's step mode: "m" for [T, B, C, H, W], "s" for [B, C, H, W].
        kernel: "native" for the C core, where the input is spikes; "python" for torch's convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int, *, bias: bool, step_mode: str, kernel: str
    ) -> None:
        super().__init__(inputs, outputs, size, stride=stride, padding=size // 2, bias=bias, step_mode=step_mode)
        self.kernel = kernel

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel == "native" and takes(self, input):
            return spike_conv(input, weight, bias, self.stride[0], self.padding[0])
        return super()._conv_forward(input, weight, bias)
