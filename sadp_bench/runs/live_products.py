"""Products of the live connections in each epoch of a run, for its theoretical speed-up."""

from __future__ import annotations

import torch
from torch import nn

from sadp_bench.capture.synaptic_ops import Products
from sadp_bench.sparsity.base import Sparsity
from sadp_bench.training.data import Loader


class LiveProducts:
    """Counts the products that training makes with the live connections, epoch by epoch; none of a dense network.

    Args:
        model: The network.
        sparsity: Its masks, before the next epoch.
        data: Examples; the first is passed through the network.
    """

    def __init__(self, model: nn.Module, sparsity: Sparsity, data: Loader) -> None:
        self.sparsity, self._masks = sparsity, sparsity.masks
        self.counter = Products(model, data.input(torch.arange(1))) if self._masks else None
        self._live = self._count()

    def of_epoch(self) -> dict[str, float]:
        """Returns the row's part of the epoch that has just ended: the products of a forward pass, per example."""
        if self.counter is None:
            return {}
        ended, self._masks = {"live_products": self._live}, self.sparsity.masks
        self._live = self._count()
        return ended

    def of_dense(self) -> dict[str, float]:
        """Returns the products of a forward pass with all connections, per example."""
        return {} if self.counter is None else {"dense_products": self.counter.count()}

    def _count(self) -> float:
        return 0.0 if self.counter is None else self.counter.count(self._masks)
