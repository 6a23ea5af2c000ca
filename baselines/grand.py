"""GraNd: each example's gradient norm, early in training."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.el2n import DATA_DIET
from baselines.scored import Scored
from sadp_bench.pruner import ScoringContext


class GraNd(Scored):
    """Keeps the highest gradient norm over all parameters, early in training, for the whole run. Weight 1.

    Source: Paul, Ganguli & Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021.

    Kind: static.
    Scoring: a tenth of the run and a pass, of exact gradients.

    The norm is that of the exact gradient of the example's loss, over every parameter, with batch norm's running
    statistics. The paper's scores at initialisation do not reproduce (Kirsch, arXiv 2303.14753), so the networks train
    first.
    """

    display_name = "GraNd"
    bibtex = DATA_DIET

    def score(self, context: ScoringContext) -> Tensor:
        """Returns each example's gradient norm, averaged over the scoring networks."""
        runs = []
        for run in range(self.score_runs):
            model = self.fit(context, run)
            gradient_norm_N = context.survey(model, frozenset({"gradient_norms"})).gradient_norm_N
            assert gradient_norm_N is not None
            runs.append(gradient_norm_N)
        return torch.stack(runs).mean(0)
