"""Spiking residual networks with the CIFAR stem: 3x3, stride 1, no pool."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from spikingjelly.activation_based import layer
from torch import Tensor, nn

from sadp_bench.backbones.current import Current, TakesCurrent, parted, through
from sadp_bench.backbones.dropout import dropouts
from sadp_bench.backbones.spiking import LIF, Backbone, NeuronSettings, check_width, conv, halves, norm_layer
from sadp_bench.core.channels import ChannelGroup

# Channels. With fewer, oneDNN's weight gradient of the shortcuts (1x1, stride 2, channels last) writes out of bounds: the
# process dies, hangs, or gets wrong numbers.
LEAST_WIDTH = 8

Block = Callable[[int, int, int, NeuronSettings, str, bool], nn.Module]


class PreActivationBlock(nn.Module, TakesCurrent):
    """shortcut(x) + conv(LIF(norm(conv(LIF(norm(x)))))).

    A shortcut that changes the shape starts after the first LIF.

    The first block of a network has no norm before its first LIF, because the stem ends with one, which is computed
    once for a static image.

    The identity carries the block's input, a current, so currents add up from block to block (MS-ResNet's membrane
    shortcut). SLTT's blocks carry spikes there: `SpikeShortcutBlock`.

    Source: He et al., ECCV 2016; the shortcut of currents: Hu et al., "Advancing Spiking Neural Networks Toward Deep
    Residual Learning".
    """

    def __init__(self, inputs: int, outputs: int, stride: int, neuron: NeuronSettings, norm: str, first: bool) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.Identity() if first else norm_layer(norm, inputs), LIF(neuron))
        self.residual = nn.Sequential(
            conv(inputs, outputs, stride=stride, norm=norm, kernel=neuron.kernel),
            norm_layer(norm, outputs),
            LIF(neuron),
            conv(outputs, outputs, norm=norm, kernel=neuron.kernel),
        )
        reshapes = stride != 1 or inputs != outputs
        self.shortcut = conv(inputs, outputs, 1, stride, norm=norm, kernel=neuron.kernel) if reshapes else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns currents, [T, B, C, H, W]."""
        spikes = self.activate(x)
        return self.residual(spikes) + (x if self.shortcut is None else self.shortcut(spikes))

    def of_current(self, current: Current) -> Current:
        """Returns currents. The shortcut takes the current with its norm, which then is computed once for both."""
        current = current.settled()
        spikes = through(self.activate, current)
        residual = through(self.residual, spikes).tensor()
        if self.shortcut is not None:
            return Current(residual + self.shortcut(spikes.y), current.timesteps)
        return Current(residual + (current.y if current.still else current.tensor()), current.timesteps)


class SpikeShortcutBlock(PreActivationBlock):
    """across(spikes) + conv(LIF(norm(conv(spikes)))), with spikes = LIF(norm(x)): the identity takes the spikes too.

    Source: SLTT's spiking ResNet-18 (Meng et al., ICCV 2023), whose code overwrites x by its spikes before the shortcut.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns currents, [T, B, C, H, W]."""
        spikes = self.activate(x)
        return self.residual(spikes) + (spikes if self.shortcut is None else self.shortcut(spikes))

    def of_current(self, current: Current) -> Current:
        """Returns currents."""
        spikes = through(self.activate, current)
        across = spikes.tensor() if self.shortcut is None else self.shortcut(spikes.tensor())
        return Current(through(self.residual, spikes).tensor() + across, current.timesteps)


class SEWBlock(nn.Module, TakesCurrent):
    """x + LIF(norm(conv(LIF(norm(conv(x)))))): spikes are added element by element, so sums reach 2 and more.

    Source: Fang et al., NeurIPS 2021 (spike-element-wise ResNet, g = ADD).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, neuron: NeuronSettings, norm: str, first: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv(inputs, outputs, stride=stride, norm=norm, kernel=neuron.kernel),
            norm_layer(norm, outputs),
            LIF(neuron),
            conv(outputs, outputs, norm=norm, kernel=neuron.kernel),
            norm_layer(norm, outputs),
            LIF(neuron),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                conv(inputs, outputs, 1, stride, norm=norm, kernel=neuron.kernel),
                norm_layer(norm, outputs),
                LIF(neuron),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Returns sums of spikes, [T, B, C, H, W]."""
        return self.residual(x) + self.shortcut(x)

    def of_current(self, current: Current) -> Current:
        """Returns sums of spikes."""
        x = Current(current.tensor(), current.timesteps)
        residual = through(self.residual, x).tensor()
        return Current(residual + through(self.shortcut, x).tensor(), current.timesteps)


def _stages(block: Block, width: int, side: int, neuron: NeuronSettings, norm: str) -> list[nn.Module]:
    """Returns four stages of two blocks of width, 2, 4 and 8 width channels; strides never leave less than 2 pixels."""
    made: list[nn.Module] = []
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        stride = 2 if stage > 0 and halves(side) else 1
        side = side // stride
        made += [
            block(inputs, outputs, stride, neuron, norm, not made),
            block(outputs, outputs, 1, neuron, norm, False),
        ]
        inputs = outputs
    return made


class _ResNet18(Backbone):
    """The CIFAR stem, the body of a kind, a pool over positions, the readout."""

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
        check_width(width, LEAST_WIDTH)
        channels, *sides = input_shape
        stem = nn.Sequential(
            conv(channels, width, norm=norm, step_mode="s", kernel="python"), norm_layer(norm, width, "s")
        )
        body = nn.Sequential(*self.body_of(width, min(sides), neuron, norm), layer.AdaptiveAvgPool2d(1, step_mode="m"))
        super().__init__(timesteps, stem, body, 8 * width, num_classes)

    def blocks(self) -> list[list[nn.Module]]:
        """Returns the body's layers in blocks, which each end with a residual block; see `Backbone.blocks`."""
        return parted(self.body, (PreActivationBlock, SEWBlock))

    def channel_groups(self) -> list[ChannelGroup]:
        """Returns the channels between the two convolutions of each block; identity shortcuts tie all others."""
        groups = []
        for block in self.body:
            if isinstance(block, PreActivationBlock | SEWBlock):
                residual: Any = block.residual
                inner, norm, *later = residual
                outer = next(module for module in later if isinstance(module, nn.Conv2d))
                groups.append(ChannelGroup(inner, None if isinstance(norm, nn.Identity) else norm, (outer,)))
        return groups

    @staticmethod
    @abstractmethod
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str) -> list[nn.Module]:
        """Returns the layers from the stem's normalised currents to spikes, or sums of spikes, of 8 width channels."""


class ResNet18(_ResNet18):
    """Pre-activation spiking ResNet-18 with the CIFAR stem, whose identity shortcuts carry currents (as in MS-ResNet).

    Source: He et al., ECCV 2016, with neurons. It is not the network of SLTT, which is `resnet18-sltt`.
    """

    @staticmethod
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str) -> list[nn.Module]:
        """Returns the stages, a norm and a neuron."""
        return [*_stages(PreActivationBlock, width, side, neuron, norm), norm_layer(norm, 8 * width), LIF(neuron)]


class SLTTResNet18(_ResNet18):
    """Pre-activation spiking ResNet-18 with the CIFAR stem, whose identity shortcuts carry spikes.

    As in the authors' code, dropout stands before the second convolution of each block, and before the readout.

    Source: Meng et al., ICCV 2023 (SLTT), after He et al., ECCV 2016.
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
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str) -> list[nn.Module]:
        """Returns the stages, a norm and a neuron."""
        return [*_stages(SpikeShortcutBlock, width, side, neuron, norm), norm_layer(norm, 8 * width), LIF(neuron)]


class SEWResNet18(_ResNet18):
    """Spike-element-wise ResNet-18 (shortcuts add spikes) with the CIFAR stem.

    Source: Fang et al., NeurIPS 2021.
    """

    @staticmethod
    def body_of(width: int, side: int, neuron: NeuronSettings, norm: str) -> list[nn.Module]:
        """Returns a neuron and the stages."""
        return [LIF(neuron), *_stages(SEWBlock, width, side, neuron, norm)]
