"""The scheduler starts the runs that may start, retries those that may be retried, and leaves other processes' runs.

Its executor is scripted here. test_sweep_faults has real processes.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections import Counter

import pytest

from sadp_bench.core.errors import BadInput, TimeIsUp
from sadp_bench.core.time_limit import TimeLimit
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.record import Failure
from sadp_bench.records.store import FAILED, Store
from sadp_bench.sweeps import scheduler
from sadp_bench.sweeps.executors import Ended
from sadp_bench.sweeps.planning import Plan
from sadp_bench.sweeps.scheduler import Scheduler, Standing, Watcher, why
from tests.example_records import make_record, make_spec
from tests.records.helpers import left_by_a_killed_process
from tests.sweeps.helpers import FULL, RANDOM, SADP, Scripted, plan_of


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(scheduler, "TICK_SECONDS", 0.0)
    monkeypatch.setattr(scheduler, "RECHECK_SECONDS", 0.0)


def carried_out(plan, executor, retries=1, watcher=None):
    standing = Scheduler(plan, executor.store, executor, watcher or Watcher(), retries).run()
    assert executor.stopped
    return standing


@pytest.fixture
def store(tmp_path):
    (tmp_path / "runs").mkdir()
    return Store(tmp_path / "runs")


def test_runs_start_in_the_plans_order_and_fill_the_room(store):
    specs = [make_spec("random", 0.5, seed) for seed in range(7)]
    executor = Scripted(store, jobs=3)
    standing = carried_out(plan_of(*specs), executor)
    assert executor.started == specs and standing.done == {spec.key for spec in specs}
    assert [len(running) for _, running in executor.events] == [0, 1, 2, 0, 1, 2, 0]


def test_what_is_done_is_not_started(store):
    plan = plan_of(FULL, RANDOM)
    plan = Plan(plan.runs, frozenset({FULL.key}), {}, plan.before, plan.seconds)
    executor = Scripted(store)
    assert carried_out(plan, executor).done == {FULL.key, RANDOM.key} and executor.started == [RANDOM]


def test_a_run_that_always_crashes_is_tried_again_and_never_stops_the_others(tmp_path):
    for retries, code in ((0, 1), (1, -signal.SIGKILL), (3, 130)):
        store = Store(tmp_path / str(retries))
        executor = Scripted(store, random=[code])
        standing = carried_out(plan_of(FULL, RANDOM, SADP), executor, retries)
        assert Counter(spec.method for spec in executor.started) == {"full": 1, "random": 1 + retries, "sadp": 1}
        assert standing.done == {FULL.key, SADP.key} and list(standing.failed) == [RANDOM.key], code
        failure = store.find_failure(RANDOM)
        assert failure.attempts == 1 + retries and failure.last_lines == ["first", "sadp-bench: last"]


def test_a_crash_is_forgotten_once_the_run_is_done(store):
    store.write_failure(Failure(RANDOM, "of an earlier sweep", "2025-01-01T00:00:00+00:00"))
    standing = carried_out(plan_of(RANDOM), Scripted(store, random=[1, "done"]))
    assert standing.done == {RANDOM.key} and not standing.failed
    assert [path.suffixes for path in store.folder.iterdir()] == [store.path(RANDOM).suffixes]


def test_bad_input_is_not_tried_again(store):
    executor = Scripted(store, random=[2])
    standing = carried_out(plan_of(RANDOM, SADP), executor, retries=5)
    assert executor.started == [RANDOM, SADP] and standing.done == {SADP.key}
    assert store.find_failure(RANDOM).reason == "last"


def test_a_lost_worker_states_less_against_a_run_than_a_crash(store):
    executor = Scripted(store, random=["lost"] * 4 + ["done"], sadp=["lost"])
    standing = carried_out(plan_of(RANDOM, SADP), executor)
    assert standing.done == {RANDOM.key}
    assert Counter(spec.method for spec in executor.started) == {"random": 5, "sadp": 5}
    assert store.find_failure(SADP).reason == "its worker was lost"


def test_a_good_end_without_a_record_is_a_failure(store):
    standing = carried_out(plan_of(RANDOM), Scripted(store, random=[0]), retries=0)
    assert "no record" in standing.failed[RANDOM.key].reason


def test_a_bad_end_with_a_record_is_done(store):
    executor = Scripted(store, random=[-signal.SIGSEGV])
    executor.when_ended = lambda spec: store.write(make_record(spec))
    assert carried_out(plan_of(RANDOM), executor).done == {RANDOM.key} and executor.started == [RANDOM]


def test_where_a_run_diverged_is_kept_and_not_what_an_earlier_one_left(store):
    diverged = Failure(RANDOM, "diverged", "2025-01-01T00:00:00+00:00", epoch=3, learning_rate=0.1)
    executor = Scripted(store, random=[2])
    executor.when_ended = lambda spec: store.write_failure(diverged)
    assert carried_out(plan_of(RANDOM), executor).failed == {RANDOM.key: diverged}
    assert store.find_failure(RANDOM) == diverged
    carried_out(plan_of(RANDOM), Scripted(store, random=[2]))
    assert store.find_failure(RANDOM).epoch is None


def test_a_full_disk_does_not_stop_the_others(store, monkeypatch):
    def full(failure):
        raise BadInput("no space left")

    messages = []
    watcher = Watcher()
    watcher.message = messages.append
    monkeypatch.setattr(store, "write_failure", full)
    standing = carried_out(plan_of(RANDOM, SADP), Scripted(store, random=[2]), watcher=watcher)
    assert standing.done == {SADP.key} and list(standing.failed) == [RANDOM.key] and messages == ["no space left"]


def test_scores_are_made_once_while_other_work_goes_on(store):
    scoring = [make_spec("el2n", ratio) for ratio in (0.3, 0.5, 0.7)]

    def scored(spec):
        if spec.method == "el2n":
            store.scores_path(spec).parent.mkdir(exist_ok=True)
            store.scores_path(spec).write_bytes(b"")

    executor = Scripted(store, jobs=3)
    executor.when_ended = scored
    carried_out(plan_of(*scoring, FULL, RANDOM, SADP, scoring=scoring), executor)
    assert executor.started == [scoring[0], FULL, RANDOM, *scoring[1:], SADP]


def test_a_search_is_made_once_whatever_the_methods(store):
    searching = [dataclasses.replace(spec, sparsity="eb", density=0.5) for spec in (FULL, RANDOM, SADP)]
    other = dataclasses.replace(searching[1], seed=5)

    def searched(spec):
        if spec == searching[0]:
            store.search_path(spec).parent.mkdir(exist_ok=True)
            store.search_path(spec).write_bytes(b"")

    executor = Scripted(store, jobs=2)
    executor.when_ended = searched
    carried_out(plan_of(*searching, other, searching=[*searching, other]), executor)
    assert executor.started == [searching[0], other, *searching[1:]]


def test_where_the_scoring_run_fails_the_next_one_scores(store):
    scoring = [make_spec("el2n", ratio) for ratio in (0.3, 0.5)]
    executor = Scripted(store, jobs=2, el2n=[2])
    standing = carried_out(plan_of(*scoring, scoring=scoring), executor)
    assert executor.events == [(scoring[0], []), (scoring[1], [])] and len(standing.failed) == 2


class Other:
    """Plays another process that holds a run, and calls `then` after a few ticks have seen it."""

    def __init__(self, store, spec, then, holds=".lock"):
        self.lock, self.then, self.looks = Lock(store.path(spec, holds)), then, 0
        assert self.lock.acquire()

    def watcher(self):
        watcher = Watcher()
        watcher.tick = self.tick
        return watcher

    def tick(self, standing):
        if standing.elsewhere and self.lock is not None:
            self.looks += 1
            if self.looks == 3:
                self.then()
                self.lock.release(finished=False)
                self.lock = None


@pytest.mark.parametrize(("shares_folder", "holds"), [(True, ".lock"), (False, ".claim"), (True, ".claim")])
def test_what_another_process_trains_is_left_to_it(store, shares_folder, holds):
    other = Other(store, RANDOM, lambda: store.write(make_record(RANDOM)), holds)
    executor = Scripted(store, jobs=2, shares_folder=shares_folder)
    standing = carried_out(plan_of(RANDOM, SADP), executor, watcher=other.watcher())
    assert executor.started == [SADP] and standing.done == {RANDOM.key, SADP.key} and other.lock is None


@pytest.mark.parametrize(("shares_folder", "holds"), [(True, ".lock"), (False, ".claim"), (True, ".claim")])
def test_what_another_process_leaves_unfinished_is_trained_here(store, shares_folder, holds):
    other = Other(store, RANDOM, lambda: None, holds)
    executor = Scripted(store, shares_folder=shares_folder)
    standing = carried_out(plan_of(RANDOM, SADP), executor, watcher=other.watcher())
    assert executor.started == [SADP, RANDOM] and len(standing.done) == 2 and other.looks == 3


def test_runs_that_share_scores_wait_for_the_other_process_too(store):
    scoring = [make_spec("el2n", ratio) for ratio in (0.3, 0.5)]
    other = Other(store, scoring[0], lambda: None)
    executor = Scripted(store, jobs=2)
    carried_out(plan_of(*scoring, scoring=scoring), executor, watcher=other.watcher())
    assert executor.events == [(scoring[0], []), (scoring[1], [])]


@pytest.mark.parametrize("shares_folder", [True, False])
def test_what_another_process_finishes_at_the_last_moment_is_not_trained_again(store, shares_folder, monkeypatch):
    take = scheduler.Claim.take

    def finished_just_before(claim):
        store.write(make_record(RANDOM))
        return take(claim)

    monkeypatch.setattr(scheduler.Claim, "take", finished_just_before)
    executor = Scripted(store, shares_folder=shares_folder)
    assert carried_out(plan_of(RANDOM), executor).done == {RANDOM.key} and not executor.started
    assert [path.name for path in store.folder.iterdir()] == [store.path(RANDOM).name], "a lock was left"


@pytest.mark.parametrize("shares_folder", [True, False])
def test_a_run_is_claimed_from_its_start_to_its_end(store, shares_folder):
    """The run is also locked if its own process does not share the folder, and so can't lock it."""
    held = []

    def look(spec):
        held.append([Lock(store.path(spec, suffix)).is_held() for suffix in (".claim", ".lock")])

    executor = Scripted(store, shares_folder=shares_folder, random=[1, "done"], sadp=[1])
    executor.when_ended = look
    carried_out(plan_of(RANDOM, SADP), executor)
    assert held == [[True, not shares_folder]] * 4
    left = {path.name for path in store.folder.iterdir()} - {store.path(RANDOM).name, store.path(SADP, FAILED).name}
    assert left == (set() if shares_folder else {store.path(SADP, ".lock").name}), "it counts the starts"
    assert not any(Lock(store.folder / name).is_held() for name in left)


@pytest.mark.parametrize("shares_folder", [True, False])
def test_an_interruption_stops_all_and_leaves_no_lock(store, shares_folder):
    executor = Scripted(store, jobs=2, shares_folder=shares_folder)
    before = signal.getsignal(signal.SIGTERM)

    def terminate(spec):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # cut short by the signal

    executor.when_ended = terminate
    with pytest.raises(KeyboardInterrupt):
        carried_out(plan_of(RANDOM, SADP), executor)
    assert executor.stopped and not any(Lock(store.path(RANDOM, suffix)).is_held() for suffix in (".lock", ".claim"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_time_limit_begins_no_further_run_and_fails_none(store):
    executor = Scripted(store, random=[TimeIsUp.code])
    limit = TimeLimit(1e-9)
    limit.is_over = lambda: bool(executor.started)  # type: ignore[method-assign]
    standing = Scheduler(plan_of(RANDOM, SADP), store, executor, Watcher(), 1, limit).run()
    assert executor.started == [RANDOM] and not standing.done and not standing.failed
    assert not [path for path in store.folder.iterdir() if path.suffix == ".claim"]


def test_a_record_of_another_process_that_is_broken_is_a_failure(store):
    other = Other(store, RANDOM, lambda: store.path(RANDOM).write_text("{"))
    standing = carried_out(plan_of(RANDOM, SADP), Scripted(store), watcher=other.watcher())
    assert "delete it" in standing.failed[RANDOM.key].reason and standing.done == {SADP.key}


def test_a_failure_states_why():
    for code, lines, expected in [
        (1, ["a", "MemoryError"], "exit code 1: MemoryError"),
        (3, [], "exit code 3"),
        (2, ["sadp-bench: the loss is no number"], "the loss is no number"),
        (-9, ["a"], "killed by SIGKILL (out of memory?)"),
        (-11, ["a"], "killed by SIGSEGV"),
        (-99, [], "killed by signal 99"),
    ]:
        assert why(Ended(RANDOM, code, lines)) == expected


def test_the_time_left_is_corrected_by_what_was_measured(monkeypatch):
    specs = [make_spec("random", 0.5, seed) for seed in range(5)]
    plan = Plan(specs, frozenset(), {}, {}, {spec.key: 10.0 for spec in specs})
    standing = Standing(plan, set())
    for jobs, seconds in ((1, 50), (2, 25), (100, 10)):
        standing.jobs = jobs
        assert standing.seconds_left() == seconds
    standing.done.add(specs[0].key)
    standing.actual_seconds, standing.expected_seconds = 30.0, 10.0
    standing.running[specs[1].key] = scheduler.Running(specs[1], 100.0, None)
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: 112.0)
    standing.jobs = 2
    assert standing.seconds_left() == pytest.approx((30 - 12 + 3 * 30) / 2)
    standing.elsewhere |= {specs[2].key, specs[3].key}
    standing.failed[specs[4].key] = Failure(specs[4], "", "")
    assert standing.seconds_left() == 18


def test_the_time_left_reckons_with_all_runs_that_the_executor_makes_at_a_time(store):
    """Only its executor has a cluster's size."""
    specs = [make_spec("random", 0.5, seed) for seed in range(4)]
    left, watcher = [], Watcher()
    watcher.tick = lambda standing: left.append(standing.seconds_left())
    carried_out(plan_of(*specs), Scripted(store, jobs=4), watcher=watcher)
    assert left[0] == pytest.approx(1.0, abs=0.1), "four runs of a second each, side by side"


def test_what_a_killed_sweep_left_beside_finished_runs_goes(store):
    store.write(make_record(RANDOM))
    for suffix in (".ckpt", ".ckpt.before"):
        store.path(RANDOM, suffix).write_text("{}")
    for suffix in (".lock", ".claim"):
        left_by_a_killed_process(store.path(RANDOM, suffix))
    plan = dataclasses.replace(plan_of(RANDOM), done=frozenset({RANDOM.key}))
    assert not carried_out(plan, executor := Scripted(store)).failed and not executor.started
    assert os.listdir(store.folder) == [store.path(RANDOM).name]
