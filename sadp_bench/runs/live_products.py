"""Products with the live connections in each epoch of a run, for its theoretical speed-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from sadp_bench.capture.synaptic_ops import Products
from sadp_bench.sparsity.base import Sparsity
from sadp_bench.training.data import Loader


class LiveProducts:
    """Counts the products that training makes with the live connections, epoch by epoch. It counts no dense network.

    Args:
        model: The network.
        sparsity: Its connections, before the next epoch.
        data: Examples; the first one is passed through the network.
        dense: Returns the products of an inference with all connections, by the weights' names.
    """

    def __init__(
        self, model: nn.Module, sparsity: Sparsity, data: Loader, dense: Callable[[], Mapping[str, float]]
    ) -> None:
        self.sparsity, self._dense = sparsity, dense
        self.counter = Products(model, data.input(torch.arange(1))) if sparsity.density < 1 else None
        self._live = self._count()

    def of_epoch(self) -> dict[str, float]:
        """Returns the fields for the row of the epoch that has just ended: the products of a forward pass per example."""
        if self.counter is None:
            return {}
        ended = {"live_products": self._live}
        self._live = self._count()
        return ended

    def of_dense(self) -> dict[str, float]:
        """Returns the products of a forward pass with all connections, per example, as a field of the record."""
        return {} if self.counter is None else {"dense_products": sum(self._dense().values())}

    def _count(self) -> float:
        return 0.0 if self.counter is None else self.counter.count(self.sparsity.masks)
