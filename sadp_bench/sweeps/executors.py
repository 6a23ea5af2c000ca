"""Where a sweep's runs take place: processes of this machine, or tasks on a Ray cluster. Every run is a process of its own.

An executor starts runs and tells how their processes ended; which run is next, and what an end means, is the scheduler's.
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
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sadp_bench.core.errors import BadInput
from sadp_bench.records.spec import Spec, option
from sadp_bench.records.store import Store

NUM_LINES = 20
LONGEST_LINE = 500
STOP_SECONDS = 10.0  # for a process to end by itself before it is killed


class Ended(NamedTuple):
    """A process's end. code: as `subprocess` has it, a signal negative. lines: the last that it printed.

    lost: its worker or machine went away, which says nothing against the run.
    """

    spec: Spec
    code: int
    lines: list[str]
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """How a sweep goes about its runs. Raises BadInput for a value that makes no sense.

    jobs: that share a machine. retries: of a run that crashed. executor: "local" or "ray", and for ray the cluster's address
    (None: a Ray of this machine) and the GPUs of a run on "cuda" (None: one).
    """

    jobs: int = 1
    retries: int = 1
    data: Path | None = None
    checkpoint_seconds: float = 60.0
    executor: str = "local"
    address: str | None = None
    gpus_per_run: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("jobs", 1), ("retries", 0), ("checkpoint_seconds", 0)):
            if not least <= getattr(self, name) < math.inf:
                raise BadInput(f"{option(name)} is at least {least}, not {getattr(self, name)}")
        if self.executor not in ("local", "ray"):
            raise BadInput(f"--executor is local or ray, not '{self.executor}'")
        for name in ("address", "gpus_per_run"):
            if getattr(self, name) is not None and self.executor != "ray":
                raise BadInput(f"{option(name)} belongs to --executor ray")
        if self.gpus_per_run is not None and not 0 < self.gpus_per_run < math.inf:
            raise BadInput(f"--gpus-per-run is above 0, such as 0.25, not {self.gpus_per_run}")


class Executor(ABC):
    """shares_folder: whether its processes write to the sweep's own folder, and so take the runs' locks themselves."""

    shares_folder: bool

    @abstractmethod
    def room(self) -> int:
        """How many more runs can be started now."""

    @abstractmethod
    def start(self, spec: Spec, earlier: int) -> None:
        """Begins a run, for the time after so many earlier ones. What goes wrong is told by `ended`."""

    @abstractmethod
    def ended(self) -> list[Ended]:
        """The runs that have ended since the last call. Does not wait."""

    @abstractmethod
    def latest(self, spec: Spec) -> str:
        """What a run that goes on last printed."""

    @abstractmethod
    def stop(self) -> None:
        """Ends all runs that go on, and the executor."""


def words(spec: Spec, out: Path, options: Options) -> list[str]:
    """The command that makes one run of the sweep and nothing else.

    -P: without it Python would import modules that lie in the current folder, which may be a stranger's.
    setpriv, where the system has it: a process whose parent is killed would go on unwatched.
    """
    tied = [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
    given = ["--data", str(options.data)] if options.data else []
    return [
        *(*tied, sys.executable, "-P", "-m", "sadp_bench", "run", *spec.words(), "--no-reference", "--json"),
        *("--out", str(out), "--concurrent-jobs", str(options.jobs)),
        *("--checkpoint-seconds", f"{options.checkpoint_seconds:g}", *given),
    ]


class Child:
    """A process in a group of its own, which a terminal's Ctrl-C doesn't reach, and the last lines that it printed."""

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
            # So that a process that is killed, or crashes in native code, has said what it had to say.
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline(100 * LONGEST_LINE):
            if text := printable(line):
                self.lines.append(text)

    def ended(self) -> int | None:
        """Its exit code; None while it goes on."""
        code = self.process.poll()
        if code is not None:
            self._reader.join(1.0)  # longer only where a grandchild keeps the pipe open
        return code

    def wait(self) -> int:
        code = self.process.wait()
        self._reader.join(1.0)
        return code

    def stop(self) -> None:
        """Waits for it after `process.terminate()`, and kills its group where it doesn't end."""
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def printable(line: str) -> str:
    """One line that can't steer a terminal, not too long."""
    return "".join(sign for sign in line if sign.isprintable()).rstrip()[:LONGEST_LINE]


class Local(Executor):
    """So many processes at a time on this machine. They write to the store, and hold their locks, themselves.

    devices: CUDA's names of the GPUs, one a job, for runs on "cuda".
    """

    shares_folder = True

    def __init__(self, store: Store, options: Options, devices: Sequence[str] = ()) -> None:
        self._store, self._options, self._devices = store, options, devices
        self._slots: list[tuple[Spec, Child] | None] = [None] * options.jobs
        self._stillborn: list[Ended] = []

    def room(self) -> int:
        return self._slots.count(None)

    def start(self, spec: Spec, earlier: int) -> None:
        slot = self._slots.index(None)
        own = {"CUDA_VISIBLE_DEVICES": self._devices[slot]} if spec.device == "cuda" and self._devices else {}
        try:
            self._slots[slot] = spec, Child(words(spec, self._store.folder, self._options), own)
        except OSError as error:  # no memory for another process, say
            self._stillborn.append(Ended(spec, 1, [f"the process could not be started: {error}"]))

    def ended(self) -> list[Ended]:
        ends, self._stillborn = self._stillborn, []
        for slot, running in enumerate(self._slots):
            if running is not None and (code := running[1].ended()) is not None:
                ends.append(Ended(running[0], code, list(running[1].lines)))
                self._slots[slot] = None
        return ends

    def latest(self, spec: Spec) -> str:
        children = [child for of, child in filter(None, self._slots) if of == spec]
        lines = reversed(children[0].lines if children else ())
        return next((line for line in lines if not line.startswith("{")), "")  # the outcome, as JSON, is for programs

    def stop(self) -> None:
        children = [child for _, child in filter(None, self._slots)]
        for child in children:
            child.process.terminate()  # all of them first, so that they end side by side
        for child in children:
            child.stop()
        self._slots = [None] * len(self._slots)
