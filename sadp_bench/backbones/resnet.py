"""Spiking residual networks with the CIFAR stem: 3x3, stride 1, no pool."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from spikingjelly.activation_based import layer
from torch import nn

from sadp_bench.backbones.current import parted
from sadp_bench.backbones.dropout import dropouts
from sadp_bench.backbones.residual_blocks import (
    FiringBlock,
    MembraneBlock,
    PreActivationBlock,
    SEWBlock,
    SpikeShortcutBlock,
    channels_within,
)
from sadp_bench.backbones.spiking import LIF, Backbone, NeuronSettings, check_width, conv, halves, norm_layer
from sadp_bench.core.channels import ChannelGroup
from sadp_bench.core.errors import BadInput

# Channels. With fewer, oneDNN's weight gradient of the shortcuts (1x1, stride 2, channels last) writes out of bounds. The
# process then crashes, hangs or computes wrong numbers.
LEAST_WIDTH = 8
BLOCKS = (PreActivationBlock, SEWBlock, MembraneBlock, FiringBlock)

Block = Callable[[int, int, int, NeuronSettings, str, bool], nn.Module]


def _stages(
    block: Block,
    inputs: int,
    stages: Sequence[tuple[int, int]],
    side: int,
    neuron: NeuronSettings,
    norm: str,
    first_stride: int = 1,
) -> list[nn.Module]:
    """Returns the blocks of all stages. Each stage after the first begins with a stride of 2.

    A stride of 2 that would leave fewer than 2 pixels is 1.

    Args:
        block: The class of the blocks.
        inputs: Channels of the first block's input.
        stages: For each stage, its channels and its number of blocks.
        side: Pixels of the image's shorter side.
        neuron: Settings of all spiking layers.
        norm: See `norm_layer`.
        first_stride: Stride of the first stage: 1 or 2.
    """
    made: list[nn.Module] = []
    for outputs, number in stages:
        stride = 2 if (made or first_stride == 2) and halves(side) else 1
        side = side // stride
        for place in range(number):
            made.append(block(inputs, outputs, 1 if place else stride, neuron, norm, not made))
            inputs = outputs
    return made


def _of_18(width: int) -> list[tuple[int, int]]:
    """Returns the stages of a ResNet-18: two blocks each of width, 2, 4 and 8 width channels."""
    return [(width * 2**stage, 2) for stage in range(4)]


class _ResNet(Backbone):
    """The CIFAR stem, a body that each subclass defines, and the readout.

    Args:
        input_shape: Shape of an image: C, H, W.
        num_classes: Classes, the readout's outputs.
        timesteps: Time steps, T.
        neuron: Settings of all spiking layers.
        width: Channels of the stem.
        norm: Norm of each convolution's output. "batch": by the batch's mean and variance. "weighted": the same, where an
            example counts by its loss's weight. "group": by an example's own mean and variance. "sync": "batch" over all
            processes. "none": no norm.
        first_stride: Stride of the first stage of blocks: 1 or 2.

    Attributes:
        features: Inputs of the readout, as a multiple of the width.
    """

    features: ClassVar[int] = 8

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        width: int,
        norm: str,
        first_stride: int = 1,
    ) -> None:
        check_width(width, LEAST_WIDTH)
        if first_stride not in (1, 2):
            raise BadInput(f"backbone.first_stride is 1 or 2, not {first_stride}")
        channels, *sides = input_shape
        stem = nn.Sequential(
            conv(channels, width, norm=norm, step_mode="s", kernel="python"), norm_layer(norm, width, "s")
        )
        body = nn.Sequential(*self.body_of(width, min(sides), neuron, norm, first_stride))
        super().__init__(timesteps, stem, body, self.features * width, num_classes)

    def blocks(self) -> list[list[nn.Module]]:
        """Returns the body's layers in blocks, which each end with a residual block; see `Backbone.blocks`."""
        return parted(self.body, BLOCKS)

    def channel_groups(self) -> list[ChannelGroup]:
        """Returns the channels between the two convolutions of each block; identity shortcuts tie all others."""
        return channels_within(block for block in self.body if isinstance(block, BLOCKS))

    @staticmethod
    @abstractmethod
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str, first_stride: int) -> list[nn.Module]:
        """Returns the layers from the stem's normalised currents to the readout's input."""


class _ResNet18(_ResNet):
    """Two blocks in each of four stages, and a pool over positions."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 64,
        norm: str = "batch",
    ) -> None:
        super().__init__(input_shape, num_classes, timesteps, neuron, width, norm)


class ResNet18(_ResNet18):
    """Pre-activation spiking ResNet-18 with the CIFAR stem, whose identity shortcuts carry currents (as in MS-ResNet).

    Source: He et al., ECCV 2016, with spiking neurons. The network of SLTT is `resnet18-sltt`.
    """

    @staticmethod
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str, first_stride: int) -> list[nn.Module]:
        """Returns the stages, a norm, a neuron and the pool."""
        stages = _stages(PreActivationBlock, width, _of_18(width), side, neuron, norm)
        return [*stages, norm_layer(norm, 8 * width), LIF(neuron), _pool()]


class SLTTResNet18(_ResNet18):
    """Pre-activation spiking ResNet-18 with the CIFAR stem, whose identity shortcuts carry spikes.

    As in the authors' code, dropout stands before the second convolution of each block, and before the readout.

    Source: Meng et al., ICCV 2023 (SLTT), after He et al., ECCV 2016.

    Args:
        input_shape: Shape of an image: C, H, W.
        num_classes: Classes, the readout's outputs.
        timesteps: Time steps, T.
        neuron: Settings of all spiking layers.
        width: Channels of the stem.
        norm: Norm of each convolution's output. "batch": by the batch's mean and variance. "weighted": the same, where an
            example counts by its loss's weight. "group": by an example's own mean and variance. "sync": "batch" over all
            processes. "none": no norm.
        dropout: Share of the inputs of each block's second convolution, and of the readout, that becomes 0 in training.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 64,
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_shape, num_classes, timesteps, neuron, width=width, norm=norm)
        for part in self.body:
            if isinstance(part, PreActivationBlock):
                for made in dropouts(dropout):
                    part.residual.insert(len(part.residual) - 1, made)
        self.body.extend(dropouts(dropout))

    @staticmethod
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str, first_stride: int) -> list[nn.Module]:
        """Returns the stages, a norm, a neuron and the pool."""
        stages = _stages(SpikeShortcutBlock, width, _of_18(width), side, neuron, norm)
        return [*stages, norm_layer(norm, 8 * width), LIF(neuron), _pool()]


class SEWResNet18(_ResNet18):
    """Spike-element-wise ResNet-18 (shortcuts add spikes) with the CIFAR stem.

    Source: Fang et al., NeurIPS 2021.
    """

    @staticmethod
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str, first_stride: int) -> list[nn.Module]:
        """Returns a neuron, the stages and the pool."""
        return [LIF(neuron), *_stages(SEWBlock, width, _of_18(width), side, neuron, norm), _pool()]


class _StridedResNet(_ResNet):
    """A network whose first stage may have a stride of 2."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 64,
        norm: str = "batch",
        first_stride: int = 1,
    ) -> None:
        super().__init__(input_shape, num_classes, timesteps, neuron, width, norm, first_stride)


class MSResNet18(_StridedResNet):
    """MS-ResNet-18 with the CIFAR stem: shortcuts carry currents, and each block ends with a norm.

    Its first stage keeps the image's side, as in other CIFAR networks. With first_stride=2 it is SpikingJelly's
    `ms_resnet18` with this stem. The authors' norms begin with scales of 0.5 and 0, ours with 1.

    Source: Hu et al., "Advancing Spiking Neural Networks Toward Deep Residual Learning", 2024.
    """

    @staticmethod
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str, first_stride: int) -> list[nn.Module]:
        """Returns the stages, a neuron and the pool."""
        stages = _stages(MembraneBlock, width, _of_18(width), side, neuron, norm, first_stride)
        return [*stages, LIF(neuron), _pool()]


class ResNet19(_StridedResNet):
    """Spiking ResNet-19: 3, 3 and 2 blocks of 2, 4 and 8 width channels, then two linear layers; CIFAR stem.

    It has 12.63 million parameters at 10 classes and width 64, as in published tables. The lottery ticket paper's code
    has a stride of 2 in the first stage too: first_stride=2. The table in tdBN's paper has a stem of 128 channels.

    Source: Zheng et al., AAAI 2021 (tdBN); Deng et al., ICLR 2022 (TET); Kim et al., ECCV 2022 (lottery tickets).
    """

    features = 4

    @staticmethod
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str, first_stride: int) -> list[nn.Module]:
        """Returns a neuron, the stages, the pool, and the linear layer of 4 width neurons."""
        stages = [(2 * width, 3), (4 * width, 3), (8 * width, 2)]
        made = _stages(FiringBlock, width, stages, side, neuron, norm, first_stride)
        hidden = layer.Linear(8 * width, 4 * width, step_mode="m")
        return [LIF(neuron), *made, _pool(), layer.Flatten(step_mode="m"), hidden, LIF(neuron)]


def _pool() -> nn.Module:
    return layer.AdaptiveAvgPool2d(1, step_mode="m")
