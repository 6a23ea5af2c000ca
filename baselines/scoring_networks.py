"""The base class of methods that train scoring networks before they select."""

from __future__ import annotations

import math

from torch import nn

from sadp_bench.pruner import BadInput, KeepAll, Pruner, ScoringContext

MAX_SCORE_RUNS = 1000  # networks, each of which trains


class WithScoringNetworks(Pruner):
    """Trains scoring networks on all data before the run.

    Args:
        prune_ratio: The share of visits to save.
        score_epochs: The epochs of the run's schedule that a scoring network trains; 0 means the method's default. That is
            a tenth of the run, at least 1, if the method has no other.
        score_updates: The number of updates that a scoring network trains, in place of epochs; 0 means by epochs.
        untrained: Whether the scoring networks do not train at all.
        score_runs: The number of scoring networks, each with its own initial weights and order.

    Attributes:
        least_epochs: The fewest epochs of a scoring network with which the score is defined.
        surveys: The passes over the data that follow the training of each scoring network.
    """

    least_epochs = 0
    surveys = 1

    def __init__(
        self,
        prune_ratio: float,
        *,
        score_epochs: int = 0,
        score_updates: int = 0,
        untrained: bool = False,
        score_runs: int = 1,
    ) -> None:
        super().__init__(prune_ratio)
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
        self.score_epochs = score_epochs
        self.score_runs = score_runs
        self.score_updates = score_updates
        self.untrained = untrained

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

    def check_updates(self, num_epochs: int, updates_per_epoch: int) -> None:
        """Raises BadInput where scoring would make more updates than the run, or too few for the score."""
        least, most = max(1, math.ceil(self.least_epochs * updates_per_epoch)), num_epochs * updates_per_epoch
        if self.score_updates and not least <= self.score_updates <= most:
            raise BadInput(f"score_updates is from {least} to {most} updates in this run, not {self.score_updates}")

    def length(self, context: ScoringContext) -> float:
        """Returns the epochs of a scoring network, partial where it trains by updates."""
        if self.score_updates:
            return self.score_updates / context.updates_per_epoch
        return self.epochs_of(context.num_epochs)

    def fit(self, context: ScoringContext, run: int, pruner: Pruner | None = None) -> nn.Module:
        """Returns the scoring network of a number from 0, trained on all data.

        Args:
            context: The scoring context, which trains the network.
            run: The network's number.
            pruner: A pruner that observes the training; None: no pruner does.
        """
        return context.fit(pruner or KeepAll(), self.length(context), run)

    def scoring_epochs(self, num_epochs: int) -> float:
        """Returns the epochs and the passes over the data of all scoring networks together."""
        trained = 0 if self.score_updates else self.epochs_of(num_epochs)
        return self.score_runs * (trained + self.surveys)

    def scoring_updates(self) -> int:
        """Returns the updates of all scoring networks together, where they train by updates."""
        return self.score_runs * self.score_updates
