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
    training: augmented, before the update. The score of an example that a network never learns is the number of its
    presentations, more than any other can have. Some public code scores it 0, and so drops it as the easiest.
    `score_epochs` 0 means the whole run. The score is the sum over all `score_runs` networks.
    """

    display_name = "Forgetting"
    bibtex = """
    @inproceedings{toneva2019forgetting,
      title = {An Empirical Study of Example Forgetting during Deep Neural Network Learning},
      author = {Toneva, Mariya and Sordoni, Alessandro and Tachet des Combes, Remi and Trischler, Adam and
        Bengio, Yoshua and Gordon, Geoffrey J.},
      booktitle = {International Conference on Learning Representations},
      year = {2019},
    }
    """
    least_epochs = 1
    surveys = 0

    def default_epochs(self, num_epochs: int) -> int:
        """Returns the whole run."""
        return num_epochs

    def score(self, context: ScoringContext) -> Tensor:
        """Returns each example's score, summed over the networks."""
        score_N = torch.zeros(context.num_examples)
        for run in range(self.score_runs):
            counter = ForgettingCounter()
            self.fit(context, run, counter)
            score_N += torch.where(counter.learned_N, counter.events_N, counter.presentations_N).cpu()
        return score_N


class ForgettingCounter(KeepAll):
    """Counts each example's presentations and correct -> wrong transitions, and whether it was ever right."""

    def prepare(self, context: ScoringContext) -> None:
        """Sets all counts to zero."""
        super().prepare(context)
        self.events_N = torch.zeros(context.num_examples, device=context.device)
        self.presentations_N = torch.zeros(context.num_examples, device=context.device)
        self.right_N = torch.zeros(context.num_examples, dtype=torch.bool, device=context.device)
        self.learned_N = torch.zeros(context.num_examples, dtype=torch.bool, device=context.device)

    def observe(self, seen: Observation) -> None:
        """Counts the examples that were right at their last visit and are wrong now."""
        right_B = seen.logits_TBC.mean(0).argmax(1) == seen.label_B
        self.presentations_N[seen.index_B] += 1
        self.events_N[seen.index_B] += (self.right_N[seen.index_B] & ~right_B).float()
        self.right_N[seen.index_B] = right_B
        self.learned_N[seen.index_B] |= right_B
