"""The study of scores: its numbers against simulation and by hand, and that the run it studies is the run without it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import stream
from sadp_bench.core.text import compact
from sadp_bench.measure import score_cost, study_file
from sadp_bench.measure.score_collectors import COLLECTED_SCORES, Collector, exact_norms, recalibrated
from sadp_bench.measure.study import Study, stops
from sadp_bench.measure.study_numbers import OPTIMUM_SMOOTHING, SMOOTHING, batch_gain, compared, draw_variance, finite
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.sadp import SADP
from sadp_bench.pruners.sampling import inclusion_probability, smooth, systematic_sample
from sadp_bench.reports.plots.study import apart
from sadp_bench.training.step import TrainingStep
from tests.small_runs import SMALL, make_trainer, resolved, small_bench, weights_of

ASKED: dict[str, Any] = {name: value for name, value in SMALL.items() if name not in ("method", "ratio")}
ASKED["set"] = {"backbone.width": 4}


def small_study(at: str = "1,2", examples: int = 60, **requested: Any) -> Study:
    requested["set"] = {**ASKED["set"], **requested.get("set", {})}
    return Study({**ASKED, **requested}, at, examples, None, Progress())


@pytest.fixture(scope="module")
def whole() -> tuple[Study, dict[str, Any]]:
    """Returns a study of an augmented run of eight epochs, which has every age."""
    made = small_study("1,2,3,8", epochs=8, augment="crop")
    return made, made.measure()


# Numbers


def test_the_variance_by_hand() -> None:
    norm_n = torch.tensor([3.0, 1.0]).double()
    assert draw_variance(norm_n, torch.ones(2), 0.5, 0.02) == pytest.approx(9 + 1)
    assert draw_variance(norm_n, norm_n, 0.5, 1e-12) == pytest.approx(9 / 3 + 1 * 3)  # pi = 3/4 and 1/4
    assert draw_variance(norm_n, norm_n, 0.5, 0.5) == pytest.approx(9 * (8 / 5 - 1) + 1 * (8 / 3 - 1))  # pi = 5/8, 3/8
    assert draw_variance(norm_n, torch.tensor([1.0, 3.0]), 0.5, 1e-12) == pytest.approx(9 * 3 + 1 / 3)


def test_the_variance_is_that_of_simulated_poisson_sampling() -> None:
    generator = torch.Generator().manual_seed(1)
    gradient_nD = torch.randn(20, 7, generator=generator, dtype=torch.float64).exp()
    score_n = torch.rand(20, generator=generator, dtype=torch.float64)
    uniform_Rn = torch.rand(200_000, 20, generator=generator, dtype=torch.float64)
    for keep in study_file.KEEPS:
        p_n = inclusion_probability(smooth(score_n, 0.02), round(keep * 20))
        variance = (((uniform_Rn < p_n).double() / p_n) @ gradient_nD).var(0).sum()
        found = draw_variance(gradient_nD.norm(dim=1), score_n, keep, 0.02)
        assert found == pytest.approx(float(variance), rel=0.02), keep


@given(st.lists(st.floats(0.01, 100), min_size=10, max_size=30), st.integers(0, 2**32))
def test_uniform_is_1_over_uniform_the_exact_norm_1_over_the_optimum_and_nothing_is_below(
    norms: list[float], seed: int
) -> None:
    norm_n = torch.tensor(norms).double()
    uniform, exact = compared(norm_n, torch.ones_like(norm_n)), compared(norm_n, norm_n, OPTIMUM_SMOOTHING)
    other = compared(norm_n, torch.rand(len(norms), generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    for keep in ("0.7", "0.5", "0.3"):
        assert uniform["over_uniform"][keep] == 1 and exact["over_optimum"][keep] in (1, None)
        most, optimum = len(norms) / max(1, round(float(keep) * len(norms))), exact["tau"][keep]
        assert uniform["tau"][keep] == pytest.approx(1) and optimum <= most * (1 + 1e-9)
        assert 0 < other["tau"][keep] <= optimum * (1 + 1e-4)
        for cell in (uniform, other):
            assert cell["over_optimum"][keep] is None or cell["over_optimum"][keep] >= 1 - 1e-4


def test_tau_by_hand() -> None:
    norm_n = torch.tensor([3.0, 1.0]).double()
    for score, smoothing, tau in (
        ([1.0, 1.0], 0.02, 1.0),
        ([3.0, 1.0], 1e-12, 20 / 16),  # pi = 3/4 and 1/4: 2 (9 + 1) over 9 / (3/4) + 1 / (1/4)
        ([3.0, 1.0], 0.5, 20 / (9 * 8 / 5 + 8 / 3)),  # pi = 5/8 and 3/8
        ([1.0, 3.0], 1e-12, 20 / (9 * 4 + 4 / 3)),
    ):
        assert batch_gain(norm_n, torch.tensor(score), 0.5, smoothing) == pytest.approx(tau), (score, smoothing)
    assert batch_gain(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]), 0.5, 1e-9) == pytest.approx(
        2
    )  # N / K, the most


def test_tau_is_the_batch_by_which_a_simulated_update_has_less_noise() -> None:
    """Batches of B out of K systematically drawn, shuffled; examples' gradients are random signs, so products vanish."""
    generator = torch.Generator().manual_seed(3)
    norm_n, size, kept, moments = torch.rand(40, generator=generator).double() ** 3, 4, 20, []
    for score_n in (torch.ones_like(norm_n), norm_n):
        p_n, total = inclusion_probability(smooth(score_n, SMOOTHING), kept), 0.0
        for _ in range(800):
            drawn_K = systematic_sample(p_n, generator)[torch.randperm(kept, generator=generator)]
            sign_K = torch.randint(0, 2, (kept,), generator=generator) * 2 - 1
            weighted_K = sign_K * norm_n[drawn_K] * kept / (40 * p_n[drawn_K])
            total += float(weighted_K.view(-1, size).mean(1).square().sum())
        moments.append(total)
    assert batch_gain(norm_n, norm_n, 0.5, SMOOTHING) == pytest.approx(moments[0] / moments[1], rel=0.1)


def test_correlations_by_hand() -> None:
    cell = compared(torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), torch.tensor([1.0, 4.0, 9.0, 160.0]).double())
    assert cell["spearman"] == 1 and 0 < cell["pearson"] < 0.9
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 (0 + 1 + 1 + 0) / (4 (16 - 1))
    assert compared(torch.arange(4.0), torch.tensor([0.0, 2.0, 1.0, 3.0]))["spearman"] == pytest.approx(0.8)


NOTHING = dict.fromkeys(("0.7", "0.5", "0.3"))


def test_what_is_no_number_is_none() -> None:
    norm_n, zero_n = torch.arange(1.0, 11).double(), torch.zeros(10).double()
    constant = compared(norm_n, zero_n)  # has no information, so it draws uniformly
    assert constant["spearman"] is None and constant["pearson"] is None and constant["over_uniform"]["0.5"] == 1
    for bad in (math.nan, math.inf):
        cell = compared(norm_n, torch.full((10,), bad).double())
        numbers = dict.fromkeys(("over_uniform", "over_optimum", "tau"), NOTHING)
        assert cell == {"spearman": None, "pearson": None, **numbers}
    assert all(compared(zero_n, norm_n)[name] == NOTHING for name in numbers)
    few_n = torch.cat([torch.ones(2), torch.zeros(8)]).double()  # the optimum has no variance
    assert compared(few_n, norm_n)["over_optimum"] == NOTHING
    assert compared(torch.full((10,), math.nan), norm_n)["over_uniform"] == NOTHING
    assert finite({"a": [math.nan, 1.5, (math.inf,)], "b": "nan"}) == {"a": [None, 1.5, [None]], "b": "nan"}


def test_numbers_fit_their_columns() -> None:
    shown = {1.0: "1.000", -0.1619: "-0.162", 12.345: "12.35", 123.45: "123.5", 4321.0: "4321", 123456.0: "1e+05"}
    assert {value: compact(value) for value in shown} == shown and compact(None) == "–"


def test_stops_are_epochs_in_order() -> None:
    assert stops("1, 5,10", 10) == [1, 5, 10] and stops(None, 20) == [1, 5, 10, 20] and stops(None, 1) == [1]


def test_labels_stand_apart_near_where_they_belong() -> None:
    assert apart([0.1, 0.5, 0.9], 0.06) == [0.1, 0.5, 0.9]
    assert apart([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    assert apart([0.01, 0.02, 0.03], 0.1) == pytest.approx([0, 0.1, 0.2])
    places = apart([0.2, 0.21, 0.24, 0.8, 0.81], 0.05)
    assert all(b - a >= 0.05 - 1e-9 for a, b in zip(places, places[1:], strict=False))


# The run and its sources


def test_the_studied_run_is_the_run_that_nobody_studies(whole: tuple[Study, dict[str, Any]]) -> None:
    plain = make_trainer(*resolved(epochs=8, augment="crop"))
    plain.pruner.prepare(plain.context)
    losses = [row["train_loss"] for row in plain.rows()]
    made, found = whole
    assert [row["train_loss"] for row in found["rows"]] == losses
    ended, expected = weights_of(made.model), weights_of(plain.model)
    assert all(torch.equal(ended[name], expected[name]) for name in expected)


def test_age_0_is_what_sadp_collects_where_it_keeps_everything(whole: tuple[Study, dict[str, Any]]) -> None:
    made, found = whole
    at = {stop["epoch"]: stop["examples"] for stop in found["stops"]}
    for name, options in {
        "readout": {"score": "readout", "memory": 0.0},
        "layers": {"memory": 0.0},
        "spikes": {"score": "spikes", "memory": 0.0},
        "sadp": {},
    }.items():
        bench = small_bench(SADP(0.0, **options), epochs=8, augment="crop")
        method: Any = bench.pruner
        for row in bench.rows():
            if row["epoch"] + 1 in at:
                expected = method.score_sq_N[made.index_n].double().sqrt().tolist()
                assert at[row["epoch"] + 1][name]["age 0"] == expected, name


def test_loss_and_el2n_of_age_0_are_those_of_the_epochs_steps(whole: tuple[Study, dict[str, Any]]) -> None:
    made, found = whole
    seen: dict[int, tuple[float, float]] = {}

    class Watch(SADP):
        def observe(self, seen_now: Any) -> None:
            p_BC = torch.softmax(seen_now.logits_TBC.mean(0), 1)
            for index, label, p_C in zip(seen_now.index_B.tolist(), seen_now.label_B.tolist(), p_BC, strict=True):
                target_C = torch.zeros(10).index_fill(0, torch.tensor(label), 1.0)
                seen[index] = float(-p_C[label].log()), float((p_C - target_C).norm())

    for _ in small_bench(Watch(0.0, score="readout"), epochs=8, augment="crop").rows():
        pass
    last = found["stops"][-1]["examples"]
    for place, index in enumerate(made.index_n.tolist()):
        assert last["loss"]["age 0"][place] == pytest.approx(seen[index][0], rel=1e-4, abs=1e-5)
        assert last["el2n"]["age 0"][place] == pytest.approx(seen[index][1], rel=1e-4, abs=1e-5)


PRUNED: dict[str, dict[str, Any]] = {
    "sadp": {"ratio": 0.5, "set": {"smoothing": 0.1, "memory": 0.5}},
    "el2n": {"ratio": 0.5, "set": {"score_epochs": 1}},
    "divbs": {"ratio": 0.4},
    "fewer-epochs": {"ratio": 0.5},
    "ceiling": {"ratio": 0.5},  # its epochs have updates of other sizes
}
BEFORE_TRAINING = {"with_budget", "check", "check_updates", "scoring_epochs", "scoring_updates"}  # of the method itself
OF_ONE_PRUNER = {
    "num_kept",
    "share_kept",
    "fewest_kept",
    "generator",
    "per_example",
    "state_dict",
    "load_state_dict",
}  # of pruners, or for records


def test_a_collector_forwards_all_that_the_loop_calls_of_a_method() -> None:
    public = {name for name, value in vars(Pruner).items() if callable(value) and not name.startswith("_")}
    assert public - BEFORE_TRAINING - OF_ONE_PRUNER <= set(vars(Collector))


def test_a_study_under_pruning_is_of_the_run_that_nobody_studies_and_of_its_scores(
    whole: tuple[Study, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_cost, "measure_cost", lambda *_: whole[1]["cost"])  # takes longer than all the rest
    for method, asked in PRUNED.items():
        settings = {"epochs": 3, **asked, "set": {**ASKED["set"], **asked.get("set", {})}}
        at = "1" if method == "fewer-epochs" else "1,3"  # half of three epochs are one and a half
        made = small_study(at, method=method, **settings)
        found = made.measure()
        plain = make_trainer(*resolved(method=method, **settings))
        plain.prepare()
        rows = [row for row, _ in zip(plain.rows(), range(made.at[-1]), strict=False)]
        for name in ("train_loss", "kept", "mean_weight"):
            assert [row[name] for row in found["rows"]] == [row[name] for row in rows], (method, name)
        seen_N = plain.state.visits_N > 0
        unseen = 1 - float(seen_N[made.index_n].double().mean())
        last = found["stops"][-1]
        assert last["unseen"] == pytest.approx(unseen), method
        assert (unseen > 0) == (method in ("sadp", "el2n", "divbs")), method
        values, seen_n = torch.tensor(last["examples"]["sadp"]["age 0"], dtype=torch.float64), seen_N[made.index_n]
        if method == "sadp":  # what it drew with, and by its own settings
            method_of_run: Any = plain.pruner
            assert found["sadp_smoothing"] == 0.1
            score_N = method_of_run.score_sq_N.double().sqrt()
            assert values[seen_n].equal(score_N[made.index_n][seen_n])
            assert values[~seen_n].numpy() == pytest.approx(float(score_N.nanmean()))
        if method == "el2n":  # the mean stands for examples without a visit
            assert values[~seen_n].unique().numel() == 1
        path = study_file.write(tmp_path, found)
        assert study_file.read_study(path) == json.loads(json.dumps(found)) and f"cnn-{method}-r0." in path.name
    with pytest.raises(BadInput, match="from 1 to the run's 2 and once"):  # known once the method is prepared
        small_study("1,3", method="fewer-epochs", ratio=0.5, epochs=3).measure()


def test_ages_are_counted_back_from_the_epoch_that_has_ended() -> None:
    made = small_study("2,7", epochs=7)
    collector = Collector(made.index_n)
    collector.prepare(made.trainer.context)
    for epoch in range(7):
        collector.values = lambda epoch=epoch: {"loss": torch.tensor([float(epoch)])}  # type: ignore[method-assign]
        collector.keep(epoch)
    assert list(collector.by_epoch) == [1, 2, 3, 4, 5, 6]
    made.truth = {1: torch.tensor([21.0]), 6: torch.tensor([26.0])}
    assert {source: {k: v.tolist() for k, v in of.items()} for source, of in made._aged(6, collector).items()} == {
        "age 0": {"loss": [6.0]},
        "age 1": {"loss": [5.0]},
        "age 2": {"loss": [4.0]},
        "age 5": {"loss": [1.0], "exact": [21.0]},
    }


def test_what_a_study_holds(whole: tuple[Study, dict[str, Any]]) -> None:
    made, found = whole
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [stop["epoch"] for stop in found["stops"]] == found["at"] == [1, 2, 3, 8]
    assert sorted(set(found["index"])) == sorted(found["index"]) and len(found["index"]) == 60 == found["examples"]
    first, _, third, last = (stop["scores"] for stop in found["stops"])
    sources = {"frozen", "training", "age 0"}
    assert set(first) == {"uniform", "exact", study_file.OWN, *COLLECTED_SCORES} == set(study_file.LABELS)
    assert all(set(first[name]) == sources for name in (*COLLECTED_SCORES, "uniform")) and set(first["exact"]) == {
        "frozen"
    }
    assert all(set(last[name]) == {*sources, "age 1", "age 2", "age 5"} for name in COLLECTED_SCORES)
    assert set(third["exact"]) == {"frozen", "age 1", "age 2"} and set(last["exact"]) == {"frozen", "age 5"}
    for stop in found["stops"]:
        assert set(stop["scores"]["exact"]["frozen"]["over_optimum"].values()) == {1}
        assert set(stop["scores"]["uniform"]["age 0"]["over_uniform"].values()) == {1} and stop["unseen"] == 0
        assert stop["optimum_tau"]["now"] == stop["scores"]["exact"]["frozen"]["tau"]
        coming, score = (
            torch.tensor(stop["examples"][name][at], dtype=torch.float64)
            for name, at in (("exact", "coming"), ("sadp", "age 0"))
        )
        for name, smoothing in (("sadp", SMOOTHING), (study_file.OWN, 0.2)):
            assert stop["scores"][name]["age 0"] == compared(coming, score, smoothing), name
        assert stop["lag"]["spearman"] is not None and stop["spikes_cv"] > 0
        assert all(len(values) == 3 for values in (stop["input_squares_cv"], *stop["bound_ratio"].values()))
        assert all(k > 0 for k in stop["bound_ratio"]["frozen"])
        norms = torch.tensor(stop["examples"]["exact"]["frozen"], dtype=torch.float64)
        scores = torch.tensor(stop["examples"]["plain"]["frozen"], dtype=torch.float64)
        assert stop["scores"]["plain"]["frozen"] == compared(norms, scores)
    assert made.trainer.state.rows == found["rows"] and found["layers"] == ["stem.0", "body.1", "body.4"]


def test_truth_and_frozen_scores_have_the_recalibrated_statistics_and_the_lag_the_running_ones(
    whole: tuple[Study, dict[str, Any]],
) -> None:
    made, found = whole  # the network is now as it was at the last stop
    bench, last, index_n = made.trainer, found["stops"][-1], made.index_n
    method = SADP(0.0, score="readout")
    method.prepare(bench.context)
    with recalibrated(bench.model, bench.data, made._statistics_batches(7)):
        norm_n = exact_norms(bench.model, bench.data, made.spec, index_n, Progress())
        step = TrainingStep(bench.model, made.spec, bench.data)
        with step.recording(method.watch(0)):
            for index_B in index_n.split(50):
                step(index_B, torch.ones(len(index_B)), stream(0, "steps"), observe=method.observe)
    assert norm_n.tolist() == last["examples"]["exact"]["frozen"]
    readout_n = torch.tensor(last["examples"]["readout"]["frozen"]).float()
    torch.testing.assert_close(readout_n, method.score_sq_N[index_n].sqrt(), rtol=1e-4, atol=1e-5)
    lagging_n = exact_norms(bench.model, bench.data, made.spec, index_n, Progress())
    assert last["lag"] == compared(norm_n, lagging_n) and not torch.allclose(lagging_n, norm_n)


def test_the_last_batch_in_training_mode_is_filled_with_others() -> None:
    made = small_study(examples=60)
    batches = made._filled_batches(0)
    assert [len(batch) for batch in batches] == [50, 50]
    joined = torch.cat(batches)
    assert torch.equal(joined[:60], made.index_n) and len(joined.unique()) == 100
    assert [len(batch) for batch in small_study(examples=120)._filled_batches(0)] == [50, 50, 30]  # there are 130


def test_other_settings() -> None:
    for requested in ({"set": {"backbone.norm": "none"}, "precision": "fp64"}, {"precision": "bf16", "loss": "step"}):
        found = small_study("1", 20, epochs=1, optimizer="adamw", **requested).measure()
        (stop,) = found["stops"]
        assert (stop["lag"] is None) == ("set" in requested)
        cells = [cell for sources in stop["scores"].values() for cell in sources.values()]
        assert all(cell["over_uniform"]["0.5"] is not None for cell in cells)
