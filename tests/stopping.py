"""Small runs that stop at some batch, for the tests of resumed runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sadp_bench.core import registry
from sadp_bench.core.progress import Progress
from sadp_bench.records.record import Record
from sadp_bench.records.store import Store
from sadp_bench.runs.run import run
from sadp_bench.runs.trainer import RunTrainer
from sadp_bench.training.checkpoint import Checkpoint
from tests.small_runs import make_trainer, resolved, short_scoring, weights_of

METHODS = {name: 0.0 if name == "full" else 0.4 for name in registry.table("method")}
SIZES: dict[str, Any] = {"epochs": 4, "train_examples": 101, "batch_size": 17, "augment": "crop-flip"}
OPTIONS = {name: short_scoring(name) for name in METHODS} | {
    name: {"score_epochs": 2, "score_runs": 2} for name in ("el2n", "grand")
}


class Stopped(Exception):
    pass


class StopsAt(Progress):
    """Interrupts the run at a batch; counts batches and keeps the messages."""

    def __init__(self, batch: int | None = None) -> None:
        self.batch, self.count, self.messages = batch, 0, list[str]()

    def advance(self, visits: int) -> None:
        self.count += 1
        if self.count == self.batch:
            raise Stopped

    def message(self, line: str) -> None:
        self.messages.append(line)


class Seconds:
    """A clock that only the test moves."""

    def __init__(self, monkeypatch: Any) -> None:
        self.now = 0.0
        for name in ("perf_counter", "monotonic", "process_time"):
            monkeypatch.setattr(time, name, lambda: self.now)


class OneSecondABatch(StopsAt):
    """A batch takes a second."""

    def __init__(self, seconds: Seconds, batch: int | None = None) -> None:
        super().__init__(batch)
        self.seconds = seconds

    def advance(self, visits: int) -> None:
        self.seconds.now += 1
        super().advance(visits)


def requested(method: str, **more: Any) -> tuple[Any, Any]:
    return resolved(**SIZES | {"method": method, "ratio": METHODS[method], "set": OPTIONS.get(method, {})} | more)


def saved(
    spec: Any, material: Any, folder: Path, progress: Progress | None = None, every: float = 0.0, **how: Any
) -> RunTrainer:
    """Returns a run whose checkpoint lies in the folder."""
    progress = progress or Progress()
    checkpoint = Checkpoint(folder / "run.ckpt", every, {"key": spec.key}, progress.message)
    return make_trainer(spec, material, progress, checkpoint=checkpoint, **how)


def whole(spec: Any, material: Any) -> tuple[Record, dict[str, torch.Tensor], int]:
    trainer = make_trainer(spec, material, progress := StopsAt())
    record = trainer.run()
    return record, weights_of(trainer.model), progress.count


def resumed(spec: Any, material: Any, stop: int, folder: Path) -> tuple[Record, RunTrainer]:
    """Returns the record of a run that was stopped at a batch and started again, and its trainer."""
    with pytest.raises(Stopped):
        saved(spec, material, folder, StopsAt(stop)).run()
    trainer = saved(spec, material, folder, progress := StopsAt(), starts=2)
    record = trainer.run()
    assert not any("set aside" in line or "begins anew" in line for line in progress.messages), progress.messages
    return record, trainer


def run_it(method: str, out: Path, progress: Progress | None = None, **how: Any) -> Any:
    spec, material = requested(method)
    how = {"reference": False, "checkpoint_seconds": 0.0} | how
    return run(spec, material, Store(out), progress or Progress(), **how)
