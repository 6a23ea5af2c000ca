"""DRoP: more examples of the classes that a network gets wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.scored import Scored
from sadp_bench.pruner import BadInput, KeepAll, ScoringContext, Selection, Survey, unweighted
from sadp_bench.sampling import by_class

HELD_OUT = 10  # one in so many examples is held out


class DRoP(Scored):
    """Keeps a random subset, with a larger share of the classes that have more errors on held-out examples. Weight 1.

    Source: Vysogorets, Ahuja & Kempe, "DRoP: Distributionally Robust Data Pruning", ICLR 2025 (arXiv 2404.05579).

    Kind: static.
    Scoring: a tenth of the run and a pass.

    Let e_c be the error of class c on held-out data, and n_c its number of examples. The class keeps the share
    d_c = min(1, e_c z) of its examples, drawn at random. z makes sum n_c d_c = K. This is the paper's algorithm, with
    e_c = 1 - recall. The excess of a full class goes to the others, in proportion to their errors. Webster's method
    rounds the counts, and their sum is K.

    The paper takes half of the test set as held-out data. Here it is a tenth of each class of the training set. The scoring
    network does not train on it; the run may keep it. So few examples often show no error, and the paper's rule would then
    remove the class from training. Here e_c = (wrong + 1) / (held out + 2), Laplace's rule, so that every class has a share.
    This rule is ours. A class without held-out examples has the mean error of the others. The length of the authors' first
    training is not public to us.

    Args:
        prune_ratio: The share of visits to save.
        score_epochs: The epochs of the run's schedule that a scoring network trains; 0 means a tenth of the run, at
            least 1.
        score_updates: The number of updates that a scoring network trains, in place of epochs; 0 means by epochs.
        score_runs: The number of scoring networks, whose errors are averaged.
    """

    display_name = "DRoP"
    bibtex = """
    @inproceedings{vysogorets2025drop,
      title = {{DRoP}: Distributionally Robust Data Pruning},
      author = {Vysogorets, Artem and Ahuja, Kartik and Kempe, Julia},
      booktitle = {International Conference on Learning Representations},
      eprint = {2404.05579},
      archiveprefix = {arXiv},
      year = {2025},
    }
    """

    def __init__(
        self, prune_ratio: float, *, score_epochs: int = 0, score_updates: int = 0, score_runs: int = 1
    ) -> None:
        super().__init__(prune_ratio, score_epochs=score_epochs, score_updates=score_updates, score_runs=score_runs)

    def prepare(self, context: ScoringContext) -> None:
        """Measures the classes' errors on the `prepare` clock, and orders the examples."""
        super().prepare(context)
        if bool((self.score_N < 0).any()):
            raise BadInput("drop's scores are errors of the example's class, at least 0; a given score is below 0")
        weight_C = torch.zeros(context.num_classes, dtype=torch.float64)
        weight_C.index_add_(0, context.label_N, self.score_N.cpu().double())
        shuffled_N = torch.randperm(self.num_examples, generator=self.generator(1))
        self.ranked_N = by_class(shuffled_N, context.label_N, weight_C)

    def score(self, context: ScoringContext) -> Tensor:
        """Returns the error of each example's class, averaged over the scoring networks."""
        held_N = held_out(context.label_N, self.generator(2))
        runs = []
        for run in range(self.score_runs):
            model = self.fit(context, run, KeepSome((~held_N).nonzero().squeeze(1)))
            runs.append(class_error(context.survey(model), held_N, context.num_classes))
        return torch.stack(runs).mean(0)[context.label_N]


class KeepSome(KeepAll):
    """Keeps the given examples at weight 1, to train a network without the held-out examples."""

    def __init__(self, index_K: Tensor) -> None:
        super().__init__()
        self.index_K = index_K

    def select(self, epoch: int) -> Selection:
        """Returns the given examples."""
        return unweighted(self.index_K)


def held_out(label_N: Tensor, generator: torch.Generator) -> Tensor:
    """Returns which examples are held out: a random tenth, of every class in proportion to its size. Bool, [N]."""
    shuffled_N = torch.randperm(len(label_N), generator=generator)
    order_N = by_class(shuffled_N, label_N, label_N.bincount())
    held_N = torch.zeros(len(label_N), dtype=torch.bool)
    held_N[order_N[: max(1, len(label_N) // HELD_OUT)]] = True
    return held_N


def class_error(survey: Survey, held_N: Tensor, num_classes: int) -> Tensor:
    """Returns each class's error on its held-out examples, (wrong + 1) / (number + 2). Float32, [C].

    A class without held-out examples has the mean of the others.
    """
    label_M = survey.label_N[held_N]
    wrong_M = survey.logits_NC[held_N].argmax(1) != label_M
    size_C = label_M.bincount(minlength=num_classes)
    error_C = (label_M.bincount(wrong_M.float(), minlength=num_classes).float() + 1) / (size_C + 2)
    return torch.where(size_C > 0, error_C, error_C[size_C > 0].mean())
