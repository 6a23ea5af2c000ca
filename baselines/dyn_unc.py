"""Dyn-Unc: how much the prediction of the right class moves while a network trains."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.dynamics import WindowRecorder, Windows
from baselines.scored import Scored
from sadp_bench.pruner import BadInput, Observation, Pruner, ScoringContext, Selection, unweighted
from sadp_bench.sampling import ranked

LEAST_WINDOW = 2  # presentations, for a standard deviation


def check_window(method: str, window: int, least: int) -> None:
    """Raises BadInput where a window is too short for its statistic."""
    if window < least:
        raise BadInput(f"{method}'s window is at least {least} presentations, not {window}")


BIBTEX = """
@inproceedings{he2024dynunc,
  title = {Large-scale Dataset Pruning with Dynamic Uncertainty},
  author = {He, Muyang and Yang, Shuo and Huang, Tiejun and Zhao, Bo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops},
  eprint = {2306.05175},
  archiveprefix = {arXiv},
  year = {2024},
}
"""


class DynUnc(Scored):
    """Keeps the examples whose probability of the right class varies most over a training run. Weight 1.

    Source: He, Yang, Huang & Zhao, "Large-scale Dataset Pruning with Dynamic Uncertainty", CVPR workshops 2024
    (arXiv 2306.05175).

    Kind: static.
    Scoring: the whole run.

    p_y is the right class's probability at a presentation of training: augmented, before the update. The score is the
    mean, over all windows of J = 10 presentations in a row, of the standard deviation of p_y (J - 1 in the denominator).
    In a scoring run of fewer than J epochs, J is the number of its epochs. The paper's runs have 90 and more. Scores of
    several networks are averaged. `dyn-unc-dynamic` ranks by the run's own history.

    Args:
        prune_ratio: The share of visits to save.
        window: J, the presentations in a window, at least 2.
        offset: The share of all examples, from the highest score, that is dropped as too hard.
        score_epochs: The epochs of a scoring network; 0 means the whole run.
        score_runs: The number of scoring networks.
        keep: "hardest" (the highest scores, the most uncertain), "easiest" (the lowest) or "middle".
        score_updates: The number of updates of a scoring network, in place of epochs.
    """

    display_name = "Dyn-Unc"
    bibtex = BIBTEX
    least_epochs = LEAST_WINDOW
    surveys = 0

    def __init__(
        self,
        prune_ratio: float,
        *,
        window: int = 10,
        offset: float = 0.0,
        score_epochs: int = 0,
        score_runs: int = 1,
        keep: str = "hardest",
        score_updates: int = 0,
    ) -> None:
        super().__init__(
            prune_ratio,
            offset=offset,
            score_epochs=score_epochs,
            score_runs=score_runs,
            keep=keep,
            score_updates=score_updates,
        )
        check_window("dyn-unc", window, LEAST_WINDOW)
        self.window = window

    def default_epochs(self, num_epochs: int) -> int:
        """Returns the whole run."""
        return num_epochs

    def score(self, context: ScoringContext) -> Tensor:
        """Returns each example's uncertainty, averaged over the scoring networks."""
        runs = []
        for run in range(self.score_runs):
            recorder = WindowRecorder(min(self.window, int(self.length(context))))
            self.fit(context, run, recorder)
            runs.append(recorder.uncertainty().cpu())
        return torch.stack(runs).mean(0)


class DynUncDynamic(Windows, Pruner):
    """Keeps, in each epoch, the examples whose probability of the right class has varied most so far. Weight 1.

    Source: the score of He, Yang, Huang & Zhao, "Large-scale Dataset Pruning with Dynamic Uncertainty", CVPR workshops
    2024 (arXiv 2306.05175), in a dynamic form.

    Kind: dynamic.
    Scoring: none.

    The score is that of `dyn-unc`, over the example's own presentations in this run. An example that an epoch leaves out
    keeps its score. Until it has had J presentations, its presentations so far are one window. Examples with no
    presentation come first, then those with one, ties at random. The dynamic form is ours: the paper prunes before
    training. At a high ratio, a short run does little more than present each example twice.

    Args:
        prune_ratio: The share of visits to save.
        window: J, at least 2. It is lowered to the number of epochs if that is smaller.
    """

    display_name = "Dyn-Unc (dynamic)"
    bibtex = BIBTEX
    takes_budget = True

    def __init__(self, prune_ratio: float, *, window: int = 10) -> None:
        super().__init__(prune_ratio)
        check_window("dyn-unc-dynamic", window, LEAST_WINDOW)
        self.window = window

    def prepare(self, context: ScoringContext) -> None:
        """Sets all numbers to zero."""
        super().prepare(context)
        self.start(context, max(LEAST_WINDOW, min(self.window, context.num_epochs)))

    def observe(self, seen: Observation) -> None:
        """Adds a presentation of each example."""
        self.note(seen)

    def select(self, epoch: int) -> Selection:
        """Returns the K of the highest score, those with fewer than two presentations first."""
        seen_NJ = torch.arange(self.window, device=self.visits_N.device) < self.visits_N[:, None]
        mean_N = (self.history_N * seen_NJ).sum(1) / self.visits_N.clamp_min(1)
        squares_N = ((self.history_N - mean_N[:, None]) * seen_NJ).square().sum(1)
        so_far_N = (squares_N / (self.visits_N - 1).clamp_min(1)).sqrt()
        score_N = torch.where(self.visits_N < self.window, so_far_N, self.uncertainty())
        first_N = 3.0 - self.visits_N  # above every standard deviation of probabilities
        score_N = torch.where(self.visits_N < LEAST_WINDOW, first_N, score_N)
        return unweighted(ranked(score_N.cpu(), self.generator(epoch))[: self.num_kept(epoch)])
