"""Every example of docs/examples trains for two epochs: in this process, or under torchrun as a reader would run it."""

from __future__ import annotations

import io
import os
import re
import runpy
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.paths import ROOT

EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
CHANCE = 0.1


def test_there_is_one_for_every_kind_of_loop_and_each_is_short() -> None:
    kinds = {path.stem.removeprefix("own_loop_"): len(path.read_text().splitlines()) for path in EXAMPLES}
    assert set(kinds) == {"accelerate", "ann", "ddp", "lightning", "snntorch", "spikingjelly"}
    assert max(kinds.values()) < 80


def under_torchrun(path: Path) -> str:
    """Runs an example on two processes and returns its output."""
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        path,
        "--epochs",
        "2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "UserWarning" in line and "sadp_bench" in line]
    return done.stdout


def in_process(path: Path) -> str:
    """Runs an example in this process and returns its output."""
    output = io.StringIO()
    with (
        patch.object(sys, "argv", [str(path), "--epochs", "2"]),
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(output),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("default")
        runpy.run_path(str(path), run_name="__main__")
    assert not [str(one) for one in warned if one.category is UserWarning and "sadp_bench" in str(one)]
    return output.getvalue()


def trains_within_its_budget(path: Path) -> None:
    """Checks the accuracy and the budget that an example prints."""
    if "accelerate" in path.stem:
        pytest.importorskip("accelerate")
    output = under_torchrun(path) if path.stem.endswith(("ddp", "accelerate")) else in_process(path)
    [accuracy] = re.findall(r"^accuracy (\d\.\d+)", output, re.MULTILINE)
    [saved] = re.findall(r"^saved (\d\.\d+) of the visits", output, re.MULTILINE)
    assert float(accuracy) > 3 * CHANCE and abs(float(saved) - 0.5) < 0.005


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains_and_keeps_its_budget(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trains_within_its_budget(path)
    assert list(tmp_path.iterdir()) == []


def test_lightnings_epochs_may_grow_and_have_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [path] = (path for path in EXAMPLES if "lightning" in path.stem)
    text = path.read_text()
    for old, new in (("SADP(0.5)", "SADP(0.5).with_budget('rising')"), ("sampler))\n", "sampler), num_workers=1)\n")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / path.name).write_text(text)
    trains_within_its_budget(tmp_path / path.name)


def test_the_page_of_the_loop_links_every_example() -> None:
    page = (ROOT / "docs" / "own-loop.md").read_text()
    assert all(f"](examples/{path.name})" in page for path in EXAMPLES)
