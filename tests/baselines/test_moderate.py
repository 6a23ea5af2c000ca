"""Moderate: the middle ranks of the distance to the class's centre, against NumPy."""

from __future__ import annotations

from functools import partial

import numpy as np

from baselines.moderate import Moderate
from tests.baselines.made_features import MadeContext, check_order, made


def distances(feature_MD: np.ndarray, label_M: np.ndarray, centre: str) -> np.ndarray:
    of_class = {c: getattr(np, centre)(feature_MD[label_M == c], axis=0) for c in np.unique(label_M)}
    return np.array([np.linalg.norm(x - of_class[c]) for x, c in zip(feature_MD, label_M, strict=True)])


def from_the_median(feature_MD: np.ndarray, index_M: np.ndarray, context: MadeContext, centre: str) -> list[int]:
    of = distances(feature_MD, context.label_N.numpy()[index_M], centre)
    rank = [sum(of < d) + sum(of[:row] == d) for row, d in enumerate(of)]
    # Where two ranks are equally far from the middle, the block's random order decides.
    return sorted(range(len(of)), key=lambda row: (abs(rank[row] - (len(of) - 1) / 2), row))


def test_the_order_goes_from_the_median_distance_outwards() -> None:
    for centre in ("median", "mean"):
        check_order(Moderate, partial(from_the_median, centre=centre), centre=centre)


def test_the_kept_are_the_middle_quantiles_of_every_class() -> None:
    for ratio in (0.3, 0.5, 0.7):
        context = made(1)
        pruner = Moderate(ratio)
        pruner.prepare(context)
        kept = set(pruner.select(0).index_K.tolist())
        label_N = context.label_N.numpy()
        of_N = distances(context.fields["feature_ND"].double().numpy(), label_N, "median")
        for c in range(3):
            order = [i for i in np.argsort(of_N) if label_N[i] == c]
            places = [place for place, i in enumerate(order) if i in kept]
            assert places == list(range(places[0], places[0] + len(places))), "one interval"
            assert abs(places[0] - (len(order) - 1 - places[-1])) <= 1, "in the middle"
