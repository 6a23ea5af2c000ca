"""Backbones without shortcuts: blocks of convolution, norm, pool and neuron."""

from __future__ import annotations

from spikingjelly.activation_based import layer
from torch import nn

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
from sadp_bench.core.errors import BadInput

POOLS = ("after-norm", "before-norm")


class _Plain(Backbone):
    """A chain of blocks, each given as (channels as a multiple of the width, pooled or not).

    A block pools before its neuron, not after it. So every convolution's input is spikes (0 or 1), and the neuron has a
    quarter of the work.

    Args:
        blocks: Channels, as a multiple of the width, and whether the block pools.
        input_shape: C, H, W.
        num_classes: Of the readout.
        timesteps: T.
        neuron: Of all spiking layers.
        width: Channels.
        norm: See `norm_layer`.
        pool: Where a block's pool stands: "after-norm", or "before-norm", where pool and convolution are one layer.
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
    ) -> None:
        check_width(width)
        if pool not in POOLS:
            raise BadInput(f"backbone.pool is one of {', '.join(POOLS)}, not '{pool}'")
        channels, *sides = input_shape
        parts: list[list[nn.Module]] = []
        for multiple, pooled in blocks:
            mode, kernel = ("m", neuron.kernel) if parts else ("s", "python")  # the stem's input is no spikes
            outputs = width * multiple
            pooled = pooled and halves(min(sides))
            make = pooled_conv if pooled and pool == "before-norm" else conv
            convolution = make(channels, outputs, norm=norm, step_mode=mode, kernel=kernel)
            part = [convolution, norm_layer(norm, outputs, mode)]
            if pooled:
                sides = [side // 2 for side in sides]
                if pool == "after-norm":
                    part.append(layer.AvgPool2d(2, step_mode=mode))
            parts.append(part)
            channels = outputs
        stem, *rest = parts
        body: list[nn.Module] = [LIF(neuron)]
        for part in rest:
            body += [*part, LIF(neuron)]
        features = channels * sides[0] * sides[1]
        super().__init__(timesteps, nn.Sequential(*stem), nn.Sequential(*body), features, num_classes)


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
        pool: str = "before-norm",
    ) -> None:
        blocks = [(1, True), (2, True), (4, True)]
        super().__init__(blocks, input_shape, num_classes, timesteps, neuron, width, norm, pool)


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
        pool: str = "after-norm",
    ) -> None:
        blocks = [(1, True), (2, True), (4, False), (4, True), (8, False), (8, True), (8, False), (8, True)]
        super().__init__(blocks, input_shape, num_classes, timesteps, neuron, width, norm, pool)
