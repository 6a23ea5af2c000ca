"""Training loss against random sampling, the share of the possible, the gradient mass, and corrected verdicts."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics

import pytest

from sadp_bench.records.statistics import t_interval
from sadp_bench.reports import render
from sadp_bench.reports.contents import Contents
from tests.example_records import make_record, make_spec

# (method, ratio): fitted losses and accuracies of the seeds 0, 1 and 2, and the weight of each visit.
RUNS = {
    ("full", 0.0): ((0.10, 0.11, 0.09), (0.80, 0.81, 0.82), 1.0),
    ("random", 0.5): ((0.32, 0.30, 0.31), (0.74, 0.76, 0.75), 1.0),
    ("ceiling", 0.5): ((0.20, 0.21, 0.19), (0.79, 0.80, 0.80), 1.0),
    ("hwbs", 0.5): ((0.24, 0.27, 0.25), (0.76, 0.77, 0.785), 1.5),
}
RATE = 0.05  # mean learning rate


def made(method, ratio, seed, weight, accuracy, loss, whole=False):
    kept = 1000 if whole or method == "full" else 500
    row = {"kept": kept, "mean_weight": weight, "learning_rate": 0.0, "mean_learning_rate": RATE, "seconds": 1.0}
    more = {} if loss is None else {"fitted_loss": loss, "fitted_accuracy": 0.9, "fitted_examples": 1000}
    return make_record(
        make_spec(method, ratio, seed), accuracy, epochs=[{"epoch": e, **row} for e in range(10)], **more
    )


def records(losses=True):
    return [
        made(method, ratio, seed, weight, accuracy, loss if losses else None)
        for (method, ratio), (of_losses, accuracies, weight) in RUNS.items()
        for seed, (loss, accuracy) in enumerate(zip(of_losses, accuracies, strict=True))
    ]


def rows(found, **how):
    return {row.method: row for row in Contents(found, **how).rows}


def test_rows_equal_hand_worked_numbers():
    found = rows(records())
    logs = [math.log(a / b) for a, b in zip(RUNS["hwbs", 0.5][0], RUNS["random", 0.5][0], strict=True)]
    factor = found["hwbs"].loss_factor
    assert (factor.mean, factor.spread, factor.n) == (
        pytest.approx(math.exp(statistics.fmean(logs))), pytest.approx(statistics.stdev(logs)), 3,
    )  # fmt: skip
    assert (factor.low, factor.high) == pytest.approx(tuple(map(math.exp, t_interval(logs))))
    assert found["hwbs"].loss_share.mean == pytest.approx((0.93 - 0.76) / (0.93 - 0.60))
    assert found["hwbs"].accuracy_share.mean == pytest.approx(0.065 / 0.14)
    assert found["hwbs"].gradient_mass.mean == pytest.approx(0.75)  # half of the visits, of weight 1.5
    assert found["full"].gradient_mass.mean == 1 and found["ceiling"].loss_factor.n == 3
    for method in ("full", "random", "ceiling"):
        assert found[method].loss_share.n == found[method].accuracy_share.n == 0, method


def test_a_share_needs_a_decided_denominator_and_a_factor_needs_pairs():
    level = [made("ceiling", 0.5, seed, 1.0, 0.75, loss) for seed, loss in enumerate((0.30, 0.32, 0.31))]
    found = rows([run for run in records() if run.spec.method != "ceiling"] + level)
    assert found["hwbs"].loss_share.n == found["hwbs"].accuracy_share.n == 0
    assert found["hwbs"].loss_factor.n == 3
    other_seeds = [run for run in records() if run.spec.method != "random" or run.spec.seed == 0]
    assert rows(other_seeds)["hwbs"].loss_factor.n == 1 and rows(other_seeds)["hwbs"].loss_share.n == 0


def test_every_format_shows_outcomes_and_only_where_records_have_them():
    formats = ("text", "markdown", "latex", "html", "csv", "json")
    shown = {format: render(records(), [], format, correction="holm") for format in formats}
    assert max(map(len, shown["text"].splitlines())) <= 80
    assert "| hwbs 50 % | 0.2533 | 0.82 (3)<br>[" in shown["markdown"] and "0.75 |" in shown["markdown"]
    for format in ("text", "markdown", "latex", "html"):
        assert all(words in shown[format] for words in ("Training loss: digits", "Fieller", "Holm")), format
    columns = next(csv.DictReader(io.StringIO(shown["csv"])))
    assert float(columns["fitted_loss_mean"]) == pytest.approx(0.1) and columns["n_fitted"] == "3"
    [row] = [row for row in json.loads(shown["json"])["rows"] if row["method"] == "hwbs"]
    assert row["loss_factor_low"] < row["loss_factor_mean"] < row["loss_factor_high"]
    old = [make_record(run.spec, run.test_accuracy) for run in records()]
    for format in ("text", "markdown", "latex"):
        assert "Training loss" not in render(old, [], format), format


def test_the_smallest_decidable_difference_stands_beside_the_verdict():
    row = rows(records())["hwbs"]
    difference = row.accuracy_difference
    assert row.decidable_difference == pytest.approx((difference.high - difference.low) / 2)
    half = f"{100 * row.decidable_difference:.2f}"
    assert f"| {row.verdict}<br>{half} |" in render(records(), [], "markdown")
    assert json.loads(render(records(), [], "json"))["rows"][-1]["decidable_difference"] == row.decidable_difference


def test_holm_takes_back_verdicts_that_many_comparisons_would_give_by_chance():
    """The verdict stands for one comparison alone, and falls beside twenty comparisons that decide nothing."""

    def compared(method, ratio, values):
        return [made(method, ratio, seed, 1.0, value, None) for seed, value in enumerate(values)]

    full, worse = compared("full", 0.0, (0.80, 0.80, 0.80, 0.80)), (0.770, 0.775, 0.778, 0.783)
    noise = [compared(f"method-{i}", 0.5, (0.79, 0.80, 0.80, 0.786)) for i in range(20)]
    alone, among = full + compared("el2n", 0.5, worse), sum(noise, full + compared("el2n", 0.5, worse))
    assert rows(alone)["el2n"].verdict == rows(among)["el2n"].verdict == "worse"
    assert rows(alone)["el2n"].verdict_p is None
    one, many = (rows(found, correction="holm")["el2n"] for found in (alone, among))
    assert (one.verdict, many.verdict) == ("worse", "undecided")
    assert many.verdict_p == pytest.approx(min(1.0, 21 * one.verdict_p))
    shown = render(among, [], "text", correction="holm")
    assert "Holm's p" in shown and max(map(len, shown.splitlines())) <= 80
    assert "Holm" not in render(among, [], "text")
