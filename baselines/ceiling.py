"""Ceiling: the control that no unbiased score of a dynamic method can exceed."""

from __future__ import annotations

import math

import torch

from sadp_bench.pruner import Pruner, Selection, unweighted
from sadp_bench.sampling import kept_in_epoch


class Ceiling(Pruner):
    """Trains on all data in every epoch, with the number of updates of a pruned run: batches of B / (1 - ratio). Weight 1.

    Source: The control of equal updates: the least noise that a draw of K examples could have.

    Kind: reference.
    Scoring: none.

    If K of N examples are drawn without bias, an update's second moment is at least K / N of that under uniform sampling. A
    batch N / K times as large reaches this bound, so the batch here is that large. Learning rate, its schedule and the
    number of updates of each epoch are those of `random` at the same ratio. The difference to `random` is the noise, which
    a score can reduce. The difference to `full` is the missing updates, which no score can replace.

    It saves no visit and no time, so it is exempt from the budget.
    """

    display_name = "Ceiling"
    exempt = True

    def select(self, epoch: int) -> Selection:
        """Returns all examples, weight 1."""
        return unweighted(torch.arange(self.num_examples))

    def num_updates(self, epoch: int, num_trained: int, batch_size: int) -> int:
        """Returns the number of updates of a run that keeps (1 - ratio) of the examples; in proportion in a partial epoch."""
        whole = self.num_examples or num_trained  # Before `prepare`, an estimate takes the epoch for a whole one.
        kept = num_trained * kept_in_epoch(whole, self.prune_ratio, epoch) / whole
        return max(1, math.ceil(int(kept + 0.5) / batch_size))

    def planned_visits(self, num_examples: int, num_epochs: float) -> float:
        """Returns the visits of all examples in all epochs."""
        return num_examples * num_epochs
