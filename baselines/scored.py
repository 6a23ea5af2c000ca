"""The base class of methods that score once, before training."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from sadp_bench.pruner import BadInput, Pruner, ScoringContext, Selection, unweighted
from sadp_bench.sampling import ranked

MAX_SCORE_RUNS = 1000  # networks, each of which trains
KEPT = ("hardest", "easiest", "middle")


class Scored(Pruner):
    """Keeps the K examples of the highest score for the whole run, ties broken by the seed. Weight 1.

    The hardest are the papers' choice. It is known to fail where few examples are kept: there the easiest (Sorscher et
    al., NeurIPS 2022) or those without the extremes (Zheng et al., ICLR 2023) are the better subset.

    Args:
        prune_ratio: The share of visits to save.
        offset: The share of N, from the top, that is dropped as too hard (label noise) before the K are taken.
        score_epochs: The number of epochs that a scoring network trains, of the run's schedule; 0 means a tenth of the
            run, at least 1 (the papers of EL2N and GraNd: 20 of 200).
        score_runs: The number of scoring networks, each with its initial weights and order. The papers use 10; the
            default is 1, because the run is charged for each.
        keep: "hardest": the highest scores. "easiest": the lowest. "middle": as many are dropped above as below.
    """

    def __init__(
        self,
        prune_ratio: float,
        *,
        offset: float = 0.0,
        score_epochs: int = 0,
        score_runs: int = 1,
        keep: str = "hardest",
    ) -> None:
        super().__init__(prune_ratio)
        if not 0 <= offset <= prune_ratio:
            raise BadInput(f"offset is between 0 and the ratio ({prune_ratio:g}), not {offset:g}: it drops the hardest")
        if keep not in KEPT:
            raise BadInput(f"keep is one of {', '.join(KEPT)}, not '{keep}'")
        if offset and keep != "hardest":
            raise BadInput(f"offset drops the hardest from keep=hardest; with keep={keep} leave it out")
        if score_epochs < 0:
            raise BadInput(f"score_epochs is at least 0, not {score_epochs}")
        if not 1 <= score_runs <= MAX_SCORE_RUNS:
            raise BadInput(f"score_runs is from 1 to {MAX_SCORE_RUNS:,} networks, not {score_runs}")
        self.offset = offset
        self.score_epochs = score_epochs
        self.score_runs = score_runs
        self.keep = keep
        self.score_N = torch.empty(0)
        self.ranked_N = torch.empty(0, dtype=torch.int64)

    @abstractmethod
    def score(self, context: ScoringContext) -> Tensor:
        """Returns the scores, [N], on the CPU; the method keeps the highest."""

    def epochs_of(self, num_epochs: int) -> int:
        """Returns the epochs of a scoring network in a run of `num_epochs`."""
        return self.score_epochs or max(1, num_epochs // 10)

    def check(self, num_epochs: int) -> None:
        """Raises BadInput where scoring would train longer than the run."""
        if self.score_epochs > num_epochs:
            raise BadInput(f"score_epochs is at most the run's {num_epochs} epochs, not {self.score_epochs}")

    def prepare(self, context: ScoringContext) -> None:
        """Scores the examples on the `prepare` clock, and ranks them."""
        super().prepare(context)
        self.score_N = context.scores(lambda: self.score(context))
        self.ranked_N = ranked(self.score_N, self.generator())

    def select(self, epoch: int) -> Selection:
        """Returns the K highest scores below the offset, the K lowest, or the K in the middle."""
        num_kept = self.num_kept(epoch)
        num_dropped = self.num_examples - num_kept
        above = {"hardest": round(self.offset * self.num_examples), "easiest": num_dropped, "middle": num_dropped // 2}
        first = min(above[self.keep], num_dropped)
        return unweighted(self.ranked_N[first : first + num_kept])

    def scoring_epochs(self, num_epochs: int) -> float:
        """Returns the epochs of all scoring networks together."""
        return self.score_runs * self.epochs_of(num_epochs)
