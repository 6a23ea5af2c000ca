"""Backbones without shortcuts: blocks of convolution, norm, pool and neuron."""

from __future__ import annotations

from collections.abc import Callable

from spikingjelly.activation_based import layer
from torch import nn

from sadp_bench.backbones.dropout import dropouts
from sadp_bench.backbones.spike_conv2d import SpikeConv2d
from sadp_bench.backbones.spiking import (
    LIF,
    Backbone,
    NeuronSettings,
    check_width,
    conv,
    halves,
    norm_layer,
    pooled_conv,
)
from sadp_bench.capture.heads import linear_of_layer
from sadp_bench.capture.layers import norm_layers
from sadp_bench.core.channels import ChannelGroup
from sadp_bench.core.errors import BadInput

POOLS: dict[str, Callable[..., nn.Module]] = {"avg": layer.AvgPool2d, "max": layer.MaxPool2d}
PLACES = ("before-norm", "after-norm", "after-neuron")


class _Plain(Backbone):
    """A chain of blocks without shortcuts.

    With a pool before the neuron, every convolution's input is spikes (0 or 1), and the neuron has a quarter of the work.

    Args:
        blocks: For each block, its channels as a multiple of the width, and whether it pools.
        input_shape: Shape of an image: C, H, W.
        num_classes: Classes, the readout's outputs.
        timesteps: Time steps, T.
        neuron: Settings of all spiking layers.
        width: Channels of the first block. Later blocks have multiples of this number.
        norm: Norm of each convolution's output. "batch": by the batch's mean and variance. "weighted": the same, where an
            example counts by its loss's weight. "group": by an example's own mean and variance. "sync": "batch" over all
            processes. "none": no norm.
        pool: Kind of the 2x2 pools: "avg" or "max".
        pool_at: Place of a block's pool: "before-norm", "after-norm" or "after-neuron". Before the norm, an average pool
            and its convolution are one layer. After the neuron, a maximum of spikes is 0 or 1, and a mean is k / 4.
        dropout: Share of the readout's inputs that becomes 0 in training, the same at all time steps. There is no dropout
            between blocks.
    """

    def __init__(
        self,
        blocks: list[tuple[int, bool]],
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        width: int,
        norm: str,
        pool: str,
        pool_at: str,
        dropout: float,
    ) -> None:
        check_width(width)
        _check_pool(pool, pool_at)
        channels, *sides = input_shape
        stem: list[nn.Module] = []
        body: list[nn.Module] = []
        for multiple, pooled in blocks:
            pooled = pooled and halves(min(sides))
            sides = [side // 2 for side in sides] if pooled else sides
            place = pool_at if pooled else ""
            mode, kernel = ("m", neuron.kernel) if stem else ("s", "python")  # the stem's input is not spikes
            current = _current(channels, width * multiple, norm, POOLS[pool], place, mode, kernel)
            channels = width * multiple
            if stem:
                body += current
            else:
                stem = current
            body += [LIF(neuron), *([POOLS[pool](2, step_mode="m")] if place == "after-neuron" else [])]
        features = channels * sides[0] * sides[1]
        body += dropouts(dropout)
        super().__init__(timesteps, nn.Sequential(*stem), nn.Sequential(*body), features, num_classes)

    def channel_groups(self) -> list[ChannelGroup]:
        """Returns the output channels of every convolution, with the layers that read them.

        The reader is the next convolution; for the last one it is the readout. With local learning, the block's head
        reads them too.
        """
        convs = [module for module in self.modules() if isinstance(module, SpikeConv2d)]
        norms, readers = norm_layers(self), [*convs[1:], self.readout]
        heads = list(dict.fromkeys(linear_of_layer(self).values()))
        return [
            ChannelGroup(conv, norms[place] if norms else None, (reader, *heads[place : place + 1]))
            for place, (conv, reader) in enumerate(zip(convs, readers, strict=True))
        ]


def _current(
    inputs: int, outputs: int, norm: str, pool: Callable[..., nn.Module], place: str, mode: str, kernel: str
) -> list[nn.Module]:
    """Returns the layers of a block before its neuron; `place` is that of its pool, "" without a pool."""
    merged = place == "before-norm" and pool is layer.AvgPool2d
    make = pooled_conv if merged else conv
    made = [make(inputs, outputs, norm=norm, step_mode=mode, kernel=kernel), norm_layer(norm, outputs, mode)]
    if place in ("before-norm", "after-norm") and not merged:
        made.insert(1 if place == "before-norm" else 2, pool(2, step_mode=mode))
    return made


def _check_pool(pool: str, pool_at: str) -> None:
    for name, value, allowed in (("pool", pool, POOLS), ("pool_at", pool_at, PLACES)):
        if value not in allowed:
            raise BadInput(f"backbone.{name} is one of {', '.join(allowed)}, not '{value}'")


class CNN(_Plain):
    """Three convolution blocks of width, 2 width and 4 width channels, each pooled; the default on a CPU.

    The pool stands before the norm, which is more accurate in the same time (docs/speed.md).

    Source: the small CIFAR network of many SNN papers; ours in its details.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 32,
        norm: str = "batch",
        pool: str = "avg",
        pool_at: str = "before-norm",
        dropout: float = 0.0,
    ) -> None:
        blocks = [(1, True), (2, True), (4, True)]
        super().__init__(blocks, input_shape, num_classes, timesteps, neuron, width, norm, pool, pool_at, dropout)


class VGG11(_Plain):
    """VGG-11: eight convolutions, up to five pools (four on 32x32), one readout; spiking.

    Source: Simonyan & Zisserman, ICLR 2015 (configuration A), with one linear readout as in SNN papers.
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
        pool: str = "avg",
        pool_at: str = "after-norm",
        dropout: float = 0.0,
    ) -> None:
        blocks = [(1, True), (2, True), (4, False), (4, True), (8, False), (8, True), (8, False), (8, True)]
        super().__init__(blocks, input_shape, num_classes, timesteps, neuron, width, norm, pool, pool_at, dropout)


class VGG16(_Plain):
    """VGG-16: thirteen convolutions, up to five pools (four on 32x32), one readout; spiking.

    As in the lottery ticket paper's code, a pool takes the maximum of spikes. In that code a fifth pool leaves one pixel.

    Source: Simonyan & Zisserman, ICLR 2015 (configuration D); Kim et al., ECCV 2022 (lottery tickets).
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
        pool: str = "max",
        pool_at: str = "after-neuron",
        dropout: float = 0.0,
    ) -> None:
        stages = [(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)]
        blocks = [(multiple, place == number - 1) for multiple, number in stages for place in range(number)]
        super().__init__(blocks, input_shape, num_classes, timesteps, neuron, width, norm, pool, pool_at, dropout)


class VGGSNN(_Plain):
    """VGGSNN: eight convolutions, four average pools of spikes, one readout; for event frames.

    The source trains it on CIFAR10-DVS with 48x48 pixels and ten time steps.

    Source: Deng et al., ICLR 2022 (TET).
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
        pool: str = "avg",
        pool_at: str = "after-neuron",
        dropout: float = 0.0,
    ) -> None:
        blocks = [(1, False), (2, True), (4, False), (4, True), (8, False), (8, True), (8, False), (8, True)]
        super().__init__(blocks, input_shape, num_classes, timesteps, neuron, width, norm, pool, pool_at, dropout)
