"""Random pruning, fresh every epoch or fixed."""

from __future__ import annotations

import torch

from sadp_bench.pruner import Pruner, ScoringContext, Selection, unweighted


class Random(Pruner):
    """A random subset, drawn anew every epoch without replacement across epochs (fresh) or kept (fixed). Weight 1.

    Source: Okanovic et al., "Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning", ICLR 2024 (RS2).

    fresh: shuffle once and take consecutive slices of K; where a slice crosses the end, its rest comes from a new
    shuffle, skipping those already taken this epoch. fresh=false keeps the first slice for the whole run.
    """

    def __init__(self, prune_ratio: float, *, fresh: bool = True) -> None:
        super().__init__(prune_ratio)
        self.fresh = fresh
        self.shuffles = 0
        self.queue = torch.empty(0, dtype=torch.int64)

    def prepare(self, context: ScoringContext) -> None:
        super().prepare(context)
        self.queue = self._shuffled()

    def select(self, epoch: int) -> Selection:
        num_kept = self.num_kept(epoch)
        if not self.fresh:
            return unweighted(self.queue[:num_kept])
        taken, self.queue = self.queue[:num_kept], self.queue[num_kept:]
        missing = num_kept - len(taken)
        if missing:
            shuffled = self._shuffled()
            more = shuffled[~torch.isin(shuffled, taken)][:missing]
            # What was skipped stays in the new shuffle, so that every shuffle shows every example once.
            taken, self.queue = torch.cat([taken, more]), shuffled[~torch.isin(shuffled, more)]
        return unweighted(taken)

    def _shuffled(self) -> torch.Tensor:
        self.shuffles += 1
        return torch.randperm(self.num_examples, generator=self.generator(self.shuffles))
