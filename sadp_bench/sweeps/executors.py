"""Executors of a sweep's runs: this machine, a Ray cluster, or Slurm jobs. Every run has its own process.

An executor starts runs and returns how their processes ended. The scheduler chooses the next run and decides about retries.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sadp_bench.core.errors import BadInput
from sadp_bench.core.time_limit import TimeLimit
from sadp_bench.records.fields import check_count, option
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.sweeps.processes import Child, Start, fresh
from sadp_bench.sweeps.warm import CAN_FORK, Warm
from sadp_bench.training.loggers.base import make_loggers

EXECUTORS = ("local", "ray", "slurm")


class Ended(NamedTuple):
    """The end of a run's process.

    Attributes:
        spec: The run.
        code: The exit code, or minus the signal's number, as in `subprocess`.
        lines: The last lines that the process printed.
        lost: Whether the run ended because its worker or machine was lost.
    """

    spec: Spec
    code: int
    lines: list[str]
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a sweep. Raises BadInput for a value that is not allowed.

    Attributes:
        jobs: The number of runs that share a machine.
        retries: The number of further tries of a run that crashed.
        data: The folder of the data sets.
        checkpoint_seconds: Seconds between two checkpoints of a run.
        executor: One of `EXECUTORS`.
        address: The address of the Ray cluster; None starts Ray on this machine.
        gpus_per_run: The GPUs of a run on "cuda" with Ray; None means one.
        sources: Keys of the runs that keep their scores.
        slurm: The settings of Slurm jobs, such as "partition".
        log: The loggers of the runs, as in `--log`; None for none.
        limit: The time limit of the sweep, for the executor "local" only.
    """

    jobs: int = 1
    retries: int = 1
    data: Path | None = None
    checkpoint_seconds: float = 60.0
    executor: str = "local"
    address: str | None = None
    gpus_per_run: float | None = None
    limit: TimeLimit = field(default_factory=TimeLimit)
    log: str | None = None
    slurm: Mapping[str, str] = field(default_factory=dict)
    sources: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_count("jobs", self.jobs, 1)
        check_count("retries", self.retries, 0)
        if not 0 <= self.checkpoint_seconds < math.inf:
            raise BadInput(f"--checkpoint-seconds is at least 0, not {self.checkpoint_seconds}")
        if self.executor not in EXECUTORS:
            raise BadInput(f"--executor is one of {', '.join(EXECUTORS)}, not '{self.executor}'")
        if self.slurm and self.executor != "slurm":
            raise BadInput("--slurm belongs to --executor slurm")
        if self.executor == "slurm" and self.jobs != 1:
            raise BadInput(
                f"--jobs {self.jobs} is the number of runs that share a machine; to limit the Slurm jobs at a time, "
                f"write --slurm jobs={self.jobs}"
            )
        for name in ("address", "gpus_per_run"):
            if getattr(self, name) is not None and self.executor != "ray":
                raise BadInput(f"{option(name)} belongs to --executor ray")
        if self.executor != "local" and self.limit.minutes is not None:
            raise BadInput(
                "--minutes belongs to --executor local, because runs of a cluster wait for their turn; with Slurm, limit "
                "each job by --slurm timeout_min=N"
            )
        make_loggers(self.log, Path())  # refuses an unknown logger before any run starts
        if self.executor == "ray" and self.log is not None and set(self.log.split(",")) != {"wandb"}:
            raise BadInput(f"--log {self.log} writes files that stay on a worker of the Ray cluster; take --log wandb")
        if self.gpus_per_run is not None and not 0 < self.gpus_per_run < math.inf:
            raise BadInput(f"--gpus-per-run is above 0, such as 0.25, not {self.gpus_per_run}")


class Executor(ABC):
    """Starts runs and returns how their processes ended.

    Attributes:
        shares_folder: Whether the processes write to the sweep's folder. They then hold the locks of their runs.
    """

    shares_folder: bool

    @abstractmethod
    def capacity(self) -> int:
        """Returns how many runs can train at the same time now."""

    @abstractmethod
    def start(self, spec: Spec, earlier: int) -> None:
        """Begins a run after `earlier` other tries. If it cannot begin, `ended` returns the failure."""

    @abstractmethod
    def ended(self) -> list[Ended]:
        """Returns the runs that have ended since the last call, without waiting."""

    @abstractmethod
    def latest(self, spec: Spec) -> str:
        """Returns the last printed line of a run that is training."""

    @abstractmethod
    def stop(self) -> None:
        """Ends all runs that are training, and the executor."""


def run_words(spec: Spec, out: Path, options: Options) -> list[str]:
    """Returns the words after `sadp-bench` that train one run of the sweep, without its reference."""
    given = ["--data", str(options.data)] if options.data else []
    left = options.limit.left()
    given += [] if left is None else ["--minutes", f"{left:.3f}"]
    given += ["--log", options.log] if options.log else []
    given += ["--save-scores"] if spec.key in options.sources else []
    return [
        *("run", *spec.words(), "--no-reference", "--json", "--out", str(out), "--concurrent-jobs", str(options.jobs)),
        *("--checkpoint-seconds", f"{options.checkpoint_seconds:g}", *given),
    ]


class Local(Executor):
    """Processes of this machine. They write to the store and hold their locks.

    Runs on the CPU are forked from a warm process where the system can fork. Runs on a GPU start in a new interpreter,
    because CUDA does not work in a fork of a process that has used it.

    Args:
        store: The sweep's records.
        options: The sweep's options.
        devices: The GPUs of the jobs as CUDA_VISIBLE_DEVICES names them, one for each job, for runs on "cuda".
    """

    shares_folder = True

    def __init__(self, store: Store, options: Options, devices: Sequence[str] = ()) -> None:
        self._store, self._options, self._devices = store, options, devices
        self._slots: list[tuple[Spec, Child] | None] = [None] * options.jobs
        self._stillborn: list[Ended] = []
        self._warm = Warm() if CAN_FORK else None

    def capacity(self) -> int:
        """Returns the number of jobs."""
        return len(self._slots)

    def start(self, spec: Spec, earlier: int) -> None:
        """Starts a run's process in a free job, on the job's GPU."""
        slot = self._slots.index(None)
        gpu = {"CUDA_VISIBLE_DEVICES": self._devices[slot]} if spec.device == "cuda" and self._devices else {}
        start: Start = self._warm.start if self._warm and spec.device == "cpu" else fresh
        try:
            self._slots[slot] = spec, start(run_words(spec, self._store.folder, self._options), gpu)
        except OSError as error:  # such as too little memory for another process
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
        """Returns the last printed line of a run, except its outcome, which is JSON."""
        children = [child for of, child in filter(None, self._slots) if of == spec]
        lines = reversed(children[0].lines if children else ())
        return next((line for line in lines if not line.startswith("{")), "")

    def stop(self) -> None:
        """Ends all processes, at the same time."""
        children = [child for _, child in filter(None, self._slots)]
        for child in children:
            child.terminate()
        for child in children:
            child.stop()
        self._slots = [None] * len(self._slots)
        if self._warm:
            self._warm.close()
