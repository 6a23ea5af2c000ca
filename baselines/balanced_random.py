"""Random pruning with a share for each class."""

from __future__ import annotations

import torch
from torch import Tensor

from sadp_bench.pruner import BadInput, Pruner, ScoringContext, Selection, unweighted
from sadp_bench.sampling import by_class, ranked

SHARES = ("equal", "proportional")


class BalancedRandom(Pruner):
    """Keeps a random subset with the same number of examples of every class: fresh every epoch, or fixed. Weight 1.

    Source: Guo, Zhao & Bai, "DeepCore: A Comprehensive Library for Coreset Selection in Deep Learning", DEXA 2022.

    Kind: dynamic.
    Scoring: none.

    With share "equal", a class of n examples keeps k = min(n, c) of them, where c makes the sum K. With "proportional",
    DeepCore's random selection by class, it keeps k = n K / N. Counts are rounded by Webster's method, so that their sum is
    K. For classes of equal size both shares are the same, and the method is `random` with equal counts of the classes.

    Fresh selections take the examples of a class that were kept least often, ties at random. So no example of a class is
    kept twice before all are kept once.

    Args:
        prune_ratio: The share of visits to save.
        fresh: Whether every epoch has a new selection; otherwise one subset stays for the whole run.
        share: "equal": the same number of every class, as far as the class has examples. "proportional": the same part
            of every class.
    """

    display_name = "Balanced random"
    bibtex = """
    @inproceedings{guo2022deepcore,
      title = {{DeepCore}: A Comprehensive Library for Coreset Selection in Deep Learning},
      author = {Guo, Chengcheng and Zhao, Bo and Bai, Yanbing},
      booktitle = {Database and Expert Systems Applications},
      year = {2022},
    }
    """
    takes_budget = True

    def __init__(self, prune_ratio: float, *, fresh: bool = True, share: str = "equal") -> None:
        super().__init__(prune_ratio)
        if share not in SHARES:
            raise BadInput(f"balanced-random's share is one of {', '.join(SHARES)}, not '{share}'")
        self.fresh = self.takes_budget = fresh
        self.share = share
        self.label_N = torch.empty(0, dtype=torch.int64)
        self.kept_N = torch.empty(0, dtype=torch.int64)
        self.weight_C = torch.empty(0)

    def prepare(self, context: ScoringContext) -> None:
        """Counts the examples of each class."""
        super().prepare(context)
        self.label_N = context.label_N
        self.kept_N = torch.zeros(context.num_examples, dtype=torch.int64)
        size_C = self.label_N.bincount(minlength=context.num_classes).float()
        self.weight_C = torch.ones_like(size_C) if self.share == "equal" else size_C

    def select(self, epoch: int) -> Selection:
        """Returns K examples, the least often kept of each class, or the same for the whole run."""
        index_K = self._order(epoch)[: self.num_kept(epoch)]
        if self.fresh:
            self.kept_N[index_K] += 1
        return unweighted(index_K)

    def _order(self, epoch: int) -> Tensor:
        rank_N = ranked(-self.kept_N, self.generator(epoch if self.fresh else 0))
        return by_class(rank_N, self.label_N, self.weight_C)
