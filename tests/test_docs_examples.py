"""Every example of docs/examples trains for two epochs, run as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
CHANCE = 0.1


def test_there_is_one_for_every_kind_of_loop_and_each_is_short() -> None:
    kinds = {path.stem.removeprefix("own_loop_"): len(path.read_text().splitlines()) for path in EXAMPLES}
    assert set(kinds) == {"ann", "ddp", "lightning", "snntorch", "spikingjelly"}
    assert max(kinds.values()) < 80


def trains_within_its_budget(path: Path, folder: Path) -> str:
    """Runs an example as a process, checks its accuracy and budget, and returns its stderr."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if "ddp" in path.stem else []
    words = [sys.executable, *torchrun, str(path), "--epochs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [accuracy] = re.findall(r"^accuracy (\d\.\d+)", done.stdout, re.MULTILINE)
    [saved] = re.findall(r"^saved (\d\.\d+) of the visits", done.stdout, re.MULTILINE)
    assert float(accuracy) > 3 * CHANCE and abs(float(saved) - 0.5) < 0.005
    return done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains_and_keeps_its_budget(path: Path, tmp_path: Path) -> None:
    errors = trains_within_its_budget(path, tmp_path)
    assert "UserWarning" not in "".join(line for line in errors.splitlines() if "sadp_bench" in line)
    assert list(tmp_path.iterdir()) == []


def test_lightnings_epochs_may_grow_and_have_workers(tmp_path: Path) -> None:
    [path] = (path for path in EXAMPLES if "lightning" in path.stem)
    text = path.read_text()
    for old, new in (("SADP(0.5)", "SADP(0.5, schedule='rising')"), ("sampler))\n", "sampler), num_workers=1)\n")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / path.name).write_text(text)
    trains_within_its_budget(tmp_path / path.name, tmp_path)


def test_the_page_of_the_loop_links_every_example() -> None:
    page = (ROOT / "docs" / "own-loop.md").read_text()
    assert all(f"](examples/{path.name})" in page for path in EXAMPLES)
