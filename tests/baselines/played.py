"""Made logits in place of training, for the methods that observe a scoring run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from sadp_bench.core.rng import stream
from sadp_bench.pruners.exchange import Survey
from tests.helpers import PlainContext, seen

N, CLASSES = 61, 4


class PlayedContext(PlainContext):
    """Shows made logits in place of each epoch's; every scoring network has its own.

    Attributes:
        fits: The length that each scoring network trained.
    """

    def __init__(self, num_epochs: int, seed: int = 0) -> None:
        super().__init__(N, num_epochs, seed, CLASSES)
        self.label_N = torch.arange(N) % CLASSES
        self.fits: list[float] = []
        self.updates_per_epoch = 4

    def logits(self, run: int) -> torch.Tensor:
        """Returns the logits of every epoch. Float32, [E, N, C]."""
        shape = (self.num_epochs, N, CLASSES)
        drift_E = torch.linspace(0, 3, self.num_epochs)[:, None, None]
        right_NC = torch.nn.functional.one_hot(self.label_N, CLASSES)
        return 2 * torch.randn(shape, generator=stream(self.seed, f"logits {run}")) + drift_E * right_NC

    def fit(self, pruner: Any, epochs: float, seed: int) -> int:
        """Shows whole epochs, each in its own order; returns the number of the network."""
        self.fits.append(epochs)
        pruner.prepare(self)
        for epoch, logits_NC in enumerate(self.logits(seed)[: int(epochs)]):
            show(pruner, logits_NC, torch.randperm(N, generator=stream(epoch, "order")), self.label_N, epoch)
        return seed

    def survey(self, model: int, watch: frozenset[str] = frozenset()) -> Survey:
        return Survey(self.logits(model)[-1], self.label_N, torch.zeros(N))


def show(pruner: Any, logits_NC: torch.Tensor, index_K: torch.Tensor, label_N: torch.Tensor, epoch: int) -> None:
    """Shows examples in three batches, in two time steps of which the mean counts."""
    for index_B in index_K.tensor_split(3):
        steps_TBC = torch.stack([1.5 * logits_NC[index_B], 0.5 * logits_NC[index_B]])
        pruner.observe(seen(index_B, epoch=epoch, label_B=label_N[index_B], logits_TBC=steps_TBC))


def probabilities(logits_ENC: torch.Tensor) -> np.ndarray:
    """Returns the softmax in float64."""
    return softmax(logits_ENC.double().numpy(), axis=-1)


def of_label(value_ENC: np.ndarray) -> np.ndarray:
    """Returns the right class's value, [E, N]."""
    return value_ENC[:, np.arange(N), np.arange(N) % CLASSES]
