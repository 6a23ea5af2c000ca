"""A small claim file, and records of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sadp_bench.claims.claim_file import read_claim
from sadp_bench.claims.runs import wants
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from tests.example_records import make_record

HEAD = """
[claim]
text = "Random sampling is far below full data."
source = "Nobody, 2020, Table 1."
"""
METRIC = """
[[metric]]
name = "random minus full"
kind = "accuracy_difference"
of = { method = "random" }
against = "full"
at_most = -2
"""
SWEEP = """
[common]
epochs = 3
evaluate_every = 1
set.backbone.width = 4
seed = [0, 1, 2]

[[sweep]]
method = ["random", "el2n"]
ratio = 0.5
"""
GOOD = HEAD + METRIC + SWEEP


def written(folder: Path, text: str = GOOD, name: str = "a") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def wanted_specs(path: Path) -> list[Spec]:
    """Returns the specs of the runs that a file's metrics read, with another machine's facts."""
    claim = read_claim(path)
    specs = {run.key: run.spec for rows in wants(claim).values() for row in rows for run in row}
    elsewhere: dict[str, Any] = {"device": "cuda:0", "precision": "bf16", "threads": 7, "train_examples": 1437}
    return [spec.of_valid(**elsewhere) for spec in specs.values()]


def recorded(path: Path, folder: Path, accuracies: dict[tuple[str, int], float], **fields: Any) -> Path:
    """Writes a record of each run that a claim file's metrics read, with the accuracy of its method and seed."""
    for spec in wanted_specs(path):
        Store(folder).write(make_record(spec, accuracies[spec.method, spec.seed], **fields))
    return folder
