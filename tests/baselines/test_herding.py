"""Herding: the mean of the chosen follows the mean of all, against NumPy."""

from __future__ import annotations

import numpy as np
import torch

from baselines.herding import Herding, herded
from sadp_bench.core.rng import stream
from tests.baselines.made_features import MadeContext, check_order


def nearest_mean(feature_MD: np.ndarray, index_M: np.ndarray, context: MadeContext) -> list[int]:
    mean_D, chosen = feature_MD.mean(0), []
    for number in range(1, len(feature_MD) + 1):
        mean_MD = (feature_MD[chosen].sum(0) + feature_MD) / number
        distance_M = np.linalg.norm(mean_MD - mean_D, axis=1)
        distance_M[chosen] = np.inf
        chosen.append(int(distance_M.argmin()))
    return chosen


def test_each_example_moves_the_mean_of_the_chosen_nearest_to_the_mean() -> None:
    check_order(Herding, nearest_mean)


def test_a_start_of_the_order_has_a_nearer_mean_than_a_random_subset() -> None:
    generator = stream(0, "herding")
    feature_MD = torch.rand(400, 8, generator=generator).double()
    order_M = herded(feature_MD)
    for kept in (20, 100, 200):
        error = (feature_MD[order_M[:kept]].mean(0) - feature_MD.mean(0)).norm()
        random = (feature_MD[torch.randperm(400, generator=generator)[:kept]].mean(0) - feature_MD.mean(0)).norm()
        assert error < random / 5
