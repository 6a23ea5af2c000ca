"""The spike-element-wise network of seven blocks, for event frames."""

from __future__ import annotations

from typing import ClassVar

from spikingjelly.activation_based import layer
from torch import nn

from sadp_bench.backbones.current import parted
from sadp_bench.backbones.parametric_lif import with_learned_tau
from sadp_bench.backbones.residual_blocks import SEWBlock, channels_within
from sadp_bench.backbones.spiking import LIF, Backbone, NeuronSettings, check_width, conv, norm_layer
from sadp_bench.core.channels import ChannelGroup

WIDENS_AT = 4  # the block before which the channels double


class SEW7B(Backbone):
    """7B-Net: seven blocks that add spikes, each with a max pool after it while 2 pixels are left; one readout.

    The stem and the layer that doubles the channels before the fifth block are 1x1 convolutions. The source trains it on
    CIFAR10-DVS with 128x128 pixels and 16 time steps.

    Source: Fang et al., "Deep Residual Learning in Spiking Neural Networks", NeurIPS 2021, and the authors' code.

    Args:
        input_shape: Shape of an image: C, H, W.
        num_classes: Classes, the readout's outputs.
        timesteps: Time steps, T.
        neuron: Settings of all spiking layers.
        width: Channels of the first four blocks; the others have twice as many.
        norm: Norm of each convolution's output. "batch": by the batch's mean and variance. "weighted": the same, where an
            example counts by its loss's weight. "group": by an example's own mean and variance. "sync": "batch" over all
            processes. "none": no norm.
        learn_tau: Whether each spiking layer learns its time constant, which starts at tau (parametric LIF).
    """

    has_native: ClassVar[bool] = False

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 64,
        norm: str = "batch",
        learn_tau: bool = True,
    ) -> None:
        check_width(width)
        channels, *sides = input_shape
        stem = nn.Sequential(
            conv(channels, width, 1, norm=norm, step_mode="s", kernel="python"), norm_layer(norm, width, "s")
        )
        body = nn.Sequential(LIF(neuron))
        for number in range(7):
            if number == WIDENS_AT:
                body.extend([conv(width, 2 * width, 1, norm=norm, kernel="python"), norm_layer(norm, 2 * width)])
                body.append(LIF(neuron))
                width *= 2
            body.append(SEWBlock(width, width, 1, neuron, norm, False))
            if min(sides) >= 2:
                body.append(layer.MaxPool2d(2, step_mode="m"))
                sides = [side // 2 for side in sides]
        if learn_tau:
            with_learned_tau(body, neuron)
        super().__init__(timesteps, stem, body, width * sides[0] * sides[1], num_classes)

    def blocks(self) -> list[list[nn.Module]]:
        """Returns the body's layers in parts that each end with a block; see `Backbone.blocks`."""
        return parted(self.body, SEWBlock)

    def channel_groups(self) -> list[ChannelGroup]:
        """Returns the channels between the two convolutions of each block; the sums of spikes tie all others."""
        return channels_within(block for block in self.body if isinstance(block, SEWBlock))
