"""Dropout with one mask for all time steps of a batch."""

from __future__ import annotations

from spikingjelly.activation_based import layer
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput


class Dropout(layer.Dropout):
    """SpikingJelly's dropout on [T, B, ...]: in training mode a batch has the same mask at all steps.

    It has no state between calls, unless it `carries` (see `step_by_step.carrying`). Masks come from torch's global random
    state, which the training loop seeds in every epoch.

    Source: one mask for all steps, from Lee et al., "Enabling Spike-Based Backpropagation for Training Deep Neural Network
    Architectures", 2020.

    Args:
        p: The share of numbers that become 0, at least 0 and below 1; the others are divided by 1 - p.

    Attributes:
        carries: Whether a call uses the mask of the previous call.
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p < 1:
            raise BadInput(
                f"backbone.dropout is at least 0 and below 1 (the share of numbers that become 0), not {p:g}"
            )
        super().__init__(p, step_mode="m")
        self.carries = False

    def forward(self, x: Tensor) -> Tensor:
        """Returns the input with the masked numbers set to 0; in evaluation mode the input itself."""
        if not self.carries:
            self.reset()
        dropped: Tensor = super().forward(x)
        return dropped


def dropouts(p: float) -> list[nn.Module]:
    """Returns a list of one dropout layer; an empty list if p is 0."""
    return [Dropout(p)] if p else []
