"""DUAL: uncertainty times difficulty, early in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.dyn_unc import LEAST_WINDOW, check_window
from baselines.dynamics import WindowRecorder
from baselines.scored import Scored
from sadp_bench.pruner import BadInput, ScoringContext
from sadp_bench.sampling import ranked

SAMPLINGS = ("top", "beta")
CONCENTRATION = 15  # C of the published Beta distribution, whose two parameters sum to C + 1
ANCHORS = 10  # examples of the highest score, whose mean prediction places the Beta distribution


class DUAL(Scored):
    """Keeps the examples that are both uncertain and difficult early in training. Weight 1.

    Source: Cho, Shin, Kang & Yun, "Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction
    Uncertainty", ICML 2025 (arXiv 2502.06905).

    Kind: static.
    Scoring: 15 % of the run.

    p_y is the right class's probability at a presentation of training: augmented, before the update. A window is J = 10
    presentations in a row. Its value is the standard deviation of p_y times one minus the mean of p_y. The score is the
    mean over all windows. `score_epochs` 0 means 15 % of the run, the paper's 30 of 200, and at least 2. A scoring run of
    fewer than J epochs has J = its epochs.

    `sampling=beta` is the paper's other half, for high ratios: it draws K examples without replacement. The probability is
    in proportion to score x Beta density at the example's mean p_y. The density's parameters are
    b = 15 (1 - m) (1 - ratio^exponent) and a = 16 - b, with m the mean p_y of the 10 highest scores. The higher the ratio,
    the easier the drawn examples. Only the draw depends on the ratio, so runs of all ratios share the scores. The exponent
    is c_D, which the paper tunes for each data set. The public command has 4 for CIFAR-100.

    Args:
        prune_ratio: The share of visits to save.
        sampling: "top": the K highest scores, or those that `keep` names. "beta": the draw.
        exponent: c_D of the draw, above 0.
        window: J, the presentations in a window, at least 2.
        offset: The share of all examples, from the highest score, that is dropped as too hard.
        score_epochs: The epochs of a scoring network; 0 means 15 % of the run.
        score_runs: The number of scoring networks.
        keep: "hardest" (the highest scores), "easiest" (the lowest) or "middle".
        score_updates: The number of updates of a scoring network, in place of epochs.
    """

    display_name = "DUAL"
    bibtex = """
    @inproceedings{cho2025dual,
      title = {Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction
        Uncertainty},
      author = {Cho, Yeseul and Shin, Baekrok and Kang, Changmin and Yun, Chulhee},
      booktitle = {International Conference on Machine Learning},
      eprint = {2502.06905},
      archiveprefix = {arXiv},
      year = {2025},
    }
    """
    least_epochs = LEAST_WINDOW
    surveys = 0

    def __init__(
        self,
        prune_ratio: float,
        *,
        sampling: str = "top",
        exponent: float = 4.0,
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
        check_window("dual", window, LEAST_WINDOW)
        if sampling not in SAMPLINGS:
            raise BadInput(f"dual's sampling is one of {', '.join(SAMPLINGS)}, not '{sampling}'")
        if not 0 < exponent < math.inf:
            raise BadInput(f"dual's exponent is above 0 and finite, not {exponent:g}")
        if sampling == "beta" and (offset or keep != "hardest"):
            raise BadInput("dual's sampling=beta draws from all examples: leave out offset and keep")
        self.sampling = sampling
        self.score_columns = 2 if sampling == "beta" else 0  # the draw needs the mean probability too
        self.exponent = exponent
        self.window = window

    def default_epochs(self, num_epochs: int) -> int:
        """Returns 15 % of the run, at least 2 epochs if the run has them."""
        return min(num_epochs, max(LEAST_WINDOW, round(0.15 * num_epochs)))

    def score(self, context: ScoringContext) -> Tensor:
        """Returns each example's score, averaged over the scoring networks; for the draw its mean p_y too, [N, 2]."""
        runs = []
        for run in range(self.score_runs):
            recorder = WindowRecorder(min(self.window, int(self.length(context))))
            self.fit(context, run, recorder)
            score_N, mean_N = recorder.hard_uncertainty().cpu(), recorder.mean_probability().cpu()
            runs.append(score_N if self.sampling == "top" else torch.stack([score_N, mean_N], 1))
        return torch.stack(runs).mean(0)

    def ranking(self, score_N: Tensor) -> Tensor:
        """Returns all examples, by falling score or in the order of the draw."""
        if self.sampling == "top":
            return super().ranking(score_N)
        if score_N.dim() == 1:
            raise BadInput(
                "dual's sampling=beta needs each example's mean p_y beside its score; without it take sampling=top"
            )
        score_N, mean_N = score_N.double().unbind(1)
        log_weight_N = score_N.log() + beta_log_density(score_N, mean_N, self.prune_ratio, self.exponent)
        return drawn_order(log_weight_N, self.generator())


def drawn_order(log_weight_N: Tensor, generator: torch.Generator) -> Tensor:
    """Returns all examples in the order of a draw without replacement, in proportion to the weights. Int64, [N].

    The order is by falling log weight plus Gumbel noise (Efraimidis & Spirakis, 2006).
    """
    uniform_N = torch.rand(len(log_weight_N), generator=generator, dtype=torch.float64)
    return ranked(log_weight_N - (-uniform_N.log()).log(), generator)


def beta_log_density(score_N: Tensor, mean_N: Tensor, prune_ratio: float, exponent: float) -> Tensor:
    """Returns the logarithm of DUAL's Beta density at each example's mean p_y, up to a constant. [N].

    Args:
        score_N: The scores. The mean p_y of the highest ones places the density.
        mean_N: Each example's mean p_y.
        prune_ratio: The pruning ratio.
        exponent: c_D.
    """
    anchor = float(mean_N[score_N.topk(min(ANCHORS, len(score_N))).indices].mean())
    b = CONCENTRATION * (1 - anchor) * (1 - prune_ratio**exponent)
    a = CONCENTRATION + 1 - b
    inside_N = mean_N.clamp(1e-12, 1 - 1e-12)
    return (a - 1) * inside_N.log() + (b - 1) * torch.log1p(-inside_N)
