"""Hooks that count a network's spikes.

Shape letters: T time steps, B examples, S spiking layers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import multi_step
from sadp_bench.capture.layers import spiking_layers
from sadp_bench.capture.per_example_norms import joined


def always() -> bool:
    """Returns True."""
    return True


class SpikeCounts:
    """Counts the spikes of each spiking layer in the passes of a batch.

    Args:
        model: The network.
        counts: Returns whether the present pass counts. By default all passes count.

    Attributes:
        neurons_S: Number of neurons of each spiking layer that was called.
    """

    def __init__(self, model: nn.Module, counts: Callable[[], bool] = always) -> None:
        self._model, self._counts = model, counts
        self._layers = spiking_layers(model)
        self.neurons_S = [0] * len(self._layers)
        self._calls: dict[int, list[Tensor]] = {}  # by layer: the counts of each call, [t, B]

    def hook(self) -> list[Any]:
        """Returns the handles of new hooks."""
        return [layer.register_forward_hook(partial(self._count, place)) for place, layer in enumerate(self._layers)]

    def clear(self) -> None:
        """Drops the counts."""
        self._calls.clear()

    @property
    def any(self) -> bool:
        """Whether a call was counted."""
        return bool(self._calls)

    def total(self, batch: int) -> Tensor:
        """Returns the spike counts, [S, T, B]; 0 for layers that were not called.

        Args:
            batch: The number of examples, B.
        """
        rows = {place: joined(calls) for place, calls in self._calls.items()}
        device = next(self._model.parameters()).device
        nothing_TB = torch.zeros_like(next(iter(rows.values()), torch.zeros(1, batch, device=device)))
        return torch.stack([rows.get(place, nothing_TB) for place in range(len(self.neurons_S))])

    def _count(self, place: int, layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if self._counts():
            spikes = output if isinstance(output, Tensor) else output[0]
            spikes = spikes.detach() if multi_step(layer) else spikes.detach()[None]
            count_tB = spikes.reshape(*spikes.shape[:2], -1).sum(2, dtype=torch.float32)
            self._calls.setdefault(place, []).append(count_tB)
            self.neurons_S[place] = spikes[0, 0].numel()
