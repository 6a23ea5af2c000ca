"""The three axes together: every combination trains, is counted, and is taken up again where it was stopped."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sadp_bench.core.errors import BadInput
from sadp_bench.gate.rerun import request_of as of_record
from sadp_bench.pruners.base import FreshSubset
from sadp_bench.records.axes import weights_factor
from sadp_bench.records.record import Record
from sadp_bench.runs import resolve
from sadp_bench.sparsity.base import density, num_live, prunable
from sadp_bench.sparsity.random import Random
from sadp_bench.training.scoring_context import RunContext
from tests.small_runs import assert_same_weights, make_trainer, numbers, resolved, small_bench, weights_of
from tests.sparsity.helpers import TinyContext
from tests.stopping import SIZES, OneSecondABatch, Seconds, Stopped, resumed, saved, whole

TIME: dict[str, dict[str, Any]] = {
    "bptt": {},
    "sltt": {"backprop": "sltt"},
    "sltt-k": {"backprop": "sltt-k", "k": 1},
}
WEIGHTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "imp": {"sparsity": "imp", "density": 0.5},
    "eb": {"sparsity": "eb", "density": 0.3, "set": {"sparsity.window": 2, "sparsity.distance": 0.2}},
    "eb-early": {
        "sparsity": "eb",
        "density": 0.3,
        "early_time": True,
        "timesteps": 4,
        "set": {"sparsity.kl_examples": 50, "sparsity.kl_share": 1.0},
    },
    "pq": {"sparsity": "pq", "density": 0.4, "set": {"sparsity.every": 1}},
    "pq-fixed": {
        "sparsity": "pq",
        "density": 0.3,
        "set": {"sparsity.every": 1, "sparsity.adaptive": False, "sparsity.shrink": False},
    },
}
DATA: dict[str, dict[str, Any]] = {
    "full": {"method": "full", "ratio": 0.0},
    "random": {"method": "random", "ratio": 0.4},
    "sadp": {"method": "sadp", "ratio": 0.4},
}
MORE: dict[str, dict[str, Any]] = {
    "random": {"sparsity": "random", "density": 0.3},
    "eb-half": {"sparsity": "eb", "density": 0.3, "set": {"sparsity.search_ratio": 0.5, "sparsity.window": 2}},
    "eb-max": {
        "sparsity": "eb", "density": 0.3, "early_time": True,
        "set": {"sparsity.kl_examples": 50, "sparsity.early_rule": "max"},
    },
    "channels": {"sparsity": "channels", "density": 0.5, "set": {"sparsity.latest": 0.3}},  # cut after the first epoch
    "narrow": {"sparsity": "narrow", "density": 0.4},
}  # fmt: skip
LOCAL: dict[str, dict[str, Any]] = {"local": {"backprop": "local"}}
DATA_THAT_SCORES = {"el2n": {"method": "el2n", "ratio": 0.4}}
# Every two of the three axes together, and scores before a search.
PAIRS = [
    (time, weights, list(DATA)[(i + j) % len(DATA)])
    for (i, time), (j, weights) in itertools.product(enumerate(TIME), enumerate(WEIGHTS))
]
PAIRS += [("bptt", "imp", "el2n"), ("sltt", "random", "sadp"), ("bptt", "eb-half", "full")]
PAIRS += [("local", "pq", "sadp"), ("local", "eb", "random")]
PAIRS += [("bptt", "channels", "full"), ("sltt-k", "channels", "sadp"), ("local", "channels", "random")]
PAIRS += [("bptt", "narrow", "random"), ("sltt-k", "narrow", "sadp"), ("local", "narrow", "sadp")]


def requested(time: str, weights: str, data: str, **more: Any) -> tuple[Any, Any]:
    axes = (TIME | LOCAL)[time] | (WEIGHTS | MORE)[weights] | (DATA | DATA_THAT_SCORES)[data]
    return resolved(**SIZES | {"loss": "step"} | axes | more)


@pytest.mark.parametrize(("time", "weights", "data"), PAIRS, ids=["-".join(three) for three in PAIRS])
def test_every_pair_of_axes_resumes_after_a_stop_to_the_same_record(
    time: str, weights: str, data: str, tmp_path: Path
) -> None:
    spec, material = requested(time, weights, data)
    record, trained, num_batches = whole(spec, material)
    stop = num_batches - 2 if data == "random" else num_batches // 2  # in training; often in a search
    again, bench = resumed(spec, material, stop, tmp_path)
    assert numbers(again) == numbers(record)
    assert_same_weights(weights_of(bench.model), trained)
    assert bench.progress.count < num_batches  # type: ignore[attr-defined]  # what was done is not done again
    assert Record.from_json(record.to_json()) == record
    goal = (WEIGHTS | MORE)[weights].get("density", 1.0)
    total = sum(weight.numel() for weight in prunable(bench.resources.untrained).values())
    if weights in ("channels", "narrow"):
        assert record.density == sum(weight.numel() for weight in prunable(bench.model).values()) / total < 0.5
        assert sum(record.ticket["channels"].values()) == 14 or 0.3 < record.ticket["products_share"] <= goal
    else:
        assert round(record.density * total) == num_live(total, goal)
    for name, mask in bench.state.sparsity.masks.items():
        assert not bench.model.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("weights", ["imp", "eb", "eb-early", "eb-max"])
def test_a_search_is_charged_and_reported_apart(weights: str) -> None:
    spec, material = requested("bptt", weights, "random")
    record = make_trainer(spec, material).run()
    assert 0 < record.ticket["seconds"] <= record.seconds["prepare"]
    early = 50 if weights in ("eb-early", "eb-max") else 0
    assert record.ticket["visits"] == record.prepare_examples == 101 * record.ticket["search_epochs"] + early
    assert record.ticket["search_timesteps"] <= spec.timesteps


def test_a_search_on_pruned_data_is_charged_for_its_own_visits() -> None:
    record = make_trainer(*requested("bptt", "eb-half", "full")).run()
    epochs = record.ticket["search_epochs"]
    assert epochs >= 2 and record.ticket["visits"] == record.prepare_examples
    assert abs(record.ticket["visits"] - 101 * epochs / 2) <= 1 and record.examples_seen == 101 * 4
    subset = FreshSubset(0.5)
    subset.num_examples = 101
    first, second = (subset.select(epoch).index_K for epoch in (0, 1))  # 101 examples: the odd one goes to the first
    assert len(first.unique()) == len(first) == 51 and {*first.tolist()} != {*second.tolist()}


def test_random_masks_are_drawn_from_the_whole_network() -> None:
    model = nn.Sequential(nn.Conv2d(3, 40, 5), nn.Linear(200, 300))
    drawn = []
    for seed in (0, 0, 1):
        masks = Random(0.2)
        assert masks.prepare(TinyContext(seed=seed), model) == {"density": 0.2}
        assert masks.estimated_epochs(9) == 0 and not masks.searches
        drawn.append({name: mask.clone() for name, mask in masks.masks.items()})
    assert_same_weights(drawn[0], drawn[1])
    assert {name: mask.shape for name, mask in drawn[0].items()} == {n: w.shape for n, w in prunable(model).items()}
    # Each weight exists with probability 0.2: within 4 standard deviations in each layer, and in two draws with 0.04.
    for name, mask in drawn[0].items():
        for chance, share in ((0.2, mask.double().mean()), (0.04, (mask & drawn[2][name]).double().mean())):
            assert abs(float(share) - chance) < 4 * math.sqrt(chance * (1 - chance) / mask.numel()), name
    with pytest.raises(BadInput, match="random masks need a density below 1"):
        Random()
    with pytest.raises(BadInput, match="only imp and eb search"):
        Random(0.5, True)


def test_a_ticket_of_early_bird_starts_from_the_runs_own_weights() -> None:
    spec, material = requested("bptt", "eb", "full")
    bench, fresh = make_trainer(spec, material), make_trainer(spec, material)
    bench.prepare()
    assert_same_weights(weights_of(bench.model), weights_of(fresh.model))
    assert density(bench.state.sparsity.masks) == pytest.approx(0.3, abs=1e-3)


def test_dense_runs_have_no_hook_and_no_ticket() -> None:
    bench = small_bench()
    list(bench.rows())
    assert not bench.state.optimizer._optimizer_step_post_hooks and not bench.ticket


def test_sparse_connections_do_fewer_operations() -> None:
    dense = make_trainer(*requested("bptt", "dense", "full")).run()
    sparse = make_trainer(*requested("bptt", "pq-fixed", "full")).run()
    assert dense.operations["accumulates"] > 2 * sparse.operations["accumulates"] > 0
    assert dense.operations["energy_joules"] > 0 and sparse.density < dense.density == 1
    assert not any("live_products" in row for row in dense.epochs) and weights_factor(dense) == 1
    found = [sparse.operations["dense_products"] / row["live_products"] for row in sparse.epochs]
    assert 1 < weights_factor(sparse) == pytest.approx(len(found) / sum(1 / factor for factor in found))


def test_the_record_contains_the_shares_of_pq_and_the_density_that_they_lead_to() -> None:
    record = make_trainer(*requested("bptt", "pq", "full", set={"sparsity.every": 1, "sparsity.start": 0.8})).run()
    shares, totals = record.ticket["shares"], [row["live_products"] for row in record.epochs]
    assert {len(of_layer) for of_layer in shares.values()} == {3} and 0.05 < record.ticket["mean_share"] < 0.4
    assert totals == sorted(totals, reverse=True) and totals[-1] < 0.8 * totals[0], "fewer products with every epoch"
    assert record.density == record.ticket["density"] and record.ticket["reached"] is (record.density <= 0.4)
    lost = 1 - record.density / 0.8
    assert lost == pytest.approx(1 - (1 - record.ticket["mean_share"]) ** 3, abs=0.02)


def test_a_search_takes_event_frames_of_fewer_steps() -> None:
    """A network of T' steps takes the first T' frames."""
    from sadp_bench.runs.building import make_model

    spec, material = requested("bptt", "dense", "full", timesteps=4)
    model = make_model(spec, material, 0, timesteps=2).eval()
    frames = torch.rand(4, 3, 1, 8, 8)
    assert torch.equal(model(frames), model(frames[:2])) and len(model(frames)) == 2


def test_the_gate_requests_for_the_very_run() -> None:
    spec, _ = requested("sltt-k", "pq-fixed", "sadp")
    assert resolve.resolve(of_record(spec))[0] == spec


BAD = [
    ({"sparsity": "dense", "density": 0.5}, "dense keeps every weight"),
    ({"sparsity": "pq"}, "needs a density below 1"),
    ({"sparsity": "pq", "density": 0.5, "early_time": True}, "only imp and eb search"),
    ({"sparsity": "eb", "density": 1.5}, "density is above 0 and at most 1"),
    ({"sparsity": "ebb"}, "--sparsity is one of dense, imp, eb, pq"),
    ({"sparsity": "eb", "density": 0.5, "set": {"sparsity.windw": 3}}, "did you mean 'window'"),
    ({"early_time": 1}, "--early-time is true or false"),
    ({"density": "half"}, "--density is a number"),
]


def test_bad_sparsity_is_one_clear_line() -> None:
    for more, message in BAD:
        with pytest.raises(BadInput, match=message):
            resolved(**more)
            pytest.fail(f"{more} is not refused")


@pytest.mark.parametrize("weights", ["imp", "eb-early"])
def test_a_run_stopped_in_its_search_records_the_search_seconds_of_an_undisturbed_one(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring is not repeated on resuming: it would take much longer then."""
    spec, material = requested("bptt", weights, "el2n")
    seconds = Seconds(monkeypatch)
    undisturbed = make_trainer(spec, material, counted := OneSecondABatch(seconds)).run()
    before_search = 6  # batches of the scoring epoch
    survey = RunContext.survey

    def slow_survey(context: RunContext, *given: Any) -> Any:
        seconds.now += 1000
        return survey(context, *given)

    for stop in (before_search + 8, counted.count - 18):  # in the first epochs of the search, and in its last
        folder = tmp_path / str(stop)
        with pytest.raises(Stopped):
            saved(spec, material, folder, OneSecondABatch(seconds, stop)).run()
        with monkeypatch.context() as patch:
            patch.setattr(RunContext, "survey", slow_survey)
            record = saved(spec, material, folder, OneSecondABatch(seconds), starts=2).run()
        assert record.ticket["seconds"] == undisturbed.ticket["seconds"] > 0, stop
        assert numbers(record) == numbers(undisturbed), stop
