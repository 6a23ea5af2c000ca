"""EL2N: the error vector's norm, early in training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from baselines.scored import Scored
from sadp_bench.pruner import ScoringContext

DATA_DIET = """
@inproceedings{paul2021diet,
  title = {Deep Learning on a Data Diet: Finding Important Examples Early in Training},
  author = {Paul, Mansheej and Ganguli, Surya and Dziugaite, Gintare Karolina},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021},
}
"""


class EL2N(Scored):
    """Keeps the highest ||p - y||, the norm of the error vector early in training, for the whole run. Weight 1.

    Source: Paul, Ganguli & Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021.

    Kind: static.
    Scoring: a tenth of the run and a pass.

    p is the softmax of the time-mean of the logits, in evaluation mode, without augmentation.
    """

    display_name = "EL2N"
    bibtex = DATA_DIET

    def score(self, context: ScoringContext) -> Tensor:
        """Returns each example's error norm, averaged over the scoring networks."""
        runs = []
        for run in range(self.score_runs):
            model = self.fit(context, run)
            survey = context.survey(model)
            runs.append(error_norm(survey.logits_NC, survey.label_N))
        return torch.stack(runs).mean(0)


def error_norm(logits_NC: Tensor, label_N: Tensor) -> Tensor:
    """Returns ||softmax(logits) - one-hot label||_2. [N]."""
    return (logits_NC.softmax(1) - one_hot(label_N, logits_NC.shape[1])).norm(dim=1)
