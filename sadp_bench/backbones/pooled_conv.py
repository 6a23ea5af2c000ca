"""A convolution and the average pool behind it, as one convolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from sadp_bench.backbones.spike_conv2d import SpikeConv2d


class PooledConv2d(SpikeConv2d):
    """A 3x3 convolution with padding 1 and a 2x2 average pool, computed as one 4x4 convolution of stride 2.

    The mean of the four outputs under a pool is linear in the input. Its kernel is the mean of the 3x3 kernel at four
    places, and needs 16 products instead of 36. The weight is that of the 3x3 convolution, [O, I, 3, 3]. The attributes
    for size, stride and padding are those of the 4x4 convolution.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        bias: Whether each output channel has a bias.
        step_mode: SpikingJelly's step mode: "m" for [T, B, C, H, W], "s" for [B, C, H, W].
        kernel: See `SpikeConv2d`.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool, step_mode: str, kernel: str) -> None:
        super().__init__(inputs, outputs, 3, 2, bias=bias, step_mode=step_mode, kernel=kernel)
        self.kernel_size = (4, 4)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, merged(weight), bias)

    def live_connections(self, live: Tensor) -> Tensor:
        """Returns the mask of the 4x4 kernel (1: live, 0: not) from the mask of the 3x3 weight."""
        return (merged(live.abs()) > 0).to(live)

    def unmerged(self, a: Tensor) -> tuple[nn.Conv2d, Tensor]:
        """Returns a 3x3 convolution with the layer's weight, and the input for which it gives the same output.

        That input is the mean of each 2x2 window of the padded input. The convolution's stride is 2.

        Args:
            a: The input, [T, B, C, H, W].
        """
        plain = nn.Conv2d(self.in_channels, self.out_channels, 3, stride=2, bias=False, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        means = avg_pool2d(pad(a.flatten(0, 1), (1, 1, 1, 1)), 2, stride=1)
        return plain, means.unflatten(0, a.shape[:2])


def merged(weight: Tensor) -> Tensor:
    """Returns the mean of a 3x3 kernel at its four places in a 4x4 kernel, [O, I, 4, 4] from [O, I, 3, 3]."""
    return avg_pool2d(pad(weight, (1, 1, 1, 1)), 2, stride=1)
