"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

Data = Annotated[Path | None, Option(help="Folder of the data sets.", show_default="$SADP_BENCH_DATA, or a cache")]
CheckpointSeconds = Annotated[
    float, Option(help="Write a checkpoint at the first epoch end after so many; 0: at every.")
]
AsJson = Annotated[bool, Option("--json", help="One JSON object on stdout, nothing else there.")]
Quiet = Annotated[bool, Option(help="No progress.")]
