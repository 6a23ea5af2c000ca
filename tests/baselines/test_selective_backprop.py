"""Selective-Backprop against its definition: the power of the rank among the latest losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.selective_backprop import SelectiveBackprop
from sadp_bench.core.errors import BadInput
from tests.helpers import prepared
from tests.within_batch import candidates


def test_candidates_are_drawn_in_proportion_to_the_power_of_their_loss_rank() -> None:
    rng, ratio, window = np.random.default_rng(0), 0.7, 50
    pruner = prepared(SelectiveBackprop(ratio, window=window), 400)
    latest: list[float] = []
    drawn, expected, repeats = np.zeros(20), np.zeros(20), 600
    for _ in range(repeats):
        loss_C = np.sort(rng.exponential(size=20)).astype(np.float32)
        latest = (latest + loss_C.tolist())[-window:]
        share_C = np.array([np.mean(np.array(latest, dtype=np.float32) <= loss) for loss in loss_C]) ** (0.7 / 0.3)
        # Six train: probabilities in proportion to the shares, none above 1.
        p_C = np.minimum(1, share_C * 6 / share_C.sum())
        while p_C.sum() < 6 - 1e-9:
            capped = p_C >= 1
            p_C[~capped] *= (6 - capped.sum()) / p_C[~capped].sum()
            p_C = np.minimum(1, p_C)
        choice = pruner.choose_in_batch(candidates(torch.arange(20), 6, loss_B=torch.tensor(loss_C)))
        assert len(choice.index_K.unique()) == 6 and bool((choice.weight_K == 1).all())
        drawn[choice.index_K.numpy()] += 1
        expected += p_C
    deviation = (drawn - expected) / np.sqrt(np.maximum(expected * (1 - expected / repeats), 1))
    assert np.abs(deviation).max() < 4
    assert drawn[-1] > 5 * drawn[5]


def test_the_mean_share_of_the_power_is_the_budget() -> None:
    rank = (np.arange(10_000) + 0.5) / 10_000
    for ratio in (0.3, 0.5, 0.7):
        assert np.mean(rank ** (ratio / (1 - ratio))) == pytest.approx(1 - ratio, abs=1e-3)


def test_a_window_of_one_loss_is_refused() -> None:
    with pytest.raises(BadInput, match="window is at least 2 losses, not 1"):
        SelectiveBackprop(0.5, window=1)
