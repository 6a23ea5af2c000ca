"""Curves of each run for Weights & Biases, an optional package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.training.loggers.base import LoggedRun, Logger, Row, scalars

PROJECT = "sadp-bench"  # project of the runs, without WANDB_PROJECT
SUMMARY = ("test_accuracy", "fitted_loss", "fitted_accuracy", "examples_seen", "density")  # fields of a record


class WandB(Logger):
    """Logs each run as a run of Weights & Biases, with the settings as its config. `WANDB_MODE=offline` keeps it local.

    Args:
        folder: Not used: wandb keeps its files in `$WANDB_DIR` or `./wandb`.

    Raises:
        BadInput: The package wandb is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise BadInput("--log wandb needs wandb: pip install 'sadp-bench[wandb]'") from None
        self._wandb: Any = wandb
        self._run: Any = None

    def start(self, run: LoggedRun) -> None:
        """Begins a run, or continues the run of the same key."""
        self._run = self._wandb.init(
            project=None if "WANDB_PROJECT" in os.environ else PROJECT,
            id=run.key,
            name=run.name,
            config=run.settings,
            resume="allow",
            reinit="finish_previous",
        )

    def epoch(self, row: Row) -> None:
        """Logs the numbers of an epoch."""
        self._run.log(scalars(row), step=row["epoch"] + 1)

    def end(self, record: dict[str, Any] | None) -> None:
        """Adds the final numbers and ends the run; without a record it ends as failed."""
        if self._run is None:
            return
        if record is not None:
            self._run.summary.update({name: record[name] for name in SUMMARY if record.get(name) is not None})
        self._run.finish(exit_code=0 if record is not None else 1)
        self._run = None
