"""The learning rate's clock: the share of epochs done, or the share of planned visits done."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import Pruner
from sadp_bench.records.spec import Spec
from sadp_bench.training import loop
from sadp_bench.training.optimizer import learning_rate, share_done
from tests.helpers import Updates, bench
from tests.small_runs import resolved

Step = tuple[float, float, float, int]  # both shares of the run, the rate, and the size of a batch
SIZES = {"train_examples": 120, "batch_size": 10, "epochs": 5, "timesteps": 1, "lr_clock": "visits"}
# Methods with every kind of schedule, and their settings. CONSTANT: every epoch has equally many visits.
CONSTANT: dict[str, dict[str, Any]] = {
    "full": {"ratio": 0.0},
    "random": {"ratio": 0.5},
    "fewer-epochs": {"ratio": 0.5},
    "divbs": {"ratio": 0.5},
    "random, equal updates": {"ratio": 0.5, "protocol": "updates"},
    "sadp": {"ratio": 0.5},
}
CHANGING: dict[str, dict[str, Any]] = {
    "sadp, falling": {"ratio": 0.5, "budget": "falling"},
    "sadp, rising": {"ratio": 0.5, "budget": "rising"},
    "infobatch": {"ratio": 0.5, "set": {"delta": 0.6}},
    "kakurenbo": {"ratio": 0.4},
}


def steps_of(name: str, monkeypatch: pytest.MonkeyPatch, ratio: float, **settings: Any) -> list[Step]:
    """Trains a small run by the clock of visits, and returns one step a batch."""
    shares: list[tuple[float, float]] = []
    steps: list[Step] = []

    class Noted(Updates):
        def advance(self, visits: int) -> None:
            steps.append((*shares[-1], made.state.optimizer.param_groups[0]["lr"], visits))

    def noted(spec: Spec, of_epochs: float, of_visits: float) -> float:
        shares.append((of_epochs, of_visits))
        return share_done(spec, of_epochs, of_visits)

    monkeypatch.setattr(loop, "share_done", noted)
    made = bench(name.partition(",")[0], ratio, Noted(), **SIZES | settings)
    made.prepare()
    list(made.rows())
    for of_epochs, of_visits, rate, _ in steps:
        assert rate == learning_rate(made.spec, min(of_visits, 1.0))
        by_epochs = dataclasses.replace(made.spec, lr_clock="epochs")
        assert share_done(by_epochs, of_epochs, of_visits) == of_epochs
    return steps


def mean_rate(steps: list[Step], share: int) -> float:
    """Returns the mean over visits of the cosine's rate by one of the two shares. The highest rate is 1."""
    return sum((1 + math.cos(math.pi * min(step[share], 1))) / 2 * step[-1] for step in steps) / sum(
        s[-1] for s in steps
    )


def test_both_clocks_agree_where_every_epoch_has_as_many_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in CONSTANT.items():
        for of_epochs, of_visits, *_ in steps_of(name, monkeypatch, **settings):
            assert of_visits == pytest.approx(of_epochs, abs=0.01), name


def test_any_schedule_meets_the_same_sum_of_rates_by_the_clock_of_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    constant = steps_of("random", monkeypatch, **CONSTANT["random"])
    assert mean_rate(constant, 0) == pytest.approx(0.5, abs=0.02)
    for name, settings in CHANGING.items():
        steps = steps_of(name, monkeypatch, **settings)
        assert mean_rate(steps, 1) == pytest.approx(mean_rate(constant, 1), rel=0.01), name
        assert abs(mean_rate(steps, 0) / mean_rate(constant, 0) - 1) > 0.02, name
        assert steps[-1][2] < 0.02 * steps[0][2], name
        if name == "sadp, falling":
            assert 1.15 < mean_rate(steps, 0) / mean_rate(constant, 0) < 1.25  # the finding: 20 % at this ratio


def test_a_method_that_exceeds_its_plan_ends_at_rate_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pruner, "planned_visits", lambda self, num_examples, num_epochs: 500.0)
    steps = steps_of("full", monkeypatch, 0.0)
    assert steps[49][2] > 0 and [step[2] for step in steps[50:]] == [0.0] * 10


def test_a_clock_that_can_mean_nothing_is_refused_before_training() -> None:
    for settings, reason in (
        ({"method": "infobatch", "ratio": 0.5, "set": {"native": True}}, "infobatch with these settings has none"),
        ({"method": "random", "ratio": 0.5, "schedule": "constant"}, "--schedule constant needs none"),
    ):
        with pytest.raises(BadInput, match=reason):
            resolved(lr_clock="visits", **settings)
        resolved(lr_clock="epochs", **settings)


def test_the_clock_is_part_of_the_run_and_of_its_reference_alike() -> None:
    by_epochs, by_visits = (resolved(method="random", ratio=0.5, lr_clock=clock)[0] for clock in ("epochs", "visits"))
    assert by_epochs.key != by_visits.key and "--lr-clock" not in by_epochs.words()
    words = by_visits.words()
    assert words[words.index("--lr-clock") + 1] == "visits"
    assert by_visits.reference().lr_clock == by_visits.plain().lr_clock == "visits"
