"""CCS: a sample that covers all scores, without the very hardest."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from baselines.dynamics import MarginRecorder
from baselines.el2n import error_norm
from baselines.scored import Scored
from sadp_bench.pruner import BadInput, ScoringContext
from sadp_bench.sampling import place_within

SCORES = ("aum", "el2n")
# The paper's shares of the hardest to drop, by ratio, for CIFAR-10 by AUM.
PUBLISHED_BETA = {0.5: 0.0, 0.7: 0.1, 0.8: 0.1, 0.9: 0.3}


class CCS(Scored):
    """Keeps the same number of each stratum of scores, without the hardest, for the whole run. Weight 1.

    Source: Zheng, Liu, Lai & Prakash, "Coverage-centric Coreset Selection for High Pruning Rates", ICLR 2023 (arXiv
    2210.15809).

    Kind: static.
    Scoring: the whole run (aum), or a tenth of the run and a pass (el2n).

    The share beta of the hardest examples is dropped. The range of the other scores is cut into 50 strata of equal width.
    Each stratum, from the smallest to the largest, gets an equal part of what is left of K, at most its size. So larger
    strata get the rest. Within a stratum the examples are drawn at random.

    The score "aum" is the area under the margin (Pleiss et al., NeurIPS 2020); low is hard. The margin is the right class's
    logit minus the highest other. The area is its mean over presentations (train mode, augmented, before the update). "el2n"
    is the score of `el2n`; high is hard. The authors' code takes probabilities in place of logits. It also drops the
    hardest by AUM for every score. Here they are dropped by the chosen score.

    The paper chooses beta by a search at each ratio. The default follows its values for CIFAR-10 by AUM, linear in between:
    0 up to a ratio of 0.5, 0.1 from 0.7 to 0.8, 0.3 from 0.9. The authors' public command has the last. We know the others
    at second hand. Scores do not depend on beta and the strata, so runs of all ratios share them.

    Args:
        prune_ratio: The share of visits to save.
        score: "aum" or "el2n".
        beta: The share of all examples to drop as too hard, at most the ratio; none: the default for the ratio.
        strata: The number of strata.
        score_epochs: The number of epochs of a scoring network; 0 means the whole run (aum) or a tenth (el2n).
        score_runs: The number of scoring networks.
        score_updates: The number of updates of a scoring network, in place of epochs.
    """

    display_name = "CCS"
    bibtex = """
    @inproceedings{zheng2023ccs,
      title = {Coverage-centric Coreset Selection for High Pruning Rates},
      author = {Zheng, Haizhong and Liu, Rui and Lai, Fan and Prakash, Atul},
      booktitle = {International Conference on Learning Representations},
      eprint = {2210.15809},
      archiveprefix = {arXiv},
      year = {2023},
    }
    """

    def __init__(
        self,
        prune_ratio: float,
        *,
        score: str = "aum",
        beta: float | None = None,
        strata: int = 50,
        score_epochs: int = 0,
        score_runs: int = 1,
        score_updates: int = 0,
    ) -> None:
        super().__init__(prune_ratio, score_epochs=score_epochs, score_runs=score_runs, score_updates=score_updates)
        if score not in SCORES:
            raise BadInput(f"ccs's score is one of {', '.join(SCORES)}, not '{score}'")
        if beta is not None and not 0 <= beta <= prune_ratio:
            raise BadInput(
                f"ccs's beta is between 0 and the ratio ({prune_ratio:g}), not {beta:g}: it drops the hardest"
            )
        if not 1 <= strata <= 10_000:
            raise BadInput(f"ccs's strata are from 1 to 10,000, not {strata}")
        self.by_margin = score == "aum"
        self.beta = default_beta(prune_ratio) if beta is None else beta
        self.strata = strata
        self.least_epochs, self.surveys = (1, 0) if self.by_margin else (0, 1)

    def default_epochs(self, num_epochs: int) -> int:
        """Returns the whole run for margins, otherwise a tenth."""
        return num_epochs if self.by_margin else super().default_epochs(num_epochs)

    def score(self, context: ScoringContext) -> Tensor:
        """Returns each example's score, high is hard, averaged over the scoring networks."""
        runs = []
        for run in range(self.score_runs):
            if self.by_margin:
                recorder = MarginRecorder()
                self.fit(context, run, recorder)
                runs.append(-recorder.mean_margin().cpu())
            else:
                survey = context.survey(self.fit(context, run))
                runs.append(error_norm(survey.logits_NC, survey.label_N))
        return torch.stack(runs).mean(0)

    def ranking(self, score_N: Tensor) -> Tensor:
        """Returns the kept examples in random order, then the others of the strata, then the hardest."""
        if not bool(score_N.isfinite().all()):
            raise BadInput("ccs cuts the range of the scores into strata: they must be finite, and some are not")
        num_kept = max(self.num_kept(epoch) for epoch in range(self.num_epochs))
        by_score_N = super().ranking(score_N)
        num_dropped = min(round(self.beta * self.num_examples), self.num_examples - num_kept)
        left = by_score_N[num_dropped:]
        left = left[torch.randperm(len(left), generator=self.generator(1))]
        stratum_M = strata_of(score_N[left], self.strata)
        budget_S = equal_budgets(stratum_M.bincount(minlength=self.strata), num_kept)
        chosen_M = place_within(stratum_M) < budget_S[stratum_M]
        return torch.cat([left[chosen_M], left[~chosen_M], by_score_N[:num_dropped]])


def default_beta(prune_ratio: float) -> float:
    """Returns the share of the hardest to drop, linear between the published values."""
    return float(np.interp(prune_ratio, list(PUBLISHED_BETA), list(PUBLISHED_BETA.values())))


def strata_of(score_M: Tensor, num_strata: int) -> Tensor:
    """Returns each score's stratum, from 0: strata of equal width from the lowest to the highest score. Int64, [M]."""
    low, high = score_M.double().min(), score_M.double().max()
    share_M = (score_M.double() - low) / (high - low) if high > low else torch.zeros(len(score_M))
    return (share_M * num_strata).long().clamp_max(num_strata - 1)


def equal_budgets(size_S: Tensor, total: int) -> Tensor:
    """Returns how many to draw from each stratum: equal parts; larger strata get what small ones lack. Int64, [S]."""
    budget_S, left = torch.zeros_like(size_S), total
    for place, stratum in enumerate(size_S.argsort(stable=True).tolist()):
        budget_S[stratum] = min(int(size_S[stratum]), left // (len(size_S) - place))
        left -= int(budget_S[stratum])
    return budget_S
