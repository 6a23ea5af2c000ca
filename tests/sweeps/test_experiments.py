"""The sweep files of this project."""

from __future__ import annotations

from pathlib import Path

import pytest

from sadp_bench.runs.resolve import RunRequest
from sadp_bench.sweeps.sweep_file import read_sweep

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("**/*.toml")), ids=lambda path: path.stem)
def test_every_run_of_an_experiment_is_accepted(path: Path) -> None:
    for run in read_sweep(path):
        # Not every machine has the C core or a GPU.
        RunRequest.of(run.fields | {"kernel": "python", "device": "cpu"})
