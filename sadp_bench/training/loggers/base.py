"""The interface of a logger, and the calls of a run's loggers, which are not charged and never end the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.strangers import described
from sadp_bench.records.record import is_number
from sadp_bench.training.loggers import FOLDER, LOGGERS

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """A run, as its loggers receive it.

    Attributes:
        name: The name of its record's file without the ending; it ends in the key.
        key: The run's key.
        settings: All settings, such as "method", "ratio" and "backbone.width".
        rows: The rows of the epochs that an earlier part of the run finished.
    """

    name: str
    key: str
    settings: dict[str, Any]
    rows: Sequence[Row]


class Logger:
    """Receives the events of runs, one run after the other. Override the methods that you need.

    The calls are not charged, and loggers are no part of the run's key. An error that a call raises is reported, and the
    run goes on without the logger.
    """

    def start(self, run: LoggedRun) -> None:
        """Called before the first epoch, and again where a run goes on from its checkpoint."""

    def epoch(self, row: Row) -> None:
        """Called after each epoch, with its row of the record: `epoch` (from 0), `kept`, `train_loss` and the like.

        The row has `test_accuracy` where the epoch was evaluated.
        """

    def end(self, record: dict[str, Any] | None) -> None:
        """Called once at the end, with the content of the record's file; None: the run failed or was interrupted."""


class Loggers(Logger):
    """Passes the events on to several loggers, and drops a logger that raises an error.

    Args:
        loggers: The loggers to call.
        report: Receives a line for the user.
    """

    def __init__(self, loggers: Iterable[Logger], report: Callable[[str], None]) -> None:
        self._loggers, self._report = list(loggers), report

    def start(self, run: LoggedRun) -> None:
        """See `Logger.start`."""
        self._call("start", run)

    def epoch(self, row: Row) -> None:
        """See `Logger.epoch`. Each logger has its own copy of the row."""
        self._call("epoch", dict(row))

    def end(self, record: dict[str, Any] | None) -> None:
        """See `Logger.end`."""
        self._call("end", record)

    def _call(self, name: str, value: Any) -> None:
        for logger in list(self._loggers):
            try:
                getattr(logger, name)(dict(value) if isinstance(value, dict) else value)
            except Exception as error:  # a stranger's code, a full disk, a lost network
                self._loggers.remove(logger)
                self._report(
                    f"the logger {type(logger).__name__} is left out from here on: its {name} raised {described(error)}"
                )


def scalars(row: Row) -> dict[str, float]:
    """Returns the numbers of a row, except the epoch's."""
    return {name: float(value) for name, value in row.items() if name != "epoch" and is_number(value)}


def make_loggers(wanted: str | Logger | Iterable[str | Logger] | None, out: Path) -> list[Logger]:
    """Returns loggers: each wanted one, built from its name unless it is a logger already.

    Args:
        wanted: Names in `LOGGERS`, also as one text with commas, or loggers; None: none.
        out: The folder of the records.

    Raises:
        BadInput: There is no such logger, or its package is not installed.
    """
    given: list[Any] = [] if wanted is None else [wanted]
    if isinstance(wanted, Iterable) and not isinstance(wanted, str):
        given = list(wanted)
    flat = [part for each in given for part in (each.split(",") if isinstance(each, str) else [each])]
    distinct = [each for place, each in enumerate(flat) if each not in flat[:place]]
    return [each if isinstance(each, Logger) else _made(each, out / FOLDER) for each in distinct]


def _made(name: Any, folder: Path) -> Logger:
    if not isinstance(name, str) or name not in LOGGERS:
        raise BadInput(
            f"--log is one or more of {', '.join(LOGGERS)} (from Python also a sadp_bench.Logger), not {str(name)[:60]!r}"
        )
    made: Logger = registry.load(LOGGERS[name])(folder)
    return made
