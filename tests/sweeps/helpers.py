"""Small sweep files and the plans made of them."""

from __future__ import annotations

from pathlib import Path

from sadp_bench.records.store import Store
from sadp_bench.sweeps import planning

GOOD = '[[sweep]]\nmethod = "random"\nratio = 0.5\n'
TINY = """
[common]
epochs = 2
train_examples = 256
threads = 1
set.backbone.width = 4
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "a.toml"
    path.write_text(text)
    return path


def planned(folder: Path, text: str, **how):
    return planning.make_plan(written(folder, text), Store(folder / "runs"), **how)
