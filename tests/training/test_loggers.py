"""Loggers receive the rows of the record, off the clock, and never end a run."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sadp_bench
from sadp_bench import BadInput, LoggedRun, Logger
from sadp_bench.core import clock
from sadp_bench.records.store import Store, read
from sadp_bench.runs.run import run
from sadp_bench.training.loggers.base import make_loggers
from tests.commands import refused, tiny_run
from tests.small_runs import EvenTime, resolved
from tests.stopping import Stopped, StopsAt

TINY = {"epochs": 2, "train_examples": 256, "threads": 1, "set": {"backbone.width": 4}, "quiet": True}


class Keeping(Logger):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def start(self, run: LoggedRun) -> None:
        self.events.append(("start", run))

    def epoch(self, row: dict[str, Any]) -> None:
        self.events.append(("epoch", row))

    def end(self, record: dict[str, Any] | None) -> None:
        self.events.append(("end", record))


def test_a_logger_receives_the_rows_of_the_reference_and_the_run(tmp_path: Path) -> None:
    logger = Keeping()
    outcome = sadp_bench.run("random", 0.5, out=tmp_path, log=logger, **TINY)
    assert [name for name, _ in logger.events] == ["start", "epoch", "epoch", "end"] * 2
    assert outcome.reference_path is not None
    for path, number in ((outcome.reference_path, 0), (outcome.path, 4)):
        record = read(path)
        (_, begun), *rows, (_, ended) = logger.events[number : number + 4]
        assert begun.key == record.spec.key and begun.settings == record.spec.flat() and begun.rows == []
        assert [row for _, row in rows] == record.epochs
        assert json.loads(json.dumps(ended)) == json.loads(path.read_text())


def test_a_logger_is_off_the_clock_and_no_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number, loggers in enumerate(([], [Slow()])):
        monkeypatch.setattr(clock, "time", time := EvenTime())
        Slow.time = time
        spec, material = resolved(method="random", ratio=0.5)
        outcome = run(spec, material, Store(tmp_path / str(number)), StopsAt(), reference=False, loggers=loggers)
        assert outcome is not None
        found.append(outcome.comparison.record)
    assert found[0].seconds == found[1].seconds and found[0].spec.key == found[1].spec.key
    assert Slow.time.wall > 3000


class Slow(Logger):
    """Takes a thousand seconds at each event, by a clock on which time passes where it is read."""

    time: Any

    def _pass(self, event: Any) -> None:
        for _ in range(1000):
            self.time.perf_counter()

    start = epoch = end = _pass


def test_a_logger_that_fails_is_left_out_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(Logger):
        def epoch(self, row: dict[str, Any]) -> None:
            row.clear()
            raise OSError("no space left\non the device")

    keeping = Keeping()
    settings = TINY | {"quiet": False}
    outcome = sadp_bench.run("random", 0.5, out=tmp_path, reference=False, log=[Failing(), keeping], **settings)
    assert [row for name, row in keeping.events if name == "epoch"] == outcome.comparison.record.epochs
    lines = [line for line in capsys.readouterr().err.splitlines() if "Failing" in line]
    assert (
        len(lines) == 1
        and "is left out from here on: its epoch raised OSError: no space left on the device" in lines[0]
    )


def test_an_interrupted_run_has_each_epoch_once_in_its_table(tmp_path: Path) -> None:
    spec, material = resolved(method="random", ratio=0.5, epochs=4)
    ends = Keeping()
    for progress in (StopsAt(3), StopsAt()):
        loggers = [*make_loggers("csv", tmp_path), ends]
        try:
            run(spec, material, Store(tmp_path), progress, reference=False, checkpoint_seconds=0, loggers=loggers)
        except Stopped:
            assert ends.events[-1] == ("end", None)
    record = Store(tmp_path).find(spec)
    assert record is not None and record.interruptions == 1
    [path] = (tmp_path / "logs").iterdir()
    assert path.name == Store(tmp_path).path(spec, ".csv").name
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train_loss"]) for row in rows] == [row["train_loss"] for row in record.epochs]
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]


def test_tensorboard_shows_the_curves_of_the_rows(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    outcome = sadp_bench.run("random", 0.5, out=tmp_path, reference=False, log="tensorboard,csv", **TINY)
    events = accumulator.EventAccumulator(str(tmp_path / "logs" / outcome.path.stem))
    events.Reload()
    for name in ("train_loss", "test_accuracy", "kept"):
        points = {point.step: point.value for point in events.Scalars(name)}
        wanted = {row["epoch"] + 1: row[name] for row in outcome.comparison.record.epochs if name in row}
        assert points == pytest.approx(wanted, rel=1e-6), name
    assert (tmp_path / "logs" / f"{outcome.path.stem}.csv").exists()


def test_wandb_receives_the_config_the_rows_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    logged = SimpleNamespace(
        log=lambda row, step: calls.append((step, row)),
        summary=SimpleNamespace(update=calls.append),
        finish=lambda exit_code: calls.append(exit_code),
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **how: calls.append(how) or logged))
    outcome = sadp_bench.run("random", 0.5, out=tmp_path, reference=False, log=["wandb"], **TINY)
    begun, first, second, summary, code = calls
    record = outcome.comparison.record
    assert begun["id"] == record.spec.key and begun["config"]["method"] == "random"
    for (step, row), of_record in zip((first, second), record.epochs, strict=True):
        assert step == of_record["epoch"] + 1 and row == {key: of_record[key] for key in of_record if key != "epoch"}
    assert summary["test_accuracy"] == record.test_accuracy and code == 0


def test_a_logger_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    refused(tiny_run("random", 0.5, tmp_path, "--log", "wandb"), "pip install 'sadp-bench[wandb]'")
    refused(tiny_run("random", 0.5, tmp_path, "--log", "csv,tensorbord"), "csv, tensorboard, wandb", "'tensorbord'")
    refused(tiny_run("random,sadp", 0.5, tmp_path, "--log", "tensorbord"), "csv, tensorboard, wandb", "'tensorbord'")
    assert not list(tmp_path.iterdir())
    for wrong in (5, [[]], [None]):
        with pytest.raises(BadInput, match="--log is one or more of csv, tensorboard, wandb"):
            make_loggers(wrong, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="take loggers by name"):
        sadp_bench.run(["random"], 0.5, out=tmp_path, log=Keeping(), **TINY)
