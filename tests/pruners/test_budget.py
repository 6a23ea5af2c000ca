"""The budget: every registered method saves its ratio of the visits, on small odd runs."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.random_subset import Random
from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import WithinBatch
from tests.helpers import Updates, bench, prepared
from tests.small_runs import short_scoring

METHODS = registry.table("method")
FIXED = [name for name in METHODS if registry.resolve("method", name).fixed_size]
BUDGETED = [name for name in METHODS if not registry.resolve("method", name).exempt]  # at their default settings
BATCH = 53
ODD = {"train_examples": 311, "batch_size": BATCH, "timesteps": 1, "backbone": "mlp", "set": {"backbone.width": 4}}


def trained(method, ratio, **requested):
    """Returns the rows, the selections and the number of updates of a run."""
    updates, selections = Updates(), []
    options = ODD["set"] | short_scoring(method) | requested.pop("set", {})
    run = bench(method, ratio, updates, **(ODD | requested | {"set": options}))
    run.pruner.prepare(run.context)
    updates.count = 0
    select = run.pruner.select
    run.pruner.select = lambda epoch: selections.append(select(epoch)) or selections[-1]
    return list(run.rows()), selections, updates.count


@pytest.mark.parametrize("method", sorted(BUDGETED))
def test_every_method_realises_its_budget(method):
    for ratio in [0.0] if method == "full" else [0.3, 0.5, 0.7]:
        check_budget(*trained(method, ratio, epochs=8)[:2], ratio)


def check_budget(rows, selections, ratio):
    """Checks a run's visits against its ratio, and each epoch's selection against its row."""
    realised = 1 - sum(row["kept"] for row in rows) / (8 * 311)
    assert abs(realised - ratio) * 8 * 311 <= 1
    assert len(rows) == len(selections) <= 8
    for row, selection in zip(rows, selections, strict=True):
        index_K, weight_K = selection.index_K, selection.weight_K
        assert index_K.dtype == torch.int64 and weight_K.dtype == torch.float32
        assert len(index_K.unique()) == len(index_K) == len(weight_K)
        assert index_K.min() >= 0 and index_K.max() < 311
        assert weight_K.isfinite().all() and (weight_K > 0).all()
        assert row["kept"] <= len(index_K)
        if row["kept"] == len(index_K):
            assert row["mean_weight"] == pytest.approx(weight_K.mean().item())


@pytest.mark.parametrize("method", sorted(set(BUDGETED) - {"full"}))
def test_budget_holds_for_few_examples_in_odd_batches(method):
    for num_examples, batch_size, epochs in ((53, 7, 3), (97, 58, 5)):
        rows, _, _ = trained(method, 0.4, train_examples=num_examples, batch_size=batch_size, epochs=epochs)
        assert abs(sum(row["kept"] for row in rows) - 0.6 * epochs * num_examples) <= 1


@pytest.mark.parametrize("method", sorted(set(FIXED) - {"full"}))
def test_protocol_updates_makes_as_many_updates_as_full_training(method):
    within = issubclass(registry.resolve("method", method), WithinBatch)  # whose selections are candidates
    requested = {"epochs": 4, "protocol": "updates"}
    for ratio in (0.5, 0.7, 1 - 221.4 / 311):
        kept = (1 - ratio) * 311 if method in BUDGETED else 311
        rows, selections, updates = trained(method, ratio, **requested)
        assert updates == 4 * math.ceil(311 / BATCH), ratio
        for row, selection in zip(rows[:-1], selections[:-1], strict=True):
            assert row["kept"] == len(selection.index_K) or within
            assert abs(row["kept"] - kept) < 1, ratio


def test_every_method_that_draws_anew_follows_a_budget_and_every_other_refuses_it():
    takes = {name for name in METHODS if registry.resolve("method", name).takes_budget}
    assert takes == {
        "sadp", "random", "balanced-random", "rcap", "hwbs", "orderdp", "repb", "ucb", "eps-greedy", "seta",
        "dyn-unc-dynamic", "ies",
    }  # fmt: skip
    for method in sorted(METHODS):
        for budget in ("falling", "rising") if method in takes else ("falling",):
            requested = {"train_examples": 97, "epochs": 5, "budget": budget}
            if method not in takes:
                with pytest.raises(BadInput, match=f"takes no budget '{budget}': leave out --budget") as refused:
                    trained(method, 0.0 if method == "full" else 0.4, **requested)
                assert "\n" not in str(refused.value)
                continue
            rows, selections, _ = trained(method, 0.4, **requested)
            kept = [row["kept"] for row in rows]
            assert abs(sum(kept) - 0.6 * 5 * 97) <= 1, (method, budget, kept)
            assert sorted(kept, reverse=budget == "falling") == kept and max(kept) > 1.5 * min(kept), (method, kept)
            assert [len(selection.index_K) for selection in selections] == kept, (method, budget)


def test_a_subset_that_stays_and_too_few_examples_refuse_a_budget():
    for method in ("random", "balanced-random"):
        with pytest.raises(BadInput, match="takes no budget 'falling'"):
            trained(method, 0.4, budget="falling", set={"fresh": False})
    with pytest.raises(BadInput, match="--budget falling leaves an epoch 1.5 examples: lower --ratio"):
        prepared(Random(0.7).with_budget("falling"), 9, 10)
    with pytest.raises(BadInput, match="--budget is one of constant, falling, rising, not 'linear'"):
        Random(0.5).with_budget("linear")
    with pytest.raises(BadInput, match="sadp has no setting 'schedule' any more: .*; write --budget rising$"):
        trained("sadp", 0.4, set={"schedule": "rising"})


def test_full_makes_the_updates_that_the_protocol_is_held_against():
    rows, _, updates = trained("full", 0.0, epochs=4)
    assert updates == 4 * math.ceil(311 / BATCH)
    assert [row["kept"] for row in rows] == [311] * 4
