"""The scheduler of a sweep: starts the plan's runs, evaluates the ends of their processes, and tries crashed runs again.

A run that has a record is done, even if its process crashed. A failed run does not stop the others. Runs that another
process trains, here or on another machine, are left to it (see `records.file_lock`), and trained here if it dies.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import torch

from sadp_bench.core.errors import BadInput, TimeIsUp
from sadp_bench.core.termination import terminable
from sadp_bench.core.time_limit import TimeLimit
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.record import Failure
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.runs.preparation import shared_files
from sadp_bench.runs.run import tidy
from sadp_bench.runs.trainer import now
from sadp_bench.sweeps.executors import Ended, Executor, Local, Options
from sadp_bench.sweeps.planning import Plan
from sadp_bench.sweeps.ray_executor import RayCluster
from sadp_bench.sweeps.slurm_executor import Slurm

BAD_INPUT = 2  # exit code of a command with bad input
MORE_IF_LOST = 3  # further tries of a run whose worker or machine was lost
TICK_SECONDS = 0.2  # seconds between two turns of the scheduler's loop
RECHECK_SECONDS = 1.0  # seconds between two checks of runs that another process trains


@dataclass(slots=True)
class Running:
    """A run that is training.

    Attributes:
        spec: The run.
        since: Its start in seconds of the monotonic clock.
        before: The failure of an earlier try.
        latest: The last line that the process printed.
    """

    spec: Spec
    since: float
    before: Failure | None
    latest: str = ""


@dataclass(slots=True)
class Standing:
    """The state of a sweep.

    Attributes:
        plan: The plan of the sweep.
        done: Keys of the runs that have a record.
        failed: Failures of runs that are not tried again, by key.
        running: Runs that are training here, by key.
        elsewhere: Keys of the runs that another process trains.
        jobs: The number of runs that the executor can train at a time.
        actual_seconds: The seconds of the runs that ended here.
        expected_seconds: The expected seconds of the same runs, from the plan.
    """

    plan: Plan
    done: set[str]
    failed: dict[str, Failure] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    jobs: int = 1
    actual_seconds: float = 0.0
    expected_seconds: float = 0.0

    @property
    def left(self) -> list[Spec]:
        """The runs that are neither done nor failed."""
        return [spec for spec in self.plan.runs if spec.key not in self.done and spec.key not in self.failed]

    def seconds_left(self) -> float:
        """Returns the expected seconds of the runs left here, corrected by the ratio for the runs that ended."""
        correction = self.actual_seconds / self.expected_seconds if self.expected_seconds else 1.0
        spent = {key: time.monotonic() - running.since for key, running in self.running.items()}
        over = self.done | self.failed.keys() | self.elsewhere
        left = [
            max(0.0, correction * seconds - spent.get(key, 0.0))
            for key, seconds in self.plan.seconds.items()
            if key not in over
        ]
        return max(sum(left) / self.jobs, max(left, default=0.0))


class Watcher:
    """Receives the events of a sweep and ignores them. Subclasses in `cli.sweep_view` show them."""

    def message(self, line: str) -> None:
        """Receives a line for the user."""

    def started(self, spec: Spec, attempt: int, standing: Standing) -> None:
        """Called after a run's process was started. Attempts count from 1."""

    def ended(self, spec: Spec, outcome: str, standing: Standing) -> None:
        """Called after a run ended. The outcome is "done", or the error and the next step."""

    def tick(self, standing: Standing) -> None:
        """Called several times a second."""

    def stop(self) -> None:
        """Called once, at the end or interruption of the sweep."""


def make_executor(plan: Plan, store: Store, options: Options) -> Executor:
    """Returns the executor that the options name. Raises BadInput where it cannot carry out the plan."""
    options = dataclasses.replace(options, sources=plan.sources)
    if options.executor == "ray" and plan.sources:
        raise BadInput(
            "from reads the scores of another run in the sweep's folder, which workers of a Ray cluster do not share: take "
            "--executor local or slurm"
        )
    if options.executor == "ray" and plan.to_do:
        return RayCluster(store, options, plan.to_do)
    if options.executor == "slurm" and plan.to_do:
        return Slurm(store, options)
    return Local(store, options, devices(plan.to_do, options.jobs))


def devices(specs: list[Spec], jobs: int) -> list[str]:
    """Returns the GPUs as CUDA_VISIBLE_DEVICES names them, one for each job; [] where no run is on "cuda"."""
    for spec in specs:
        if spec.device.startswith("cuda:") and jobs > 1:
            raise BadInput(
                f"device = '{spec.device}' with --jobs {jobs}: take 'cuda', so that each job has its own GPU"
            )
    if not any(spec.device == "cuda" for spec in specs):
        return []
    there = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = there.split(",") if there else [str(number) for number in range(torch.cuda.device_count())]
    if jobs > len(names):
        raise BadInput(f"--jobs {jobs} with runs on cuda: {len(names)} GPUs are visible, and each job needs its own")
    return names


def why(ended: Ended) -> str:
    """Returns the cause of an end: 'killed by SIGKILL (out of memory?)', 'exit code 1: RuntimeError: ...'."""
    last = ended.lines[-1].strip().removeprefix("sadp-bench: ") if ended.lines else ""
    if ended.lost:
        return ended.lines[0]
    if ended.code < 0:
        name = signal.Signals(-ended.code).name if -ended.code in set(signal.Signals) else f"signal {-ended.code}"
        return f"killed by {name}{' (out of memory?)' if -ended.code == signal.SIGKILL else ''}"
    if ended.code == 0:
        return "it ended well but left no record that can be read"
    return last if ended.code == BAD_INPUT and last else f"exit code {ended.code}{f': {last}' if last else ''}"


def may_retry(ended: Ended, crashes: int, losses: int, retries: int) -> bool:
    """Returns whether a run is tried again. Its crashes and losses include this end."""
    if ended.lost:
        return losses <= retries + MORE_IF_LOST
    return ended.code != BAD_INPUT and crashes <= retries


class Claim:
    """The two locks of a run: its process holds `.lock`, and the sweep that started the process holds `.claim`.

    A process takes its lock seconds after its start. Without the claim, another sweep could start the same run in between,
    and one of its jobs would wait until the run ends.

    Args:
        store: The sweep's records.
        spec: The run.
        trains_here: Whether the sweep also holds `.lock`, because the process cannot reach the folder.
    """

    def __init__(self, store: Store, spec: Spec, trains_here: bool) -> None:
        self._lock, self._claim = Lock(store.path(spec, ".lock")), Lock(store.path(spec, ".claim"))
        self._trains_here = trains_here

    def take(self) -> bool:
        """Takes the locks and returns True, or False where another process trains the run.

        Raises:
            BadInput: The folder cannot be written.
        """
        if self._lock.is_held() or not self._claim.acquire():
            return False
        if self._trains_here and not self._lock.acquire():
            self._claim.release(finished=True)
            return False
        return True

    def leave(self, *, finished: bool) -> None:
        """Releases the locks. `finished` is whether the run is done."""
        if self._trains_here:
            self._lock.release(finished=finished)
        self._claim.release(finished=True)


class Scheduler:
    """Carries out one plan.

    Args:
        plan: The runs.
        store: Their records.
        executor: Starts their processes.
        watcher: Receives the events.
        retries: Further tries of a run that crashed.
        limit: The time after which no run begins. The executor also passes it to the runs.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        executor: Executor,
        watcher: Watcher,
        retries: int,
        limit: TimeLimit | None = None,
    ) -> None:
        self.standing = Standing(plan, set(plan.done))
        self._files = {spec.key: shared_files(spec, plan.before[spec.key], store).keys() for spec in plan.to_do}
        self._waiting = plan.to_do
        self._store, self._executor, self._watcher, self._retries = store, executor, watcher, retries
        self._limit = limit or TimeLimit()
        self._claims = {spec.key: Claim(store, spec, not executor.shares_folder) for spec in plan.to_do}
        self._crashes: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._next_check = 0.0

    def run(self) -> Standing:
        """Trains until every run is done or has failed, or the time is over. Returns the state.

        Ctrl-C and SIGTERM end it with KeyboardInterrupt.
        """
        for spec in self.standing.plan.runs:
            tidy(spec, self._store)
        with terminable():
            try:
                while self.standing.running or (self._waiting and not self._limit.is_over()):
                    for ended in self._executor.ended():
                        self._settle(ended)
                    self.standing.jobs = max(1, self._executor.capacity())
                    self._start_some()
                    self._report()
                    time.sleep(TICK_SECONDS)
            finally:
                self._watcher.stop()
                self._executor.stop()
                for key in self.standing.running:
                    self._claims[key].leave(finished=False)
        return self.standing

    def _report(self) -> None:
        for running in self.standing.running.values():
            running.latest = self._executor.latest(running.spec)
        self._watcher.tick(self.standing)

    def _start_some(self) -> None:
        """Starts runs in the plan's order while there is room. Runs that need another run's scores or search wait."""
        room, moment = self._executor.capacity() - len(self.standing.running), time.monotonic()
        if room <= 0 or not self._waiting or moment < self._next_check or self._limit.is_over():
            return
        busy = {path for key in self.standing.running for path in self._files[key]}
        self.standing.elsewhere.clear()
        waiting = []
        for position, spec in enumerate(self._waiting):
            if room <= 0:
                waiting += self._waiting[position:]
                break
            if any(path in busy and not path.exists() for path in self._files[spec.key]):
                waiting.append(spec)
            elif self._is_done_elsewhere(spec):
                continue
            elif not self._claims[spec.key].take():
                self.standing.elsewhere.add(spec.key)
                busy.update(self._files[spec.key])
                waiting.append(spec)
            elif self._is_done_elsewhere(spec):  # another process may have finished it and released the claim
                self._claims[spec.key].leave(finished=True)
            else:
                self._start(spec)
                busy.update(self._files[spec.key])
                room -= 1
        self._waiting = waiting
        self._next_check = moment + RECHECK_SECONDS if waiting and room > 0 else 0.0

    def _is_done_elsewhere(self, spec: Spec) -> bool:
        """Returns whether another process has finished the run in the meantime."""
        try:
            if self._store.find(spec) is None:
                return False
            self._done(spec, "done by another process")
        except BadInput as error:
            self._fail(spec, Failure(spec, str(error), now()))
        return True

    def _start(self, spec: Spec) -> None:
        attempt = 1 + self._crashes[spec.key] + self._losses[spec.key]
        self.standing.running[spec.key] = Running(spec, time.monotonic(), self._store.find_failure(spec))
        self._executor.start(spec, attempt - 1)
        self._watcher.started(spec, attempt, self.standing)

    def _settle(self, ended: Ended) -> None:
        spec = ended.spec
        running = self.standing.running.pop(spec.key)
        try:
            is_done = self._store.find(spec) is not None
        except BadInput:
            is_done = False
        self._claims[spec.key].leave(finished=is_done)
        if is_done:
            self.standing.actual_seconds += time.monotonic() - running.since
            self.standing.expected_seconds += self.standing.plan.seconds[spec.key]
            self._done(spec, "done")
            return
        if ended.code == TimeIsUp.code:
            self._waiting.append(spec)
            self._watcher.ended(spec, "stopped, because the time is over", self.standing)
            return
        (self._losses if ended.lost else self._crashes)[spec.key] += 1
        crashes, losses = self._crashes[spec.key], self._losses[spec.key]
        if may_retry(ended, crashes, losses, self._retries):
            self._waiting.append(spec)
            self._watcher.ended(spec, f"{why(ended)}: it is tried again", self.standing)
        else:
            # Where training diverged, the run's process has recorded the failure with its epoch.
            recorded = self._store.find_failure(spec)
            if ended.code != BAD_INPUT or recorded is None or recorded == running.before:
                recorded = Failure(spec, why(ended), now(), last_lines=ended.lines, attempts=crashes + losses)
            self._fail(spec, recorded)

    def _done(self, spec: Spec, outcome: str) -> None:
        self.standing.done.add(spec.key)
        self._watcher.ended(spec, outcome, self.standing)

    def _fail(self, spec: Spec, failure: Failure) -> None:
        self.standing.failed[spec.key] = failure
        self._watcher.ended(spec, f"failed: {failure.reason}", self.standing)
        try:
            self._store.write_failure(failure)
        except BadInput as error:  # a full disk must not stop the other runs
            self._watcher.message(str(error))
