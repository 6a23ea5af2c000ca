"""Common parts of the geometry methods: features, blocks, the share of each class, and settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines.d2 import D2
from baselines.herding import Herding
from baselines.k_center import KCenter
from baselines.moderate import Moderate
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from tests.baselines.made_features import MadeContext, made
from tests.helpers import bench

METHODS: list[Any] = [D2, Herding, KCenter, Moderate]


def test_every_number_of_kept_examples_has_the_same_share_of_each_class() -> None:
    for make in METHODS:
        for seed in range(3):
            context = made(seed)
            pruner = make(0.5)
            pruner.prepare(context)
            assert sorted(pruner.ranked_N.tolist()) == list(range(61)), make
            size_C = context.label_N.bincount().double()
            for kept in range(1, 62):
                count_C = context.label_N[pruner.ranked_N[:kept]].bincount(minlength=3)
                assert (count_C - kept * size_C / 61).abs().max() <= 1, (make, seed, kept)


def test_classes_of_one_example_and_of_none_are_blocks_like_others() -> None:
    for make in METHODS:
        label_N = torch.tensor([3] * 20 + [1] + [4] * 2)
        pruner = make(0.5)
        pruner.prepare(MadeContext(label_N, feature_ND=torch.rand(23, 2, generator=stream(0, "few"))))
        assert label_N[pruner.ranked_N[:12]].bincount(minlength=5)[[3, 4]].tolist() in ([10, 1], [11, 1]), make


def test_the_order_depends_on_the_seed_alone_where_all_examples_are_equal() -> None:
    label_N = torch.arange(31) % 2
    for make in METHODS:
        for value in (0.0, 1 / 3):
            orders = []
            for seed in (0, 0, 1):
                context = MadeContext(label_N, seed, feature_ND=torch.full((31, 4), value), logits_NC=torch.ones(31, 2))
                pruner = make(0.5)
                pruner.prepare(context)
                orders.append(pruner.ranked_N.tolist())
                assert sorted(orders[-1]) == list(range(31))
            assert orders[0] == orders[1] != orders[2], (make, value)


def test_features_come_from_one_trained_network_and_both_kinds_give_other_subsets() -> None:
    for make in METHODS:
        kept = []
        for features in ("readout", "spikes"):
            context = made(0)
            pruner = make(0.5, features=features)
            pruner.prepare(context)
            assert context.watched == {"features" if features == "readout" else "spikes"} | make.watched
            kept.append(pruner.select(0).index_K.tolist())
        assert len(kept[0]) == len(kept[1]) in (30, 31) and set(kept[0]) != set(kept[1])


def test_a_run_scores_for_a_tenth_of_its_epochs_and_a_pass() -> None:
    for options, visits in (({}, 2 * 101), ({"score_updates": 8}, 101 + 2 * 17)):
        run = bench("moderate", 0.5, epochs=20, set={"features": "spikes", **options})
        run.pruner.prepare(run.context)
        assert run.context.visits == visits + 101
    assert run.pruner.select(0).index_K.shape == (51,)


def test_settings_are_checked() -> None:
    for make in METHODS:
        with pytest.raises(BadInput, match=f"{make.__name__}'s features are readout or spikes, not 'counts'"):
            make(0.5, features="counts")
        with pytest.raises(BadInput, match="score_epochs is at most the run's 5"):
            make(0.5, score_epochs=6).check(5)
    with pytest.raises(BadInput, match="Moderate's centre is median or mean, not 'middle'"):
        Moderate(0.5, centre="middle")
