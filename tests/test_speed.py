"""The interleaved measurement: what it returns. No test asserts a time."""

from __future__ import annotations

from typing import Any

import pytest
from small import SMALL

from sadp_bench import speed
from sadp_bench.errors import BadInput
from sadp_bench.progress import Progress

ASKED = {name: value for name, value in SMALL.items() if name not in ("method", "ratio", "epochs")}
ASKED["set"] = {"backbone.width": 4}


def test_it_gives_a_row_for_every_method_and_ratio_and_the_noise_floor() -> None:
    told = speed.measure(ASKED, ["random", "el2n"], [0.5, 0.25], 2, None, Progress())
    assert [(row["method"], row["ratio"]) for row in told["rows"]] == [
        ("random", 0.5),
        ("random", 0.25),
        ("el2n", 0.5),
        ("el2n", 0.25),
    ]
    for row in told["rows"]:
        assert set(row) == {
            *("method", "ratio", "speedup", "speedup_spread", "nominal_maximum", "ceiling"),
            *("efficiency", "efficiency_spread", "rounds"),
        }
        kept = {0.5: [65, 65], 0.25: [97, 98]}[row["ratio"]]  # of 130, in the two rounds that count
        assert row["ceiling"] == pytest.approx(sum(130 / k for k in kept) / 2)
        assert row["nominal_maximum"] == pytest.approx(1 / (1 - row["ratio"]))
        assert row["rounds"] == 2 and row["speedup"] > 0 and row["speedup_spread"] >= 0
    assert set(told["noise_floor"]) == {"median", "spread", "what"}
    rest = {name: value for name, value in told.items() if name not in ("rows", "noise_floor")}
    assert rest == {
        **{"rounds": 2, "dataset": "digits", "backbone": "cnn", "train_examples": 130, "batch_size": 50},
        **{"threads": 1, "device": "cpu"},
    }


def test_speed_ups_are_paired_by_round_and_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[str, int]] = []
    durations = {"full": [90.0, 4.0, 9.0, 8.0], "random": [1.0, 2.0, 3.0, 8.0]}

    def step(arm: Any) -> None:
        row = next(arm.epochs)
        name = arm.bench.spec.method
        arm.seconds.append(durations[name][row["epoch"]])
        arm.kept.append(row["kept"])
        turns.append((name, row["epoch"]))

    monkeypatch.setattr(speed.Arm, "step", step)
    told = speed.measure(ASKED, ["random"], [0.5], 3, None, Progress())
    (row,) = told["rows"]
    assert row["speedup"] == 2.0  # the median of 4/2, 9/3, 8/8
    assert row["speedup_spread"] == 0.5  # half of 2.5 - 1.5
    assert row["efficiency"] == pytest.approx(1.0)
    assert told["noise_floor"]["median"] == 1.0 and told["noise_floor"]["spread"] == 0.0
    assert turns == [
        *[("full", 0), ("full", 0), ("random", 0)],
        *[("random", 1), ("full", 1), ("full", 1)],
        *[("full", 2), ("full", 2), ("random", 2)],
        *[("random", 3), ("full", 3), ("full", 3)],
    ]


def test_fewer_than_two_rounds_are_refused() -> None:
    with pytest.raises(BadInput, match="--rounds is at least 2, not 1"):
        speed.measure(ASKED, ["random"], [0.5], 1, None, Progress())
