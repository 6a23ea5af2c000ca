"""The charged times, by a clock that the test moves."""

from __future__ import annotations

import pytest
import torch

from sadp_bench.core import clock
from sadp_bench.core.clock import Clock
from sadp_bench.core.phases import PHASES
from sadp_bench.core.progress import Progress
from sadp_bench.pruners.exchange import Observation, ScoringContext, Selection
from sadp_bench.records.metrics import charged_seconds, training_seconds
from sadp_bench.runs import trainer
from sadp_bench.training import evaluation, rehearsal
from tests.small_runs import Chosen, make_trainer, resolved


class Hands:
    """A wall clock and a CPU clock; the process is on a core for a quarter of the time."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 4


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(clock, "time", hands)
    return hands


def test_a_phases_seconds_are_the_sum_of_its_stretches(hands: Hands) -> None:
    timed = Clock(torch.device("cpu"))
    assert timed.seconds == dict.fromkeys(PHASES, 0.0)
    for phase, duration in (("train", 2.0), ("select", 0.5), ("train", 4.0), ("evaluate", 8.0)):
        with timed(phase):
            hands.now += duration
        hands.now += 1000  # between phases
    assert timed.seconds == {"prepare": 0.0, "select": 0.5, "train": 6.0, "evaluate": 8.0}
    assert timed.cpu_seconds == {phase: seconds / 4 for phase, seconds in timed.seconds.items()}


def test_cpu_seconds_of_a_phase_with_an_unknown_part_are_missing(hands: Hands) -> None:
    timed = Clock(torch.device("cpu"))
    timed.charge("train", 1.0, 0.5)
    timed.charge("prepare", 1.0, None)
    with timed("prepare"):
        hands.now += 4
    assert timed.seconds["prepare"] == 5 and timed.cpu_seconds == {"select": 0.0, "train": 0.5, "evaluate": 0.0}


def test_a_phase_that_fails_is_counted_up_to_the_failure(hands: Hands) -> None:
    timed = Clock(torch.device("cpu"))
    with pytest.raises(KeyError), timed("prepare"):
        hands.now += 3
        raise KeyError
    assert timed.seconds["prepare"] == 3


def test_an_unknown_phase_is_a_defect() -> None:
    with pytest.raises(AssertionError), Clock(torch.device("cpu"))("lunch"):
        pass


class Slow(Chosen):
    """Takes 100 s to prepare, 10 s an epoch to select, 1 s a batch to observe."""

    def __init__(self, hands: Hands) -> None:
        super().__init__(torch.arange(130))
        self.hands = hands

    def prepare(self, context: ScoringContext) -> None:
        super().prepare(context)
        self.hands.now += 100

    def select(self, epoch: int) -> Selection:
        self.hands.now += 10
        return super().select(epoch)

    def observe(self, seen: Observation) -> None:
        self.hands.now += 1


def test_scoring_selection_and_observation_are_charged_and_evaluation_and_warm_up_are_not(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearse, evaluate = rehearsal.rehearse, evaluation.evaluate

    def slow_rehearse(*arguments: object) -> float:
        hands.now += 5000
        return rehearse(*arguments)  # type: ignore[arg-type]

    def slow_evaluate(*arguments: object) -> float:
        hands.now += 7000
        return evaluate(*arguments)  # type: ignore[arg-type]

    class SlowProgress(Progress):
        def epoch(self, row: object, num_examples: int) -> None:
            hands.now += 9000

    monkeypatch.setattr(rehearsal, "rehearse", slow_rehearse)
    monkeypatch.setattr(evaluation, "evaluate", slow_evaluate)
    monkeypatch.setattr(trainer, "make_pruner", lambda spec: Slow(hands))
    spec, material = resolved(epochs=2, evaluate_every=1)
    record = make_trainer(spec, material, SlowProgress()).run()
    assert record.seconds == {"prepare": 100, "select": 20, "train": 6, "evaluate": 14000}
    assert record.cpu_seconds == {phase: seconds / 4 for phase, seconds in record.seconds.items()}
    assert {"load_average_start", "load_average_end", "cores"} <= set(record.environment)
    assert [row["seconds"] for row in record.epochs] == [13, 13]
    assert charged_seconds(record) == 126 and training_seconds(record) == 26
