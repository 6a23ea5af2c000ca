"""Assembly of the tensors that hooks record in the calls of a network's layers in a batch.

Shape letters: T time steps, B examples, D readout features, L weight layers. Calls are numbered from 1 in forward order. A
network calls a layer once for all time steps, or once for each step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sadp_bench.capture.per_example_norms import joined

Calls = dict[nn.Module, dict[int, Tensor]]  # By layer and call.


def with_time(features: list[Tensor]) -> list[Tensor]:
    """Returns each call's features with time: [T, B, D] of a call for all steps, [1, B, D] of a call for a step."""
    return features if features[0].dim() == 3 else [x.unsqueeze(0) for x in features]


class CallSquares:
    """The squared norms of the calls of a network's layers in a batch.

    Attributes:
        by_signal: Squared norms by signal, layer and call: [T, B], or [B] for a signal of the middle time step.
        twice: Whether a call was noted twice for a signal.
    """

    def __init__(self) -> None:
        self.by_signal: dict[str, Calls] = {}
        self.twice = False
        self._num_calls: dict[nn.Module, int] = {}

    def clear(self) -> None:
        """Drops all squares."""
        self.by_signal.clear()
        self._num_calls.clear()
        self.twice = False

    def next_call(self, layer: nn.Module) -> int:
        """Returns the number of a layer's forward call, which begins now."""
        call = self._num_calls[layer] = self._num_calls.get(layer, 0) + 1
        return call

    def note(self, signal: str, layer: nn.Module, call: int, square: Tensor) -> None:
        """Keeps the squares of a call. The forward pass notes calls in order, and the backward pass in reverse order."""
        calls = self.by_signal.setdefault(signal, {}).setdefault(layer, {})
        self.twice |= call in calls
        calls[call] = square

    def sums(self, layers: Sequence[nn.Module], scale_B: Tensor | None) -> dict[str, Tensor]:
        """Returns the signals, summed over time; 0 for a layer that was not called. [L, B] each.

        Args:
            layers: The L layers.
            scale_B: The factor of each example's loss before the backward pass; errors are divided by it.
        """
        found = {signal: self._sums(signal, layers) for signal in self.by_signal}
        for signal in found:
            if "error" in signal and scale_B is not None:
                found[signal] /= scale_B.square()
        return found

    def _sums(self, signal: str, layers: Sequence[nn.Module]) -> Tensor:
        recorded = self.by_signal[signal]
        # Some steps may get no gradient. The inputs of those calls do not count.
        errors = self.by_signal.get(signal.replace("input", "error"), recorded)
        over_time = _of_middle if signal.startswith("middle_") else _of_all
        row_B = {}
        for layer, calls in recorded.items():
            paired = errors.get(layer, {})
            if squares := [calls[call] for call in sorted(calls) if call in paired]:
                row_B[layer] = over_time(squares)
        if len(row_B) < len(layers):
            row_B = dict.fromkeys(layers, torch.zeros_like(next(iter(row_B.values())))) | row_B
        return torch.stack([row_B[layer] for layer in layers])


def _of_middle(squares: list[Tensor]) -> Tensor:
    return squares[len(squares) // 2]


def _of_all(squares: list[Tensor]) -> Tensor:
    return joined(squares).sum(0)
