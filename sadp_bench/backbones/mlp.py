"""The spiking perceptron: linear layers and neurons, no norm; the cheapest backbone."""

from __future__ import annotations

import math
from typing import ClassVar

from spikingjelly.activation_based import layer
from torch import nn

from sadp_bench.backbones.dropout import dropouts
from sadp_bench.backbones.spiking import LIF, Backbone, NeuronSettings, check_width
from sadp_bench.core.errors import BadInput


class NormalLinear(layer.Linear):
    """SpikingJelly's linear layer, whose weights are drawn from a normal distribution; biases begin at 0.

    Attributes:
        gain: The weights' standard deviation is the gain divided by the square root of the number of inputs.
    """

    gain: ClassVar[float] = 1.0

    def reset_parameters(self) -> None:
        """Draws the weights anew."""
        nn.init.normal_(self.weight, std=self.gain / math.sqrt(self.in_features))
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class HiddenLinear(NormalLinear):
    """A linear layer before a neuron. Source: He et al., ICCV 2015."""

    gain: ClassVar[float] = math.sqrt(2)


class MLP(Backbone):
    """Hidden layers of spiking neurons and a linear readout, on flattened inputs, without norm.

    Without norm, an example's gradient depends on that example alone. For a static image the first linear layer is
    computed once, and every step gets its output.

    Source: the two-layer perceptron of many SNN papers; ours in its details.

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

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        timesteps: int,
        neuron: NeuronSettings,
        *,
        width: int = 100,
        depth: int = 2,
        dropout: float = 0.0,
    ) -> None:
        check_width(width, unit="neuron")
        if depth < 1:
            raise BadInput(f"backbone.depth is at least 1 hidden layer, not {depth}")
        stem: list[nn.Module] = [nn.Flatten(), HiddenLinear(math.prod(input_shape), width, step_mode="s")]
        body: list[nn.Module] = [LIF(neuron)]
        for _ in range(depth - 1):
            body += [HiddenLinear(width, width, step_mode="m"), LIF(neuron)]
        super().__init__(timesteps, nn.Sequential(*stem), nn.Sequential(*body, *dropouts(dropout)), width, num_classes)
