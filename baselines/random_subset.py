"""Random pruning, fresh every epoch or fixed."""

from __future__ import annotations

import torch
from torch import Tensor

from sadp_bench.pruner import Pruner, ScoringContext, Selection, unweighted


class Random(Pruner):
    """Keeps a random subset: fresh every epoch, without replacement across epochs, or fixed. Weight 1, or N / K.

    Source: Okanovic et al., "Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning", ICLR 2024 (RS2).

    Kind: dynamic.
    Scoring: none.

    Fresh selections are consecutive slices of K of a shuffle. A slice that crosses the end takes its rest from a new
    shuffle, without the examples that this epoch already has.

    Args:
        prune_ratio: The share of visits to save.
        fresh: Whether every epoch has a new selection; otherwise the first slice stays for the whole run.
        rescale: Whether the weights are N / K, so that their sum is N. This is the control for methods that raise the mean
            weight, as InfoBatch does.
    """

    display_name = "Random"
    bibtex = """
    @inproceedings{okanovic2024rs2,
      title = {Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning},
      author = {Okanovic, Patrik and others},
      booktitle = {International Conference on Learning Representations},
      year = {2024},
    }
    """
    takes_budget = True

    def __init__(self, prune_ratio: float, *, fresh: bool = True, rescale: bool = False) -> None:
        super().__init__(prune_ratio)
        self.fresh = self.takes_budget = fresh
        self.rescale = rescale
        self.shuffles = 0
        self.queue = torch.empty(0, dtype=torch.int64)

    def prepare(self, context: ScoringContext) -> None:
        """Shuffles the examples."""
        super().prepare(context)
        self.queue = self._shuffled()

    def select(self, epoch: int) -> Selection:
        """Returns the next slice of the shuffle, or the first slice where the selection is fixed."""
        index_K = self._subset(epoch)
        if not self.rescale:
            return unweighted(index_K)
        return Selection(index_K, torch.full((len(index_K),), self.num_examples / len(index_K)))

    def _subset(self, epoch: int) -> Tensor:
        num_kept = self.num_kept(epoch)
        if not self.fresh:
            return self.queue[:num_kept]
        taken, self.queue = self.queue[:num_kept], self.queue[num_kept:]
        missing = num_kept - len(taken)
        if missing:
            shuffled = self._shuffled()
            more = shuffled[~torch.isin(shuffled, taken)][:missing]
            # Skipped examples stay in the new shuffle, so every shuffle has every example once.
            taken, self.queue = torch.cat([taken, more]), shuffled[~torch.isin(shuffled, more)]
        return taken

    def _shuffled(self) -> Tensor:
        self.shuffles += 1
        return torch.randperm(self.num_examples, generator=self.generator(self.shuffles))
