"""Residual blocks of spiking networks, on currents or spikes [T, B, C, H, W]."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from sadp_bench.backbones.current import Current, TakesCurrent, through
from sadp_bench.backbones.spiking import LIF, NeuronSettings, conv, norm_layer
from sadp_bench.core.channels import ChannelGroup


class PreActivationBlock(nn.Module, TakesCurrent):
    """shortcut(x) + conv(LIF(norm(conv(LIF(norm(x)))))).

    A shortcut that changes the shape starts after the first LIF.

    The first block of a network has no norm before its first LIF, because the stem ends with a norm. The stem's norm is
    computed once for a static image.

    An identity shortcut carries the block's input, a current. So currents add up from block to block (MS-ResNet's membrane
    shortcut). In SLTT's blocks it carries spikes; see `SpikeShortcutBlock`.

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
        """Returns currents. A norm that is still to be applied is computed once, for the residual and the shortcut."""
        current = current.settled()
        spikes = through(self.activate, current)
        residual = through(self.residual, spikes).tensor()
        if self.shortcut is not None:
            return Current(residual + self.shortcut(spikes.y), current.timesteps)
        return Current(residual + (current.y if current.still else current.tensor()), current.timesteps)


class SpikeShortcutBlock(PreActivationBlock):
    """shortcut(spikes) + conv(LIF(norm(conv(spikes)))), with spikes = LIF(norm(x)): identity shortcuts carry spikes.

    Source: SLTT's spiking ResNet-18 (Meng et al., ICCV 2023). Its code overwrites x with its spikes before the shortcut.
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
        self.residual = _residual(inputs, outputs, stride, neuron, norm).append(LIF(neuron))
        self.shortcut = _shortcut(inputs, outputs, stride, norm, neuron.kernel)
        if len(self.shortcut):
            self.shortcut.append(LIF(neuron))

    def forward(self, x: Tensor) -> Tensor:
        """Returns sums of spikes, [T, B, C, H, W]."""
        return self.residual(x) + self.shortcut(x)

    def of_current(self, current: Current) -> Current:
        """Returns sums of spikes."""
        x = Current(current.tensor(), current.timesteps)
        residual = through(self.residual, x).tensor()
        return Current(residual + through(self.shortcut, x).tensor(), current.timesteps)


class MembraneBlock(nn.Module, TakesCurrent):
    """shortcut(x) + norm(conv(LIF(norm(conv(LIF(x)))))): both branches end with a norm, and currents are added.

    A shortcut that changes the shape is norm(conv(x)), of the current itself.

    Source: Hu et al., "Advancing Spiking Neural Networks Toward Deep Residual Learning" (MS-ResNet).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, neuron: NeuronSettings, norm: str, first: bool) -> None:
        super().__init__()
        self.activate = LIF(neuron)
        self.residual = _residual(inputs, outputs, stride, neuron, norm)
        # Its input is a current, which the native convolution of spikes does not take.
        self.shortcut = _shortcut(inputs, outputs, stride, norm, "python")

    def forward(self, x: Tensor) -> Tensor:
        """Returns currents, [T, B, C, H, W]."""
        return self.residual(self.activate(x)) + self.shortcut(x)

    def of_current(self, current: Current) -> Current:
        """Returns currents."""
        settled = current.settled()
        residual = through(self.residual, self.activate.of_current(settled)).tensor()
        across = through(self.shortcut, settled).settled()
        return Current(residual + (across.y if across.still else across.tensor()), current.timesteps)


class FiringBlock(nn.Module, TakesCurrent):
    """LIF(norm(conv(LIF(norm(conv(x))))) + shortcut(x)): the block fires after the addition, so x and the output are spikes.

    A shortcut that changes the shape is norm(conv(x)).

    Source: He et al., CVPR 2016, with neurons, as in Zheng et al., AAAI 2021 (tdBN).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, neuron: NeuronSettings, norm: str, first: bool) -> None:
        super().__init__()
        self.residual = _residual(inputs, outputs, stride, neuron, norm)
        self.shortcut = _shortcut(inputs, outputs, stride, norm, neuron.kernel)
        self.fire = LIF(neuron)

    def forward(self, x: Tensor) -> Tensor:
        """Returns spikes, [T, B, C, H, W]."""
        return self.fire(self.residual(x) + self.shortcut(x))

    def of_current(self, current: Current) -> Current:
        """Returns spikes."""
        x = Current(current.tensor(), current.timesteps)
        both = through(self.residual, x).tensor() + through(self.shortcut, x).tensor()
        return self.fire.of_current(Current(both, current.timesteps))


def channels_within(blocks: Iterable[nn.Module]) -> list[ChannelGroup]:
    """Returns the channels between the two convolutions of each block. Its `residual` begins with a convolution and norm."""
    groups = []
    for block in blocks:
        residual: Any = block.residual
        inner, norm, *later = residual
        outer = next(module for module in later if isinstance(module, nn.Conv2d))
        groups.append(ChannelGroup(inner, None if isinstance(norm, nn.Identity) else norm, (outer,)))
    return groups


def _residual(inputs: int, outputs: int, stride: int, neuron: NeuronSettings, norm: str) -> nn.Sequential:
    """Returns norm(conv(LIF(norm(conv(spikes)))))."""
    return nn.Sequential(
        conv(inputs, outputs, stride=stride, norm=norm, kernel=neuron.kernel),
        norm_layer(norm, outputs),
        LIF(neuron),
        conv(outputs, outputs, norm=norm, kernel=neuron.kernel),
        norm_layer(norm, outputs),
    )


def _shortcut(inputs: int, outputs: int, stride: int, norm: str, kernel: str) -> nn.Sequential:
    """Returns the identity, or norm(conv(x)) where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(conv(inputs, outputs, 1, stride, norm=norm, kernel=kernel), norm_layer(norm, outputs))
