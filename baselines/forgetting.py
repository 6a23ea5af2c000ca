"""Forgetting: the number of times that training unlearns an example."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.scored import Scored
from sadp_bench.pruner import KeepAll, Observation, ScoringContext


class Forgetting(Scored):
    """Keeps the examples that a full training run forgets most often, those never learned first. Weight 1.

    Source: Toneva et al., "An Empirical Study of Example Forgetting", ICLR 2019.

    Kind: static.
    Scoring: the whole run.

    A forgetting event is a right answer at a presentation and a wrong answer at the next. Presentations are those of
    training: augmented, before the update. An example that a network never learns gets the number of its presentations,
    more than any other can have; some public code scores it 0, and so drops it as the easiest. `score_epochs` 0 means the
    whole run. The score sums those of all `score_runs` networks.
    """

    def epochs_of(self, num_epochs: int) -> int:
        """Returns the epochs of a scoring network: by default the whole run."""
        return self.score_epochs or num_epochs

    def score(self, context: ScoringContext) -> Tensor:
        """Returns each example's score, summed over the networks. An epoch presents an example once."""
        score_N, epochs = torch.zeros(context.num_examples), self.epochs_of(context.num_epochs)
        for run in range(self.score_runs):
            counter = ForgettingCounter()
            context.fit(counter, epochs, run)
            score_N += torch.where(counter.learned_N, counter.events_N, float(epochs)).cpu()
        return score_N


class ForgettingCounter(KeepAll):
    """Counts each example's correct -> wrong transitions, and whether it was ever right."""

    def prepare(self, context: ScoringContext) -> None:
        """Sets all counts to zero."""
        super().prepare(context)
        self.events_N = torch.zeros(context.num_examples, device=context.device)
        self.right_N = torch.zeros(context.num_examples, dtype=torch.bool, device=context.device)
        self.learned_N = torch.zeros(context.num_examples, dtype=torch.bool, device=context.device)

    def observe(self, seen: Observation) -> None:
        """Counts the examples that were right at their last visit and are wrong now."""
        right_B = seen.logits_TBC.mean(0).argmax(1) == seen.label_B
        self.events_N[seen.index_B] += (self.right_N[seen.index_B] & ~right_B).float()
        self.right_N[seen.index_B] = right_B
        self.learned_N[seen.index_B] |= right_B
