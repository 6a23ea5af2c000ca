"""The interleaved measurement: its pairs, its end and its results. No test asserts a time."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.measure import speed
from sadp_bench.measure.speed import median_interval
from sadp_bench.reports.plots.speed import draw_speed, efficiency_figure
from tests.commands import Answer, command
from tests.reports.plots.helpers import bars_of
from tests.small_runs import SMALL

ASKED = {name: value for name, value in SMALL.items() if name not in ("method", "ratio", "epochs")}
ASKED["set"] = {"backbone.width": 4}


def measure(methods: list[str], ratios: list[float], rounds: int, **limits: float) -> dict[str, Any]:
    return speed.measure_speed(ASKED, methods, ratios, rounds, None, Progress(), **limits)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The turns taken; a turn's seconds are its place among all of them, so that every pairing shows in the figures."""
    taken: list[tuple[str, float]] = []

    def step(arm: Any) -> tuple[float, int]:
        row = next(arm.epochs)
        taken.append((arm.trainer.spec.method, arm.trainer.spec.ratio))
        return float(len(taken)), row["kept"]

    monkeypatch.setattr(speed.Arm, "step", step)
    return taken


def test_it_gives_a_row_for_every_method_and_ratio_and_the_noise_floor() -> None:
    result = measure(["random", "el2n"], [0.5, 0.25], 2)
    assert [(row["method"], row["ratio"]) for row in result["rows"]] == [
        ("random", 0.5),
        ("random", 0.25),
        ("el2n", 0.5),
        ("el2n", 0.25),
    ]
    for row in result["rows"]:
        assert set(row) == {
            *("method", "ratio", "speedup", "nominal_maximum", "ceiling", "rounds"),
            *("efficiency", "efficiency_spread", "efficiency_low", "efficiency_high"),
        }
        kept = {0.5: [65, 65], 0.25: [97, 98]}[row["ratio"]]  # of 130, in the two rounds that count
        assert row["ceiling"] == pytest.approx(2 * 130 / sum(kept))
        assert row["nominal_maximum"] == pytest.approx(1 / (1 - row["ratio"]))
        assert row["speedup"] == pytest.approx(row["efficiency"] * row["ceiling"])
        assert row["rounds"] == 2 and row["speedup"] > 0 and row["efficiency_spread"] >= 0
        assert row["efficiency_low"] is row["efficiency_high"] is None, "two rounds enclose nothing with 95 %"
    assert set(result["noise_floor"]) == {"median", "spread", "low", "high", "what"}
    rest = {name: value for name, value in result.items() if name not in ("rows", "noise_floor")}
    assert rest == {
        **{"rounds": 2, "dataset": "digits", "backbone": "cnn", "train_examples": 130, "batch_size": 50},
        **{"threads": 1, "device": "cpu", "precision": rest["precision"], "environment": rest["environment"]},
    }
    assert {"kernel", "torch", "processor", "load_average_start", "load_average_end"} <= set(rest["environment"])


def test_all_arms_read_one_copy_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Any] = []
    step = speed.Arm.step
    monkeypatch.setattr(speed.Arm, "step", lambda arm: (copies.append(arm.trainer.data), step(arm))[1])
    measure(["random", "el2n"], [0.5], 2)
    assert len(copies) > 12 and all(copy is copies[0] for copy in copies)


def test_two_arms_stand_between_two_epochs_of_full_data_in_an_order_that_turns_around(turns: list[Any]) -> None:
    measure(["random"], [0.5, 0.25], 2)
    full, half, quarter = ("full", 0.0), ("random", 0.5), ("random", 0.25)
    there = [full, full, half, full, quarter, full]  # A, the A/A arm and B, A, C, A
    back = [full, quarter, half, full, full, full]
    assert turns == [*there, *back, *there]


def test_each_arm_is_paired_with_the_full_data_around_it_and_the_first_round_does_not_count(turns: list[Any]) -> None:
    result = measure(["random"], [0.5], 2)
    # Turns 1 to 4 are the warm-up; then A 5, B 6, A/A 7, A 8; and A 9, A/A 10, B 11, A 12.
    ratios = [6.5 / 6, 10.5 / 11]
    (row,) = result["rows"]
    assert row["efficiency"] == pytest.approx(sum(ratios) / 2 * 65 / 130)
    assert result["noise_floor"]["median"] == pytest.approx((6.5 / 7 + 10.5 / 10) / 2)


def test_it_stops_when_every_interval_is_narrow_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed.Arm, "step", lambda arm: (1.0, next(arm.epochs)["kept"]))
    assert measure(["random"], [0.5], 17, half_width=0.01)["rounds"] == 15, "the fewest that may stop it"
    noisy = itertools.cycle([1.0, 2.0, 1.0, 0.5, 3.0])
    monkeypatch.setattr(speed.Arm, "step", lambda arm: (next(noisy), next(arm.epochs)["kept"]))
    assert measure(["random"], [0.5], 17, half_width=0.01)["rounds"] == 17


def test_it_stops_when_the_time_is_up(turns: list[Any]) -> None:
    assert measure(["random"], [0.5], 9, seconds=1e-9)["rounds"] == 2, "two rounds at least, the fewest allowed"


def test_the_interval_encloses_the_median_with_95_percent_and_one_step_narrower_would_not() -> None:
    def confidence(n: int, low: int, high: int) -> float:
        """Returns the chance that the median lies between the low-th and the high-th smallest of n values, from 1."""
        return sum(math.comb(n, below) for below in range(low, high)) / 2**n

    for n in range(1, 40):
        interval = median_interval([float(i) for i in range(1, n + 1)])
        if interval is None:
            assert confidence(n, 1, n) < 0.95
        else:
            low, high = map(int, interval)
            assert low + high == n + 1
            assert confidence(n, low, high) >= 0.95 > confidence(n, low + 1, high - 1)


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=50))
def test_the_interval_holds_the_median_and_lies_within_the_values(values: list[float]) -> None:
    low, high = median_interval(values) or (math.nan, math.nan)
    assert min(values) <= low <= sorted(values)[len(values) // 2] <= high <= max(values)


def test_limits_out_of_range_are_refused() -> None:
    for limits, expected in (
        ({"rounds": 1}, "--rounds is at least 2, not 1"),
        ({"rounds": 2, "half_width": -0.1}, "--half-width is at least 0, not -0.1"),
        ({"rounds": 2, "half_width": math.nan}, "--half-width is at least 0, not nan"),
        ({"rounds": 2, "seconds": 0.0}, "--minutes is above 0, not 0"),
    ):
        with pytest.raises(BadInput, match=expected):
            measure(["random"], [0.5], **limits)


def test_the_plot_shows_the_measured_efficiencies_and_the_noise_floor(tmp_path: Path) -> None:
    result = measure(["random", "el2n"], [0.5, 0.25], 2)
    for row, low in zip(result["rows"], (0.9, 0.8, 0.95, 0.7), strict=True):
        row |= {"efficiency": low + 0.05, "efficiency_low": low, "efficiency_high": low + 0.1}
    result["noise_floor"] |= {"low": 0.98, "high": 1.01}
    (axes,) = efficiency_figure(result).axes
    medians = [list(line.get_xdata()) for line in axes.lines if line.get_marker() != "None"]
    assert medians == [[row["efficiency"]] for row in result["rows"]]
    assert [[x for x, _ in bar] for bar in bars_of(axes)] == [
        [row["efficiency_low"], row["efficiency_high"]] for row in result["rows"]
    ]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        *("Random 50 %", "Random 25 %", "EL2N 50 %", "EL2N 25 %")
    ]
    drawn = draw_speed(result, tmp_path)
    assert {path.suffix for path in drawn} == {".pdf", ".png", ".svg"} and all(path.stat().st_size for path in drawn)


def speed_command(*words: Any) -> Answer:
    return command("speed", "--rounds", "2", "--train-examples", "256", "--threads", "1", *words)


def test_speed_measures_in_the_promised_form(tmp_path: Path) -> None:
    answer = speed_command(
        "--methods", "random,infobatch", "--ratios", "0.25,0.5", "--set", "backbone.width=4", "--json"
    )
    assert answer.code == 0 and answer.out.count("\n") == 1
    found = json.loads(answer.out)
    assert [(row["method"], row["ratio"]) for row in found["rows"]] == [
        (method, ratio) for method in ("random", "infobatch") for ratio in (0.25, 0.5)
    ]
    for row in found["rows"]:
        assert row["speedup"] > 0 and row["efficiency"] > 0 and row["ceiling"] > 1
    assert found["noise_floor"]["median"] > 0


def test_speed_takes_a_methods_settings_and_prints_a_table() -> None:
    answer = speed_command("--methods", "sadp", "--ratios", "0.5", "--set", "backbone.width=4")
    assert answer.code == 0, answer.err
    assert re.search(r"sadp +0\.5 +\d+\.\d{3} x +2\.000 x +\d+\.\d{3} *\n", answer.out)
    assert "noise floor: full data against itself" in answer.out


def test_epochs_are_of_so_many_examples_that_enough_rounds_fit_into_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed.Arm, "step", lambda arm: (1.0, next(arm.epochs)["kept"]))
    requested = {**ASKED, "train_examples": None, "batch_size": 32}
    for per_visit, expected in ((1e-9, 1437), (1e-3, 600), (1.0, 320)):
        monkeypatch.setattr(speed, "rehearse", lambda *_, seconds=per_visit: seconds)
        messages: list[str] = []
        progress = Progress()
        monkeypatch.setattr(progress, "message", messages.append)
        # A round: two epochs of full data, the A/A arm and half an epoch; 16 rounds of 600 examples, 1 ms a visit.
        found = speed.measure_speed(requested, ["random"], [0.5], 2, None, progress, seconds=600 * 3.5 * 16 * 1e-3)
        assert found["train_examples"] == expected
        assert len(messages) == (expected < 1437)
