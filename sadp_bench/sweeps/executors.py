"""Executors of a sweep's runs: processes of this machine, or tasks on a Ray cluster. Every run has its own process.

An executor starts runs and returns how their processes ended. The scheduler chooses the next run and judges the ends.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sadp_bench.core.errors import BadInput
from sadp_bench.core.time_limit import TimeLimit
from sadp_bench.records.fields import check_count, option
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store

NUM_LINES = 20  # last lines of a process that are kept
MAX_LINE = 500  # characters of a line that are kept
STOP_SECONDS = 10.0  # seconds for a process to end by itself before it is killed


class Ended(NamedTuple):
    """The end of a run's process.

    Attributes:
        spec: The run.
        code: The exit code; a signal's number is negative, as in `subprocess`.
        lines: The last lines that the process printed.
        lost: Whether the worker or the machine went away, which is no fault of the run.
    """

    spec: Spec
    code: int
    lines: list[str]
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a sweep. Raises BadInput for a value that makes no sense.

    Attributes:
        jobs: Runs that share a machine.
        retries: Further tries of a run that crashed.
        data: The folder of the data sets.
        checkpoint_seconds: Seconds between two checkpoints of a run.
        executor: "local" or "ray".
        address: Of the Ray cluster; None: a Ray of this machine.
        gpus_per_run: On Ray, the GPUs of a run on "cuda"; None: one.
        limit: The time of the sweep. A run of a cluster keeps no checkpoint on its worker, so it has no limit there.
    """

    jobs: int = 1
    retries: int = 1
    data: Path | None = None
    checkpoint_seconds: float = 60.0
    executor: str = "local"
    address: str | None = None
    gpus_per_run: float | None = None
    limit: TimeLimit = field(default_factory=TimeLimit)

    def __post_init__(self) -> None:
        check_count("jobs", self.jobs, 1)
        check_count("retries", self.retries, 0)
        if not 0 <= self.checkpoint_seconds < math.inf:
            raise BadInput(f"--checkpoint-seconds is at least 0, not {self.checkpoint_seconds}")
        if self.executor not in ("local", "ray"):
            raise BadInput(f"--executor is local or ray, not '{self.executor}'")
        for name in ("address", "gpus_per_run"):
            if getattr(self, name) is not None and self.executor != "ray":
                raise BadInput(f"{option(name)} belongs to --executor ray")
        if self.executor == "ray" and self.limit.minutes is not None:
            raise BadInput(
                "--minutes belongs to --executor local: a run on a cluster's worker can't go on from a checkpoint"
            )
        if self.gpus_per_run is not None and not 0 < self.gpus_per_run < math.inf:
            raise BadInput(f"--gpus-per-run is above 0, such as 0.25, not {self.gpus_per_run}")


class Executor(ABC):
    """Starts runs and returns how their processes ended.

    Attributes:
        shares_folder: Whether the processes write to the sweep's folder, and so take the runs' locks themselves.
    """

    shares_folder: bool

    @abstractmethod
    def capacity(self) -> int:
        """Returns how many runs can go on at a time now."""

    @abstractmethod
    def start(self, spec: Spec, earlier: int) -> None:
        """Begins a run after `earlier` other tries. `ended` returns its failure."""

    @abstractmethod
    def ended(self) -> list[Ended]:
        """Returns the runs that have ended since the last call. Does not wait."""

    @abstractmethod
    def latest(self, spec: Spec) -> str:
        """Returns the last line of a run that goes on."""

    @abstractmethod
    def stop(self) -> None:
        """Ends all runs that go on, and the executor."""


def run_command(spec: Spec, out: Path, options: Options) -> list[str]:
    """Returns the command that makes one run of the sweep and nothing else."""
    # -P: without it, Python would import modules from the current folder, which may be a stranger's.
    # setpriv: without it, a process whose parent is killed would go on unwatched. Not every system has it.
    tied = [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
    given = ["--data", str(options.data)] if options.data else []
    left = options.limit.left()
    given += [] if left is None else ["--minutes", f"{left:.3f}"]
    return [
        *(*tied, sys.executable, "-P", "-m", "sadp_bench", "run", *spec.words(), "--no-reference", "--json"),
        *("--out", str(out), "--concurrent-jobs", str(options.jobs)),
        *("--checkpoint-seconds", f"{options.checkpoint_seconds:g}", *given),
    ]


class Child:
    """A process in its own group, which a terminal's Ctrl-C doesn't reach, and its last lines.

    Args:
        command: The words of the command.
        environment: Further variables.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.lines: deque[str] = deque(maxlen=NUM_LINES)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            # A process that is killed, or crashes in native code, has then printed all its lines.
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline(100 * MAX_LINE):
            if text := kept_line(line):
                self.lines.append(text)

    def ended(self) -> int | None:
        """Returns the exit code; None while the process goes on."""
        code = self.process.poll()
        if code is not None:
            self._reader.join(1.0)  # It takes longer only where a grandchild keeps the pipe open.
        return code

    def wait(self) -> int:
        """Waits for the process's end and returns the exit code."""
        code = self.process.wait()
        self._reader.join(1.0)
        return code

    def stop(self) -> None:
        """Waits for the end after `process.terminate()`, and kills the group where the process doesn't end."""
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:  # on Windows
                self.process.kill()
            self.process.wait()


def kept_line(line: str) -> str:
    """Returns a line without control characters, cut to `MAX_LINE` characters."""
    return "".join(sign for sign in line if sign.isprintable()).rstrip()[:MAX_LINE]


class Local(Executor):
    """Processes of this machine, which write to the store and hold their locks themselves.

    Args:
        store: The sweep's records.
        options: The sweep's options.
        devices: CUDA's names of the GPUs, one for each job, for runs on "cuda".
    """

    shares_folder = True

    def __init__(self, store: Store, options: Options, devices: Sequence[str] = ()) -> None:
        self._store, self._options, self._devices = store, options, devices
        self._slots: list[tuple[Spec, Child] | None] = [None] * options.jobs
        self._stillborn: list[Ended] = []

    def capacity(self) -> int:
        """Returns the number of jobs."""
        return len(self._slots)

    def start(self, spec: Spec, earlier: int) -> None:
        """Starts a run's process in a free job, on the job's GPU."""
        slot = self._slots.index(None)
        gpu = {"CUDA_VISIBLE_DEVICES": self._devices[slot]} if spec.device == "cuda" and self._devices else {}
        try:
            self._slots[slot] = spec, Child(run_command(spec, self._store.folder, self._options), gpu)
        except OSError as error:  # The machine may have no memory for another process.
            self._stillborn.append(Ended(spec, 1, [f"the process could not be started: {error}"]))

    def ended(self) -> list[Ended]:
        """Returns the runs whose processes have ended since the last call."""
        ends, self._stillborn = self._stillborn, []
        for slot, running in enumerate(self._slots):
            if running is not None and (code := running[1].ended()) is not None:
                ends.append(Ended(running[0], code, list(running[1].lines)))
                self._slots[slot] = None
        return ends

    def latest(self, spec: Spec) -> str:
        """Returns the last line of a run, without its outcome, which is JSON."""
        children = [child for of, child in filter(None, self._slots) if of == spec]
        lines = reversed(children[0].lines if children else ())
        return next((line for line in lines if not line.startswith("{")), "")

    def stop(self) -> None:
        """Ends all processes, at the same time."""
        children = [child for _, child in filter(None, self._slots)]
        for child in children:
            child.process.terminate()
        for child in children:
            child.stop()
        self._slots = [None] * len(self._slots)
