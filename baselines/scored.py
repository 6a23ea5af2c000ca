"""The base class of methods that score once, before training."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from sadp_bench.pruner import BadInput, KeepAll, Pruner, ScoringContext, Selection, unweighted
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
        score_epochs: The number of epochs that a scoring network trains, of the run's schedule; 0 means the method's
            default: a tenth of the run, at least 1, where the method names none (EL2N and GraNd: 20 of 200).
        score_updates: The number of updates that a scoring network trains, in place of epochs; 0 means by epochs. A tenth
            of a short run makes few: the 20 epochs of the papers are 7,800 updates.
        untrained: Whether the scoring networks do not train at all: scores at initialisation.
        score_runs: The number of scoring networks, each with its initial weights and order. The papers use 10; the
            default is 1, because the run is charged for each.
        keep: "hardest": the highest scores. "easiest": the lowest. "middle": as many are dropped above as below.

    Attributes:
        least_epochs: Epochs that a scoring network trains at least for the score to be defined.
    """

    least_epochs = 0

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
        super().__init__(prune_ratio)
        if not 0 <= offset <= prune_ratio:
            raise BadInput(f"offset is between 0 and the ratio ({prune_ratio:g}), not {offset:g}: it drops the hardest")
        if keep not in KEPT:
            raise BadInput(f"keep is one of {', '.join(KEPT)}, not '{keep}'")
        if offset and keep != "hardest":
            raise BadInput(f"offset drops the hardest from keep=hardest; with keep={keep} leave it out")
        if score_epochs < 0:
            raise BadInput(f"score_epochs is at least 0, not {score_epochs}")
        if score_updates < 0:
            raise BadInput(f"score_updates is at least 0, not {score_updates}")
        if (score_epochs > 0) + (score_updates > 0) + untrained > 1:
            raise BadInput(
                f"give one of score_epochs, score_updates and untrained, not score_epochs={score_epochs}, "
                f"score_updates={score_updates} and untrained={str(untrained).lower()}"
            )
        if not 1 <= score_runs <= MAX_SCORE_RUNS:
            raise BadInput(f"score_runs is from 1 to {MAX_SCORE_RUNS:,} networks, not {score_runs}")
        self.offset = offset
        self.score_epochs = score_epochs
        self.score_runs = score_runs
        self.keep = keep
        self.score_updates = score_updates
        self.untrained = untrained
        self.score_N = torch.empty(0)
        self.ranked_N = torch.empty(0, dtype=torch.int64)

    @abstractmethod
    def score(self, context: ScoringContext) -> Tensor:
        """Returns the scores, [N], on the CPU; the method keeps the highest."""

    def default_epochs(self, num_epochs: int) -> int:
        """Returns the epochs of a scoring network, where no setting names them."""
        return max(1, num_epochs // 10)

    def epochs_of(self, num_epochs: int) -> int:
        """Returns the epochs of a scoring network in a run of `num_epochs`, where it does not train by updates."""
        return 0 if self.untrained else self.score_epochs or self.default_epochs(num_epochs)

    def check(self, num_epochs: int) -> None:
        """Raises BadInput where scoring would train longer than the run, or too short for the score."""
        if self.score_epochs > num_epochs:
            raise BadInput(f"score_epochs is at most the run's {num_epochs} epochs, not {self.score_epochs}")
        if not self.score_updates and self.epochs_of(num_epochs) < self.least_epochs:
            given = "an untrained one" if self.untrained else f"{self.epochs_of(num_epochs)} of {num_epochs}"
            raise BadInput(
                f"this score needs a scoring network that trains at least {self.least_epochs} epochs, not {given}: raise "
                "--epochs or score_epochs"
            )

    def length(self, context: ScoringContext) -> float:
        """Returns the epochs of a scoring network, partial where it trains by updates.

        Raises:
            BadInput: The updates are more than the run's, or too few for the score.
        """
        if not self.score_updates:
            return self.epochs_of(context.num_epochs)
        least = math.ceil(self.least_epochs * context.updates_per_epoch)
        most = context.num_epochs * context.updates_per_epoch
        if not least <= self.score_updates <= most:
            raise BadInput(
                f"score_updates is from {max(1, least)} to {most} updates in this run, not {self.score_updates}"
            )
        return self.score_updates / context.updates_per_epoch

    def fit(self, context: ScoringContext, run: int, pruner: Pruner | None = None) -> nn.Module:
        """Returns the scoring network of a number from 0, trained on all data.

        Args:
            context: Trains it.
            run: The number.
            pruner: Observes the training; None: nothing does.
        """
        return context.fit(pruner or KeepAll(), self.length(context), run)

    def prepare(self, context: ScoringContext) -> None:
        """Scores the examples on the `prepare` clock, and ranks them."""
        super().prepare(context)
        self.score_N = context.scores(lambda: self.score(context))
        self.ranked_N = ranked(self.score_N, self.generator())

    def select(self, epoch: int) -> Selection:
        """Returns the K highest scores below the offset, the K lowest, or the K in the middle."""
        return unweighted(slice_of(self.ranked_N, self.num_kept(epoch), self.keep, self.offset))

    def scoring_epochs(self, num_epochs: int) -> float:
        """Returns the epochs of all scoring networks together; of untrained ones, the passes over the data."""
        return 0 if self.score_updates else self.score_runs * (self.epochs_of(num_epochs) or 1)

    def scoring_updates(self) -> int:
        """Returns the updates of all scoring networks together, where they train by updates."""
        return self.score_runs * self.score_updates


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
