"""Fewer epochs: the baseline of equal cost, which trains on all data for a shorter time."""

from __future__ import annotations

import torch

from sadp_bench.pruner import Pruner, Selection, unweighted


class FewerEpochs(Pruner):
    """Trains on all data for (1 - ratio) of the epochs, the last partial, with the whole schedule. Weight 1.

    Source: The control of equal cost that any data pruning has to beat.

    Kind: reference.
    Scoring: none.
    """

    display_name = "Fewer epochs"
    fixed_size = False

    def select(self, epoch: int) -> Selection:
        """Returns all examples, weight 1."""
        return unweighted(torch.arange(self.num_examples))

    def run_epochs(self, epochs: int) -> float:
        """Returns (1 - ratio) of the epochs, rounded to a whole example: 10 at ratio 0.7 give 3, not 3.0000000000000004."""
        return round((1 - self.prune_ratio) * epochs * self.num_examples) / self.num_examples
