"""The rule of disturbed runs: each of its parts, and that nothing is found where nothing is known."""

import dataclasses
import math

import pytest

from sadp_bench.records.comparison import compare, paired
from sadp_bench.records.disturbance import disturbance, ready_threads
from sadp_bench.records.record import Record
from tests.example_records import ENVIRONMENT, make_record, make_spec

CALM = {"seconds": 100.0, "cpu_seconds": 97.0, "ready_threads": 2.4, "cores": 2, "efficiency": 1.015}
STORMS = {
    "had a core for less than 90 % of the time": {"cpu_seconds": 89.0},
    "more threads were ready than the machine has cores": {"ready_threads": 2.6},
    "exceeds its ceiling by more than 2 %": {"efficiency": 1.021},
}


def test_a_run_is_disturbed_by_each_part_of_the_rule_alone():
    assert disturbance(**CALM) is None
    for why, changed in STORMS.items():
        found = disturbance(**CALM | changed)
        assert found is not None and why in found, changed
    assert disturbance(seconds=100.0, **dict.fromkeys(list(CALM)[1:])) is None
    assert disturbance(**CALM | {"cpu_seconds": 159.0}) is None  # two threads


def test_ready_threads_are_what_makes_the_load_average_of_the_end():
    for start, ready, seconds in ((0.0, 2.0, 30.0), (8.0, 2.0, 45.0), (1.0, 6.5, 600.0)):
        average = start
        for _ in range(1000):  # as the system does it, in a thousand steps
            left = math.exp(-seconds / 1000 / 60)
            average = average * left + ready * (1 - left)
        assert ready_threads(start, average, seconds) == pytest.approx(ready)
    assert ready_threads(0.0, 5.0, 29.0) is None


def timed(method="random", ratio=0.5, train=50.0, cpu=1.0, seed=0, **environment):
    """Returns a run of so many seconds of training and 1,000 of evaluation, with a share of CPU seconds."""
    record = make_record(make_spec(method, ratio, seed), train=train, environment=ENVIRONMENT | environment)
    return dataclasses.replace(record, cpu_seconds={phase: cpu * spent for phase, spent in record.seconds.items()})


def test_the_numbers_of_the_rule_come_from_the_record_and_its_reference():
    full = timed("full", 0.0, 100.0)
    busy = {"cores": 2, "load_average_start": 0.2, "load_average_end": 3.9}
    for run, disturbed in (
        (timed(), False),
        (timed(cpu=0.5), True),
        (timed(cpu=0.5, device="cuda"), False),  # its process waits for the device
        (timed(train=48.0), True),
        (timed(**busy), True),
        (timed(**busy | {"device": "cuda"}), False),
        (timed(**busy | {"cores": 8}), False),
        (timed(**busy | {"cores": "many", "load_average_start": None}), False),
        (dataclasses.replace(timed(**busy), interruptions=1), False),  # the load averages are of one part
        (dataclasses.replace(timed(cpu=0.5), cpu_seconds={"train": 1.0}), False),
        (make_record(make_spec("random", 0.5), train=50.0), False),  # of an earlier version
    ):
        found = compare(run, full)
        assert (found.record.disturbed is not None) == disturbed, run
        assert (found.seconds is None) == disturbed and (found.speedup is None) == (disturbed or bool(found.mismatch))


def test_a_disturbed_reference_gives_no_speedup_and_disturbs_no_run():
    slow = timed("full", 0.0, 150.0, cpu=0.66)  # 99 CPU seconds, a speed-up of 3 where 2 is the ceiling
    [_, pair] = paired([slow, timed()])
    assert pair.reference.disturbed and pair.record.disturbed is None and pair.seconds == 50
    assert pair.speedup is pair.efficiency is pair.training_speedup is None and pair.cpu_speedup == pytest.approx(1.98)


def test_cpu_speedup_counts_for_runs_that_the_rule_finds_and_not_for_those_that_a_note_excludes():
    full, run = timed("full", 0.0, 100.0), timed(train=80.0, cpu=0.625)
    assert compare(run, full).speedup is None and compare(run, full).cpu_speedup == pytest.approx(2.0)
    noted = dataclasses.replace(run, environment=run.environment | {"disturbed": "a storm"})
    assert compare(noted, full).cpu_speedup is None
    for one in (timed(device="cuda"), dataclasses.replace(run, cpu_seconds={})):
        assert compare(one, timed("full", 0.0, 100.0, device=one.environment["device"])).cpu_speedup is None


def test_records_without_cpu_seconds_are_read_and_bad_ones_refused():
    data = timed().to_json()
    assert Record.from_json({name: value for name, value in data.items() if name != "cpu_seconds"}).cpu_seconds == {}
    for bad in ([], {"train": -1}, {"train": "1"}, 3):
        with pytest.raises(Exception, match="cpu_seconds"):
            Record.from_json(data | {"cpu_seconds": bad})
