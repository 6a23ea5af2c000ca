"""The base class of methods that score once, before training."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from baselines.scoring_networks import WithScoringNetworks
from sadp_bench.pruner import BadInput, ScoringContext, Selection, unweighted
from sadp_bench.sampling import ranked

KEPT = ("hardest", "easiest", "middle")


class Scored(WithScoringNetworks):
    """Keeps the K examples of the highest score for the whole run, ties broken by the seed. Weight 1.

    The papers keep the hardest. This is known to fail where few examples are kept. The easiest are then the better subset
    (Sorscher et al., NeurIPS 2022), or those without the extremes (Zheng et al., ICLR 2023).

    Args:
        prune_ratio: The share of visits to save.
        offset: The share of all examples, from the highest score, that is dropped as too hard (label noise).
        score_epochs: The epochs of the run's schedule that a scoring network trains; 0 means the method's default. That is
            a tenth of the run, at least 1, if the method has no other (EL2N and GraNd: 20 of 200).
        score_updates: The number of updates that a scoring network trains, in place of epochs; 0 means by epochs. A tenth
            of a short run has few updates: the papers' 20 epochs are 7,800.
        untrained: Whether the scoring networks do not train at all: scores at initialisation.
        score_runs: The number of scoring networks, each with its own initial weights and order. The papers use 10. The
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
        score_updates: int = 0,
        untrained: bool = False,
    ) -> None:
        super().__init__(
            prune_ratio,
            score_epochs=score_epochs,
            score_updates=score_updates,
            untrained=untrained,
            score_runs=score_runs,
        )
        if not 0 <= offset <= prune_ratio:
            raise BadInput(f"offset is between 0 and the ratio ({prune_ratio:g}), not {offset:g}: it drops the hardest")
        if keep not in KEPT:
            raise BadInput(f"keep is one of {', '.join(KEPT)}, not '{keep}'")
        if offset and keep != "hardest":
            raise BadInput(f"offset drops the hardest from keep=hardest; with keep={keep} leave it out")
        self.offset = offset
        self.keep = keep
        self.score_N = torch.empty(0)
        self.ranked_N = torch.empty(0, dtype=torch.int64)

    @abstractmethod
    def score(self, context: ScoringContext) -> Tensor:
        """Returns the scores, [N], on the CPU; the method keeps the highest."""

    def prepare(self, context: ScoringContext) -> None:
        """Scores the examples on the `prepare` clock, and ranks them."""
        super().prepare(context)
        self.score_N = context.scores(lambda: self.score(context))
        self.ranked_N = self.ranking(self.score_N)

    def ranking(self, score_N: Tensor) -> Tensor:
        """Returns all examples by falling score, ties at random. Int64, [N]."""
        return ranked(score_N, self.generator())

    def final_scores(self) -> Tensor:
        """Returns the scores of the ranking."""
        return self.score_N

    def select(self, epoch: int) -> Selection:
        """Returns the K highest scores below the offset, the K lowest, or the K in the middle."""
        return unweighted(slice_of(self.ranked_N, self.num_kept(epoch), self.keep, self.offset))


def slice_of(ranked_N: Tensor, num_kept: int, keep: str, offset: float = 0.0) -> Tensor:
    """Returns K of the ranked examples. Int64, [K].

    Args:
        ranked_N: All indices by falling score.
        num_kept: K.
        keep: One of `KEPT`.
        offset: The share of N that "hardest" leaves out at the top.
    """
    num_dropped = len(ranked_N) - num_kept
    above = {"hardest": round(offset * len(ranked_N)), "easiest": num_dropped, "middle": num_dropped // 2}
    first = min(above[keep], num_dropped)
    return ranked_N[first : first + num_kept]
