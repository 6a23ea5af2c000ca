"""Backbones of a third party that lack what spiking networks usually have."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn


class WithoutNeurons(nn.Module):
    """Maps [B, 1, 8, 8] to [T, B, C] without a spiking layer and without a module named `readout`."""

    built = 0

    def __init__(self, input_shape: Any, num_classes: int, timesteps: int, neuron: Any) -> None:
        super().__init__()
        WithoutNeurons.built += 1
        self.timesteps = timesteps
        self.hidden = nn.Linear(input_shape[-1] * input_shape[-2], 8)
        self.last = nn.Linear(8, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        return self.last(self.hidden(input.flatten(-3)).relu()).expand(self.timesteps, -1, -1)


class NeuronNotCalled(WithoutNeurons):
    """Defines a second neuron that the forward pass leaves out."""

    def __init__(self, *inputs: Any) -> None:
        super().__init__(*inputs)
        self.neuron, self.spare = LIFNode(step_mode="m"), LIFNode(step_mode="m")

    def forward(self, input: Tensor) -> Tensor:
        current = self.hidden(input.flatten(-3)).expand(self.timesteps, -1, -1)
        self.neuron.reset()
        return self.last(self.neuron(current * 8))


class NoNeuronCalled(WithoutNeurons):
    """Defines a neuron, and calls none."""

    def __init__(self, *inputs: Any) -> None:
        super().__init__(*inputs)
        self.spare = LIFNode(step_mode="m")
