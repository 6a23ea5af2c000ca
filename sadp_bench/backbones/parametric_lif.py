"""The LIF neuron with a learned time constant."""

from __future__ import annotations

import dataclasses
import math

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sadp_bench.backbones.spiking import LIF, NeuronSettings
from sadp_bench.core.lif_equation import LIFEquation


class ParametricLIF(LIF):
    """The suite's LIF neuron with 1/tau = sigmoid(w). Each layer learns one w.

    SpikingJelly's `plif_multi_step` computes the steps, because no native kernel has the gradient of w.

    Source: Fang et al., "Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking Neural Networks",
    ICCV 2021.

    Args:
        settings: Settings of the neuron. Their tau is the initial time constant.

    Attributes:
        w: The learned parameter, a scalar.
    """

    def __init__(self, settings: NeuronSettings) -> None:
        super().__init__(dataclasses.replace(settings, kernel="python"))
        self.w = nn.Parameter(torch.tensor(-math.log(settings.tau - 1)))

    @property
    def equation(self) -> LIFEquation:
        """The neuron's equation with its present time constant."""
        rate = float(self.w.detach().sigmoid())
        return dataclasses.replace(super().equation, tau=1 / rate, gain=rate if self.decay_input else 1.0)

    def reset_parameters(self) -> None:
        """Sets the time constant to that of the settings."""
        nn.init.constant_(self.w, -math.log(self.tau - 1))

    def _on_cpu(self, x_seq: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        return self._on_any(x_seq, membrane)

    def _on_any(self, x_seq: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        spikes, membrane, _ = functional.plif_multi_step(
            x_seq.contiguous(),
            membrane,
            self.w,
            self.decay_input,
            self.v_threshold,
            self.v_reset,
            self.surrogate_function,
            self.detach_reset,
        )
        return spikes, membrane


def with_learned_tau(layers: nn.Module, settings: NeuronSettings) -> None:
    """Replaces every LIF neuron within some layers by one that learns its time constant."""
    for name, module in layers.named_children():
        if isinstance(module, LIF):
            setattr(layers, name, ParametricLIF(settings))
        else:
            with_learned_tau(module, settings)
