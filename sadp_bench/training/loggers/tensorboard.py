"""Curves of each run for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.training.loggers.base import LoggedRun, Logger, Row, scalars


class TensorBoard(Logger):
    """Writes event files to a folder for each run: a curve for each number of the rows, over the epochs done.

    Args:
        folder: Folder of the runs' folders, for `tensorboard --logdir`.

    Raises:
        BadInput: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise BadInput("--log tensorboard needs TensorBoard: pip install tensorboard") from None
        self._folder, self._make = folder, SummaryWriter
        self._writer: Any = None

    def start(self, run: LoggedRun) -> None:
        """Begins the run's events. TensorBoard hides the events that an interrupted run wrote after its last checkpoint."""
        self._writer = self._make(str(self._folder / run.name), purge_step=len(run.rows) + 1)
        rows = "\n".join(f"| {name} | {value} |" for name, value in run.settings.items())
        self._writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{rows}")

    def epoch(self, row: Row) -> None:
        """Adds a point to each curve."""
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row["epoch"] + 1)
        self._writer.flush()

    def end(self, record: dict[str, Any] | None) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
