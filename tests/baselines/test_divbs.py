"""DivBS against explicit gradients and projections."""

from __future__ import annotations

import numpy as np
import torch

from baselines.divbs import DivBS, diverse
from tests.helpers import prepared
from tests.within_batch import candidates


def by_projection(gradient_CP: np.ndarray, number: int) -> list[int]:
    """Returns the greedy rule's picks by explicit vectors; a least-squares fit of the picks gives the residuals."""
    total, picks = gradient_CP.sum(0), []
    for _ in range(number):
        gains = np.full(len(gradient_CP), -1.0)
        for i in set(range(len(gradient_CP))) - set(picks):
            residual = gradient_CP[i]
            if picks:
                basis = gradient_CP[picks].T
                residual = residual - basis @ np.linalg.lstsq(basis, residual, rcond=None)[0]
            if np.linalg.norm(residual) > 1e-3 * np.linalg.norm(gradient_CP[i]):
                gains[i] = abs(total @ residual) / np.linalg.norm(residual)
        picks.append(int(gains.argmax()))
    return picks


def test_picks_are_those_of_the_explicit_readout_gradients() -> None:
    rng = np.random.default_rng(1)
    pruner = prepared(DivBS(0.5), 24)
    for steps in (1, 3):
        error_TCK = rng.normal(size=(steps, 12, 3))
        feature_TCD = rng.random(size=(steps, 12, 4))
        e_CK, f_CD = error_TCK.sum(0), np.concatenate([feature_TCD.mean(0), np.ones((12, 1))], 1)
        gradient_CP = np.einsum("ck,cd->ckd", e_CK, f_CD).reshape(12, -1)
        watched = {"logit_errors": torch.tensor(error_TCK), "features": torch.tensor(feature_TCD)}
        choice = pruner.choose_in_batch(candidates(torch.arange(12), 6, **watched))
        assert choice.index_K.tolist() == by_projection(gradient_CP, 6)
        assert bool((choice.weight_K == 1).all())


def test_where_the_picks_span_all_gradients_the_rule_starts_anew() -> None:
    vectors = np.array([[1.0, 0], [2, 0], [0, 1], [0, 3], [0, 0], [0, 0]])
    picks = diverse(torch.tensor(vectors @ vectors.T), 6).tolist()
    assert picks[:2] == by_projection(vectors, 2) and sorted(picks[:4]) == [0, 1, 2, 3]
    assert picks[4:] == [4, 5]  # no gradient: last, in the given order
    assert diverse(torch.zeros(4, 4), 3).tolist() == [0, 1, 2]
