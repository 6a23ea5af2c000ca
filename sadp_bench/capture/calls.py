"""Tensors that hooks recorded of a layer's calls, put together.

Shape letters: T time steps, B examples, D readout features, L weight layers. Calls are numbered forward from 1; a network
calls a layer for all time steps at once, or for each step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sadp_bench.capture.per_example_norms import joined
from sadp_bench.capture.squared_norms import every, middle

Calls = dict[nn.Module, dict[int, Tensor]]  # By layer and call.


def calls_in_order(calls: dict[int, Tensor]) -> Tensor:
    """Returns the time steps of all of a layer's calls."""
    return joined([calls[call] for call in sorted(calls)])


def with_time(features: list[Tensor]) -> list[Tensor]:
    """Returns each call's features with time: [T, B, D] of a call for all steps, [1, B, D] of a call for a step."""
    return features if features[0].dim() == 3 else [x.unsqueeze(0) for x in features]


def layer_sums(name: str, squares: dict[str, Calls], layers: Sequence[nn.Module]) -> Tensor:
    """Returns a signal's squares, summed over time; 0 for a layer that was not called. [L, B].

    Args:
        name: The signal. The names of signals of the middle time step begin with "middle_".
        squares: By signal, layer and call, the squares of each time step and example, [T, B].
        layers: The L layers.
    """
    steps = middle if name.startswith("middle_") else every
    recorded = _paired(squares[name], squares.get(name.replace("input", "error")))
    row = {layer: steps(calls_in_order(calls)).sum(0) for layer, calls in recorded.items()}
    nothing = torch.zeros_like(next(iter(row.values())))
    return torch.stack([row.get(layer, nothing) for layer in layers])


def _paired(recorded: Calls, errors: Calls | None) -> Calls:
    """Returns the calls whose errors were recorded too, because some steps may get no gradient; all without errors."""
    if errors is None:
        return recorded
    paired = {
        layer: {call: square for call, square in calls.items() if call in errors.get(layer, {})}
        for layer, calls in recorded.items()
    }
    return {layer: calls for layer, calls in paired.items() if calls}
