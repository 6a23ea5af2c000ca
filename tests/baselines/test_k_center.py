"""k-center: the farthest row first, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines import k_center
from baselines.k_center import KCenter, farthest_first
from sadp_bench.core.rng import stream
from tests.baselines.made_features import MadeContext, check_order


def farthest(feature_MD: np.ndarray, index_M: np.ndarray, context: MadeContext | None = None) -> list[int]:
    chosen = [0]
    while len(chosen) < len(feature_MD):
        near_M = ((feature_MD[:, None] - feature_MD[chosen]) ** 2).sum(-1).min(1)
        near_M[chosen] = -1
        chosen.append(int(near_M.argmax()))  # the first row of those as far
    return chosen


@pytest.mark.parametrize("candidates", [512, 7])
def test_each_example_is_the_farthest_of_those_before_it(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k_center, "CANDIDATES", candidates)
    monkeypatch.setattr(k_center, "ROWS", 10)
    check_order(KCenter, farthest)


def test_ties_and_equal_examples_go_by_the_random_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for candidates in (512, 9, 2):
        monkeypatch.setattr(k_center, "CANDIDATES", candidates)
        for seed in range(4):
            # Points of a small grid: most distances occur often, and most points twice or more.
            feature_MD = torch.randint(3, (83, 2), generator=stream(seed, "grid")).double()
            expected = farthest(feature_MD.numpy(), np.arange(83))
            assert farthest_first(feature_MD).tolist() == expected, (candidates, seed)
    assert farthest_first(torch.full((9, 3), 0.1).double()).tolist() == list(range(9))
    assert farthest_first(torch.zeros(1, 3).double()).tolist() == [0]
