"""Apple's GPUs and systems without POSIX, played on this one: nobody has tried the real ones."""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sadp_bench.core.clock import Clock
from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widest_dtype
from sadp_bench.core.rng import isolated
from sadp_bench.runs import resolve
from sadp_bench.runs.environment import bf16_is_fast, choose_device, describe
from sadp_bench.runs.peak_memory import PeakMemory, peak_bytes, reset_peak
from tests.commands import command, refused, the_record, tiny_run
from tests.paths import ROOT
from tests.small_runs import SMALL

MPS = torch.device("mps")


def test_an_apple_gpu_that_is_not_there_is_one_line() -> None:
    refused(
        command("run", "--method", "full", "--ratio", 0, "--device", "mps"), "--device mps: PyTorch finds no Apple GPU"
    )


def test_an_apple_gpu_goes_torchs_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    state, waits = [torch.zeros(3)], []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waits.append(1))
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state[0])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda value: state.__setitem__(0, value))
    assert choose_device("mps") == choose_device("mps:0") == MPS
    with pytest.raises(BadInput, match="no Apple GPU of that name"):
        choose_device("mps:1")
    found = describe(MPS, threads=1)
    assert (found["device"], found["kernel"], found["bf16"]) == ("mps", "torch", False) and json.dumps(found)
    assert not bf16_is_fast(MPS) and widest_dtype(MPS) == torch.float32
    with Clock(MPS)("train"):
        pass
    assert waits == [1, 1]
    before = state[0]
    with isolated(0, "weights", MPS):
        state[0] = torch.ones(3)
    assert state[0] is before
    memory = PeakMemory(MPS)
    with memory.tracked():
        reset_peak(MPS)
    assert memory.extra_bytes is None and peak_bytes(MPS) > 0
    given: dict[str, Any] = {**SMALL, "device": "mps"}
    assert resolve.RunRequest.of({**given, "precision": "auto"}).fields["precision"] == "fp32"
    with pytest.raises(BadInput, match="Apple's GPUs have no float64"):
        resolve.RunRequest.of({**given, "precision": "fp64"})


POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "syslog", "posix"}


def test_no_module_needs_posix_to_be_imported() -> None:
    wrong = []
    for path in [*(ROOT / "sadp_bench").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")]:
        for node in ast.parse(path.read_text()).body:  # the top level: what a function imports may be guarded
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names if name in POSIX_ONLY]
    assert not wrong


def test_a_run_needs_nothing_that_windows_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in POSIX_ONLY - {"posix", "tty"}:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("sched_getaffinity", "getloadavg", "sysconf", "killpg", "O_NONBLOCK", "O_DIRECTORY", "O_NOCTTY"):
        monkeypatch.delattr(os, name)
    for name in ("SIGKILL", "SIGALRM", "SIGHUP"):
        monkeypatch.delattr(signal, name)
    answer = tiny_run("random", 0.5, tmp_path, "--no-reference")
    assert answer.code == 0 and the_record(tmp_path, "random")[1]["peak_memory_bytes"] == 0
    assert command("report", tmp_path).code == command("doctor").code == 0
