"""A process of a run on several ends in one line where its partner is killed or never comes, or was not torchrun's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sadp_bench.core import distributed
from sadp_bench.core.errors import PartnerLost
from tests.commands import command

# Two ranks without torchrun. They are forked because a start of PyTorch takes seconds.
TWO_RANKS = """
import json, os, signal, sys, time
from pathlib import Path
from sadp_bench.cli import app
from sadp_bench.core import distributed
from sadp_bench.runs import run

def rank(number):
    if fork := os.fork():
        return fork
    os.environ["RANK"] = str(number)
    try:
        app.main(json.loads(sys.argv[1]))
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(end.code or 0)

first, second = rank(0), rank(1)
while not list(Path(sys.argv[2]).glob("*.before")):
    time.sleep(0.01)
os.kill(second, signal.SIGKILL)
since = time.monotonic()
print(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]), time.monotonic() - since)
"""
RUN = ["run", "--method", "random", "--ratio", 0.5, "--train-examples", 128, "--batch-size", 32, "--epochs", 200]
RUN += ["--threads", 1, "--device", "cpu", "--set", "backbone.width=4", "--no-reference", "--checkpoint-seconds", 0]


def test_where_one_of_two_processes_is_killed_the_other_ends_in_one_line_and_keeps_the_checkpoint(
    tmp_path: Path,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    there = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    words = json.dumps([str(word) for word in [*RUN, "--quiet", "--out", tmp_path]])
    ended = subprocess.run(
        [sys.executable, "-c", TWO_RANKS, words, tmp_path],
        env={**os.environ, "TORCH_CPP_LOG_LEVEL": "FATAL", "CUDA_VISIBLE_DEVICES": "", **there},
        capture_output=True,
        text=True,
        timeout=120,
    )
    code, seconds = ended.stdout.split()
    assert code == "1" and float(seconds) < 60, ended
    assert ended.stderr.count("\n") == 1 and "another of the 2 processes of this run has ended" in ended.stderr, ended
    assert list(tmp_path.glob("*.ckpt")) and not list(tmp_path.glob("*.json"))


def test_an_environment_that_is_not_torchruns_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "LOCAL_WORLD_SIZE": "2",
    }
    wrong: list[tuple[dict[str, str], str]] = [
        ({"RANK": "", "MASTER_ADDR": "", "MASTER_PORT": ""}, "WORLD_SIZE=2, but no RANK, MASTER_ADDR, MASTER_PORT"),
        ({"MASTER_ADDR": ""}, "but no MASTER_ADDR"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two, and it must be a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"RANK": "2"}, "RANK is at least its WORLD_SIZE 2"),
        ({"RANK": "-1"}, "RANK=-1"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT=http"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT is no port"),
    ]
    for changed, expected in wrong:
        for name, value in {**there, **changed}.items():
            monkeypatch.setenv(name, value)
        answer = command("run", "--method", "random", "--ratio", "0.5", "--device", "cpu")
        assert answer.code == 2 and answer.err.count("\n") == 1 and expected in answer.err, answer
        assert "start all processes with torchrun, or unset WORLD_SIZE" in answer.err


def test_a_process_whose_partner_never_comes_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "PARTNER_SECONDS", 1)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PartnerLost, match=r"did not meet at 127.0.0.1:29531 within 1 seconds \(Timed out"):
        with distributed.process_group("cpu"):
            pass
    assert distributed.size() == 1
