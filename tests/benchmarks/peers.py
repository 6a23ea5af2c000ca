"""The suite's backbones built from SpikingJelly's and from snnTorch's layers, with the same order of layers.

A kit makes the layers of a library, a `Peer` is a network of them. Nothing here comes from `sadp_bench.backbones`, so a
faster layer there leaves the peers as their libraries give them. A test compares the logits of both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput

AFTER_NORM, BEFORE_NORM = "after-norm", "before-norm"
PLAIN = {  # (channels as a multiple of the width, pooled or not) of each block
    "cnn": [(1, True), (2, True), (4, True)],
    "vgg11": [(1, True), (2, True), (4, False), (4, True), (8, False), (8, True), (8, False), (8, True)],
}
RESIDUAL = ("resnet18", "sew-resnet18")
Lif = Callable[[], nn.Module]


@dataclass(frozen=True)
class Shape:
    """Shape that a peer shares with one of the suite's networks.

    Args:
        backbone: Name of the suite's network.
        width: Channels of the first convolution.
        pool: Place of a plain block's pool: after its norm, or before it.
        input_shape: (C, H, W).
        num_classes: Classes, the readout's outputs.
        timesteps: Number of time steps, T.
    """

    backbone: str
    width: int
    pool: str
    input_shape: tuple[int, int, int]
    num_classes: int
    timesteps: int

    def __post_init__(self) -> None:
        if self.backbone not in (*PLAIN, *RESIDUAL):
            raise BadInput(f"--backbone is one of {', '.join((*PLAIN, *RESIDUAL))} here, not '{self.backbone}'")
        if self.pool not in (AFTER_NORM, BEFORE_NORM):
            raise BadInput(f"backbone.pool_at is {AFTER_NORM} or {BEFORE_NORM} here, not '{self.pool}'")


class Kit(ABC):
    """Layers of a library.

    Args:
        lif: Makes its neuron.
        by_hand: Whether the network is tuned by hand: the first convolution and norm of an image are computed once.
    """

    def __init__(self, lif: Lif | None = None, by_hand: bool = False) -> None:
        self.lif, self.by_hand = lif or self.default_lif, by_hand

    @abstractmethod
    def default_lif(self) -> nn.Module:
        """Returns the library's neuron, as its tutorials or a careful user make it."""

    @abstractmethod
    def conv(self, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
        """Returns a padded convolution without bias."""

    @abstractmethod
    def norm(self, channels: int) -> nn.Module:
        """Returns batch norm."""

    @abstractmethod
    def pool(self) -> nn.Module:
        """Returns the average pool of 2x2 pixels."""

    @abstractmethod
    def whole_pool(self) -> nn.Module:
        """Returns the average pool of all pixels."""

    @abstractmethod
    def over_time(self, net: nn.Module, input_TB: Tensor) -> Tensor:
        """Returns the outputs of a network at every step."""

    @abstractmethod
    def reset(self, net: nn.Module) -> None:
        """Puts the membranes of a network to rest, after a batch."""


class ChannelsLastLIF(neuron.LIFNode):
    """SpikingJelly's neuron on images as they lie in memory, channels last."""

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Returns the spikes of a current [T, B, C, H, W], channels last in memory."""
        return super().multi_step_forward(x_seq.movedim(2, -1)).movedim(-1, 2)


class SpikingJelly(Kit):
    """SpikingJelly's layers in step mode "m"."""

    def default_lif(self) -> nn.Module:
        if self.by_hand:
            return ChannelsLastLIF(surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")
        return neuron.LIFNode(step_mode="m")

    def conv(self, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
        return layer.Conv2d(inputs, outputs, size, stride, size // 2, bias=False, step_mode="m")

    def norm(self, channels: int) -> nn.Module:
        return layer.BatchNorm2d(channels, step_mode="m")

    def pool(self) -> nn.Module:
        return layer.AvgPool2d(2, step_mode="m")

    def whole_pool(self) -> nn.Module:
        return layer.AdaptiveAvgPool2d(1, step_mode="m")

    def over_time(self, net: nn.Module, input_TB: Tensor) -> Tensor:
        return net(input_TB)

    def reset(self, net: nn.Module) -> None:
        functional.reset_net(net)


class SnnTorch(Kit):
    """torch's layers and snnTorch's neuron, called step by step."""

    def default_lif(self) -> nn.Module:
        return self.leaky()

    @staticmethod
    def leaky(**settings: Any) -> nn.Module:
        """Returns snnTorch's leaky neuron of time constant 2, which keeps its membrane."""
        import snntorch

        return snntorch.Leaky(beta=0.5, init_hidden=True, **settings)

    def conv(self, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
        return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

    def norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels)

    def pool(self) -> nn.Module:
        return nn.AvgPool2d(2)

    def whole_pool(self) -> nn.Module:
        return nn.AdaptiveAvgPool2d(1)

    def over_time(self, net: nn.Module, input_TB: Tensor) -> Tensor:
        return torch.stack([net(input_B) for input_B in input_TB])

    def reset(self, net: nn.Module) -> None:
        for module in net.modules():
            if hasattr(module, "reset_mem"):
                module.reset_mem()


class PreActivation(nn.Module):
    """shortcut(x) + conv(LIF(norm(conv(LIF(norm(x)))))); a network's first block has no norm before its first LIF."""

    def __init__(self, kit: Kit, inputs: int, outputs: int, stride: int, first: bool) -> None:
        super().__init__()
        self.activate = nn.Sequential(*([] if first else [kit.norm(inputs)]), kit.lif())
        parts = (kit.conv(inputs, outputs, 3, stride), kit.norm(outputs), kit.lif(), kit.conv(outputs, outputs))
        self.residual = nn.Sequential(*parts)
        self.shortcut = None if stride == 1 and inputs == outputs else kit.conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns currents."""
        spikes = self.activate(x)
        return self.residual(spikes) + (x if self.shortcut is None else self.shortcut(spikes))


class SpikeElementWise(nn.Module):
    """shortcut(x) + LIF(norm(conv(LIF(norm(conv(x))))))."""

    def __init__(self, kit: Kit, inputs: int, outputs: int, stride: int, first: bool) -> None:
        super().__init__()
        first_part = (kit.conv(inputs, outputs, 3, stride), kit.norm(outputs), kit.lif())
        self.residual = nn.Sequential(*first_part, kit.conv(outputs, outputs), kit.norm(outputs), kit.lif())
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(kit.conv(inputs, outputs, 1, stride), kit.norm(outputs), kit.lif())

    def forward(self, x: Tensor) -> Tensor:
        """Returns sums of spikes."""
        return self.residual(x) + self.shortcut(x)


def plain_layers(kit: Kit, shape: Shape) -> tuple[list[nn.Module], list[nn.Module], int]:
    """Returns the stem, the body and the number of features of a network without shortcuts."""
    channels, *sides = shape.input_shape
    parts: list[list[nn.Module]] = []
    for multiple, pooled in PLAIN[shape.backbone]:
        outputs = shape.width * multiple
        part = [kit.norm(outputs)]
        if pooled and min(sides) >= 4:
            part.insert(0 if shape.pool == BEFORE_NORM else 1, kit.pool())
            sides = [side // 2 for side in sides]
        parts.append([kit.conv(channels, outputs), *part])
        channels = outputs
    body = [kit.lif(), *(module for part in parts[1:] for module in (*part, kit.lif()))]
    return parts[0], body, channels * sides[0] * sides[1]


def residual_layers(kit: Kit, shape: Shape) -> tuple[list[nn.Module], list[nn.Module], int]:
    """Returns the stem, the body and the number of features of a ResNet-18 with the CIFAR stem."""
    channels, *sides = shape.input_shape
    pre = shape.backbone == "resnet18"
    block: Any = PreActivation if pre else SpikeElementWise
    inputs, side, body = shape.width, min(sides), []
    for stage in range(4):
        outputs = shape.width * 2**stage
        stride = 2 if stage > 0 and side >= 4 else 1
        side //= stride
        body += [block(kit, inputs, outputs, stride, stage == 0), block(kit, outputs, outputs, 1, False)]
        inputs = outputs
    body = [*body, kit.norm(inputs), kit.lif()] if pre else [kit.lif(), *body]
    return [kit.conv(channels, shape.width), kit.norm(shape.width)], [*body, kit.whole_pool()], inputs


class Peer(nn.Module):
    """A network of a kit's layers.

    Args:
        kit: Makes the layers.
        shape: Shape of the network.
    """

    def __init__(self, kit: Kit, shape: Shape) -> None:
        super().__init__()
        stem, body, features = (plain_layers if shape.backbone in PLAIN else residual_layers)(kit, shape)
        self.kit, self.timesteps = kit, shape.timesteps
        self.stem, self.body = nn.Sequential(*stem), nn.Sequential(*body)
        self.readout = nn.Linear(features, shape.num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Returns logits_TBC of images [B, C, H, W] or of frames of events [T, B, C, H, W]."""
        if input.dim() == 4 and self.kit.by_hand:
            current = self.kit.over_time(self.stem, input.unsqueeze(0))
            spikes = self.kit.over_time(self.body, current.expand(self.timesteps, *current.shape[1:]))
        else:
            if input.dim() == 4:
                input = input.unsqueeze(0).repeat(self.timesteps, 1, 1, 1, 1)
            spikes = self.kit.over_time(nn.Sequential(self.stem, self.body), input)
        return self.readout(spikes.flatten(2))
