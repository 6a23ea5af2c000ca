"""The base class of bandit methods: each example is an arm, and its training loss is the reward."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection, unweighted

LONGEST_PERIOD = 10  # epochs, the paper's


class Bandit(Pruner):
    """Keeps the first K of a ranking, which is made anew at the start of each period. Weight 1.

    At each visit m <- a m + (1 - a) loss, and v <- a v + (1 - a) (loss - m_old)^2, where m_old is m before the visit. The
    first visit sets m to the loss and v to 0: a start at zero would put the loss's square into v. The paper's first values
    are not public to us.

    An unseen example comes before all seen ones, in random order. So the first period is uniform, and `ucb` sees every
    example within ceil(1 / (1 - ratio)) periods: four at a ratio of 0.7. The random part of `eps-greedy` takes seen and
    unseen examples alike, so that method may need more periods.

    Args:
        prune_ratio: The share of visits to save.
        memory: a, the share of the earlier visits in m and v, in [0, 1).
        period: The number of epochs that keep the same examples. The paper has 10, in runs of 200 epochs and more. A
            short run would then rank rarely. 0 means a tenth of the run, at least 1 and at most 10.
    """

    bibtex = """
    @misc{raju2021dynamic,
      title = {Accelerating Deep Learning with Dynamic Data Pruning},
      author = {Raju, Ravi S. and Daruwalla, Kyle and Lipasti, Mikko},
      eprint = {2111.12621},
      archiveprefix = {arXiv},
      year = {2021},
    }
    """

    name: str  # of the method, for messages
    takes_budget = True

    def __init__(self, prune_ratio: float, *, memory: float = 0.2, period: int = 0) -> None:
        super().__init__(prune_ratio)
        if not 0 <= memory < 1:
            raise BadInput(f"{self.name}'s memory is at least 0 and below 1, not {memory:g}")
        if period < 0:
            raise BadInput(f"{self.name}'s period is at least 1 epoch, or 0 for a tenth of the run, not {period}")
        self.memory = memory
        self.period = period
        self.mean_N = torch.empty(0)  # infinite: unseen
        self.variance_N = torch.empty(0)
        self.ranking = torch.empty(0, dtype=torch.int64)  # of the current period

    @abstractmethod
    def ranked_anew(self, epoch: int, generator: torch.Generator) -> Tensor:
        """Returns all examples in the order in which the period's epochs keep them. [N]."""

    def prepare(self, context: ScoringContext) -> None:
        """Sets all examples to unseen."""
        super().prepare(context)
        self.mean_N = torch.full((context.num_examples,), torch.inf, device=context.device)
        self.variance_N = torch.zeros(context.num_examples, device=context.device)

    def observe(self, seen: Observation) -> None:
        """Mixes the batch's losses into the examples' means and variances."""
        loss_B = seen.loss_B.to(self.mean_N.dtype)
        old_B, variance_B = self.mean_N[seen.index_B], self.variance_N[seen.index_B]
        unseen_B = old_B.isinf()
        old_B = torch.where(unseen_B, loss_B, old_B)
        self.variance_N[seen.index_B] = self.memory * variance_B + (1 - self.memory) * (loss_B - old_B).square()
        self.mean_N[seen.index_B] = self.memory * old_B + (1 - self.memory) * loss_B

    def select(self, epoch: int) -> Selection:
        """Returns the first K of the period's ranking."""
        if epoch % self.epochs_of_period() == 0:
            self.ranking = self.ranked_anew(epoch, self.generator(epoch))
        return unweighted(self.ranking[: self.num_kept(epoch)])

    def epochs_of_period(self) -> int:
        """Returns the number of epochs that keep the same examples."""
        return self.period or min(LONGEST_PERIOD, max(1, self.num_epochs // 10))
