"""The recurrent spiking network for vectors in time. T time steps, B examples, D neurons."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from spikingjelly.activation_based import neuron as neurons
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

from sadp_bench.backbones.current import parted
from sadp_bench.backbones.dropout import dropouts
from sadp_bench.backbones.mlp import HiddenLinear, NormalLinear
from sadp_bench.backbones.spiking import RESETS, SURROGATES, Backbone, NeuronSettings, check_width
from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widened


class RecurrentLIF(MemoryModule):
    """A layer of LIF neurons that also read the layer's own spikes of the previous step.

        s[t] = LIF(x[t] + V s[t-1]),  s[-1] = 0

    The steps run one after the other, on SpikingJelly's single-step neuron, with a float32 membrane. The layer has no
    state between calls, unless it `carries` (see `step_by_step.carrying`).

    Args:
        width: Neurons, D.
        settings: Settings of the neuron.

    Attributes:
        carries: Whether a call starts from the membrane and the spikes that the previous call left.
    """

    spikes: Tensor | None

    def __init__(self, width: int, settings: NeuronSettings) -> None:
        super().__init__()
        self.step_mode = "m"
        self.register_memory("spikes", None)
        self.back = NormalLinear(width, width, bias=False, step_mode="s")
        self.fire = neurons.LIFNode(
            settings.tau,
            settings.decay_input,
            settings.threshold,
            RESETS[settings.reset],
            SURROGATES[settings.surrogate](),
            settings.detach_reset,
            step_mode="s",
        )
        self.carries = False

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Returns the spikes of a current, [T, B, D]."""
        if not self.carries:
            self._rest()
        spikes = []
        for x in x_seq:
            before = torch.zeros_like(x) if self.spikes is None else self.spikes
            self.spikes = self.fire(widened(x + self.back(before))).to(x.dtype)
            spikes.append(self.spikes)
        if not self.carries:
            self._rest()  # Tensors with a graph can't be deep-copied.
        return torch.stack(spikes)

    def detach(self) -> None:
        """Cuts the spikes from the graph; SpikingJelly's own method can't cut views."""
        self.spikes = None if self.spikes is None else self.spikes.detach()

    def _rest(self) -> None:
        self.reset()
        self.fire.reset()


class Recurrent(Backbone):
    """Recurrent spiking network: layers of LIF neurons that also read their own spikes, and a linear readout; no norm.

    The default width is that of the source.

    Source: Cramer et al., "The Heidelberg Spiking Data Sets", 2020 (its recurrent networks). The initial weights are ours.

    Args:
        input_shape: Shape of an image: C, H, W.
        num_classes: Classes, the readout's outputs.
        timesteps: Time steps, T.
        neuron: Settings of all spiking layers.
        width: Neurons of a hidden layer.
        depth: Hidden layers.
        dropout: Share of the readout's inputs that becomes 0 in training, the same at all time steps.
    """

    readout_kind = NormalLinear
    needs_images = False
    has_native: ClassVar[bool] = False

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 128,
        depth: int = 1,
        dropout: float = 0.0,
    ) -> None:
        check_width(width, unit="neuron")
        if depth < 1:
            raise BadInput(f"backbone.depth is at least 1 hidden layer, not {depth}")
        stem: list[nn.Module] = [nn.Flatten(), HiddenLinear(math.prod(input_shape), width, step_mode="s")]
        body: list[nn.Module] = [RecurrentLIF(width, neuron)]
        for _ in range(depth - 1):
            body += [HiddenLinear(width, width, step_mode="m"), RecurrentLIF(width, neuron)]
        super().__init__(timesteps, nn.Sequential(*stem), nn.Sequential(*body, *dropouts(dropout)), width, num_classes)

    def blocks(self) -> list[list[nn.Module]]:
        """Returns the body's layers in blocks, which each end with a recurrent layer; see `Backbone.blocks`."""
        return parted(self.body, RecurrentLIF)
