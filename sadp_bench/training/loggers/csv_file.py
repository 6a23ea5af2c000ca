"""A table of the epochs of each run, as a file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from sadp_bench.records.store import atomic
from sadp_bench.training.loggers.base import LoggedRun, Logger, Row


class CSV(Logger):
    """Writes `<run>.csv`: a row for each epoch, a column for each number. The file is whole after every epoch.

    Args:
        folder: Folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder
        self._rows: list[Row] = []

    def start(self, run: LoggedRun) -> None:
        """Begins the file, with the epochs that are finished already."""
        self._path, self._rows = self._folder / f"{run.name}.csv", list(run.rows)
        if self._rows:
            self._write()

    def epoch(self, row: Row) -> None:
        """Adds a row."""
        self._rows.append(row)
        self._write()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        table = csv.DictWriter(text, names, lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows)
        with atomic(self._path) as file:
            file.write(text.getvalue().encode())
