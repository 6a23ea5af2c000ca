"""Carries a plan out: which run is next, what the end of its process means, and what is tried again.

A record decides: a run that has one is done, however its process ended. One that fails never stops the others. Runs that
another process is at are left to it, here or on another machine (see `lock`), and trained here if it dies.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.record import Failure
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.runs.run import tidy
from sadp_bench.runs.trainer import now
from sadp_bench.sweeps.executors import Ended, Executor, Local, Options
from sadp_bench.sweeps.planning import Plan
from sadp_bench.sweeps.ray_executor import RayCluster

BAD_INPUT = 2
MORE_IF_LOST = 3  # tries, for a run whose worker or machine went away
TICK_SECONDS = 0.2
LOOK_SECONDS = 1.0  # between two looks at what others train


@dataclass(slots=True)
class Running:
    """since: by the monotonic clock. before: what an earlier try had left word of. latest: the last line it printed."""

    spec: Spec
    since: float
    before: Failure | None
    latest: str = ""


@dataclass(slots=True)
class Standing:
    """Where a sweep stands, by key. failed: for good. elsewhere: what another process is at.

    actual_seconds, expected_seconds: of what ended here, for the time left.
    """

    plan: Plan
    done: set[str]
    failed: dict[str, Failure] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    actual_seconds: float = 0.0
    expected_seconds: float = 0.0

    def seconds_left(self, jobs: int) -> float:
        """Of all that is not done here, corrected by how the runs so far kept to their estimates."""
        correction = self.actual_seconds / self.expected_seconds if self.expected_seconds else 1.0
        spent = {key: time.monotonic() - running.since for key, running in self.running.items()}
        over = self.done | self.failed.keys() | self.elsewhere
        left = [
            max(0.0, correction * seconds - spent.get(key, 0.0))
            for key, seconds in self.plan.seconds.items()
            if key not in over
        ]
        return max(sum(left) / jobs, max(left, default=0.0))


class Watcher:
    """What a sweep tells about itself. This one is not interested; the terminal's are in `overview`."""

    def say(self, line: str) -> None:
        """A line worth reading once."""

    def started(self, spec: Spec, attempt: int, standing: Standing) -> None: ...

    def ended(self, spec: Spec, outcome: str, standing: Standing) -> None:
        """outcome: "done", or what went wrong and what follows."""

    def tick(self, standing: Standing) -> None:
        """Called several times a second."""

    def stop(self) -> None:
        """Nothing more will come, or the sweep was interrupted."""


def make_executor(plan: Plan, store: Store, options: Options) -> Executor:
    """Raises BadInput where it could not do what the plan asks for."""
    if options.executor == "ray" and plan.to_do:
        return RayCluster(store, options, plan.to_do)
    return Local(store, options, devices(plan.to_do, options.jobs))


def devices(specs: list[Spec], jobs: int) -> list[str]:
    """CUDA's names of the GPUs, for each job its own; empty where no run is on "cuda"."""
    for spec in specs:
        if spec.device.startswith("cuda:") and jobs > 1:
            raise BadInput(f"device = '{spec.device}' with --jobs {jobs}: take 'cuda', each job has a GPU of its own")
    if not any(spec.device == "cuda" for spec in specs):
        return []
    there = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = there.split(",") if there else [str(number) for number in range(torch.cuda.device_count())]
    if jobs > len(names):
        raise BadInput(f"--jobs {jobs} with runs on cuda: {len(names)} GPUs are visible, and each job needs its own")
    return names


def why(ended: Ended) -> str:
    """One line for people: 'killed by SIGKILL (out of memory?)', 'exit code 1: RuntimeError: ...'."""
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
    """crashes, losses: of this run so far, this one included."""
    if ended.lost:
        return losses <= retries + MORE_IF_LOST
    return ended.code != BAD_INPUT and crashes <= retries


class Claim:
    """A run's two locks: `.lock` is held by whoever trains it, `.claim` by the sweep that has started that process.

    Between a process's start and its lock lie seconds, in which another sweep would start the same run and have a job wait
    for as long as it lasts. trains_here: whether the sweep holds the lock as well, for a process that can't see the folder.
    """

    def __init__(self, store: Store, spec: Spec, trains_here: bool) -> None:
        self._lock, self._claim = Lock(store.path(spec, ".lock")), Lock(store.path(spec, ".claim"))
        self._trains_here = trains_here

    def take(self) -> bool:
        """False where another process is at the run. Raises BadInput where the folder can't be written."""
        if self._lock.is_held() or not self._claim.acquire():
            return False
        if self._trains_here and not self._lock.acquire():
            self._claim.release(finished=True)
            return False
        return True

    def leave(self, *, finished: bool) -> None:
        if self._trains_here:
            self._lock.release(finished=finished)
        self._claim.release(finished=True)


class Scheduler:
    """One sweep's way through its plan."""

    def __init__(self, plan: Plan, store: Store, executor: Executor, watcher: Watcher, retries: int) -> None:
        self.standing = Standing(plan, set(plan.done))
        self._group = plan.group
        self._waiting = plan.to_do
        self._store, self._executor, self._watcher, self._retries = store, executor, watcher, retries
        self._claims = {spec.key: Claim(store, spec, not executor.shares_folder) for spec in plan.to_do}
        self._crashes: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._next_look = 0.0

    def run(self) -> Standing:
        """Until every run is done or has failed for good. Ctrl-C and SIGTERM end it with KeyboardInterrupt."""
        for spec in self.standing.plan.runs:
            tidy(spec, self._store)
        with _terminable():
            try:
                while self._waiting or self.standing.running:
                    for ended in self._executor.ended():
                        self._settle(ended)
                    self._start_some()
                    self._tell()
                    time.sleep(TICK_SECONDS)
            finally:
                self._watcher.stop()
                self._executor.stop()
                for key in self.standing.running:
                    self._claims[key].leave(finished=False)
        return self.standing

    def _tell(self) -> None:
        for running in self.standing.running.values():
            running.latest = self._executor.latest(running.spec)
        self._watcher.tick(self.standing)

    def _start_some(self) -> None:
        """Fills the executor's room, in the plan's order, with runs that need not wait for another one."""
        room, moment = self._executor.room(), time.monotonic()
        if room <= 0 or not self._waiting or moment < self._next_look:
            return
        busy = {self._group[key] for key in self.standing.running}
        self.standing.elsewhere.clear()
        waiting = []
        for position, spec in enumerate(self._waiting):
            if room <= 0:
                waiting += self._waiting[position:]
                break
            if self._group[spec.key] in busy and not self._store.scores_path(spec).exists():
                waiting.append(spec)
            elif self._is_done_elsewhere(spec):
                continue
            elif not self._claims[spec.key].take():
                self.standing.elsewhere.add(spec.key)
                busy.add(self._group[spec.key])
                waiting.append(spec)
            elif self._is_done_elsewhere(spec):  # which may be why it could be taken
                self._claims[spec.key].leave(finished=True)
            else:
                self._start(spec)
                busy.add(self._group[spec.key])
                room -= 1
        self._waiting = waiting
        self._next_look = moment + LOOK_SECONDS if waiting and room > 0 else 0.0

    def _is_done_elsewhere(self, spec: Spec) -> bool:
        """Whether another process has finished it in the meantime."""
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
        (self._losses if ended.lost else self._crashes)[spec.key] += 1
        crashes, losses = self._crashes[spec.key], self._losses[spec.key]
        if may_retry(ended, crashes, losses, self._retries):
            self._waiting.append(spec)
            self._watcher.ended(spec, f"{why(ended)}: it is tried again", self.standing)
        else:
            own = self._store.find_failure(spec)  # the run's own, which says where it diverged
            told = own if ended.code == BAD_INPUT and own != running.before else None
            made = Failure(spec, why(ended), now(), last_lines=ended.lines, attempts=crashes + losses)
            self._fail(spec, told or made)

    def _done(self, spec: Spec, outcome: str) -> None:
        self.standing.done.add(spec.key)
        self._watcher.ended(spec, outcome, self.standing)

    def _fail(self, spec: Spec, failure: Failure) -> None:
        self.standing.failed[spec.key] = failure
        self._watcher.ended(spec, f"failed: {failure.reason}", self.standing)
        try:
            self._store.write_failure(failure)
        except BadInput as error:  # a full disk, say: the others may still get through
            self._watcher.say(str(error))


@contextmanager
def _terminable() -> Iterator[None]:
    """Within, SIGTERM ends things as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
