"""The draws of SADP where a visit changes an example's score, as training does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sadp_bench.core.rng import stream
from sadp_bench.pruners.sadp import DRAWS, SADP
from tests.helpers import in_standard_errors, prepared

NUM_EXAMPLES, EPOCHS, RUNS = 300, 20, 12


def errors(draw: str, ratio: float, seed: int) -> Tensor:
    """Returns the relative errors of the weighted loss and of the mean weight, means over a run's epochs. [2].

    A loss falls by 30 % on a visit, and rises by 5 % in any epoch. It is the score from the first visit on.
    """
    pruner = prepared(SADP(ratio, score="readout", memory=0.0, draw=draw), NUM_EXAMPLES, EPOCHS, seed)
    loss_N = torch.randn(NUM_EXAMPLES, generator=stream(seed, "losses")).exp()
    errors_E2 = []
    for epoch in range(EPOCHS):
        selection = pruner.select(epoch)
        index_K, weight_K = selection.index_K, selection.weight_K
        weighted = (weight_K * loss_N[index_K]).mean() / loss_N.mean()
        errors_E2.append(torch.stack([weighted, weight_K.mean()]) - 1)
        pruner.score_sq_N[index_K] = loss_N[index_K].square()
        loss_N *= 1.05
        loss_N[index_K] *= 0.7
    return torch.stack(errors_E2).mean(0)


@pytest.mark.parametrize("ratio", [0.5, 0.7])
def test_independent_draws_are_unbiased_where_scores_fall_on_a_visit_and_balanced_draws_are_not(ratio: float) -> None:
    found = {draw: torch.stack([errors(draw, ratio, seed) for seed in range(RUNS)]) for draw in DRAWS}
    for draw, errors_R2 in found.items():
        off_2 = in_standard_errors(errors_R2, torch.zeros(2))
        bias_2, error_2 = 100 * errors_R2.mean(0), 100 * errors_R2.std(0) / RUNS**0.5
        print(f"{draw} at {ratio}: weighted loss {bias_2[0]:+.2f} ± {error_2[0]:.2f} %, weight {bias_2[1]:+.2f} %")
        assert off_2.max() < 3 if draw == "independent" else off_2.min() > 3, (draw, bias_2.tolist())
