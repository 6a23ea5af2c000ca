"""A run on two processes is the run on one: the same selections, weights and losses, and the same budget."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small import numbers

from sadp_bench.record import Record
from sadp_bench.store import read_all

RUN = ["--ratio", 0.4, "--train-examples", 203, "--batch-size", 29, "--epochs", 4, "--timesteps", 2, "--threads", 1]
RUN += ["--device", "cpu", "--augment", "crop", "--set", "backbone.width=4", "--checkpoint-seconds", 0]
EXACT = ["--precision", "fp64", "--set", "backbone.norm=none"]

# Runs the real command line, and keeps the selections, and the weights after every epoch, of the rank that it is.
RECORDER = """
import os, sys
import torch
from sadp_bench import cli, engine, experiment, registry

folder, *words = sys.argv[1:]
kept = []
train = engine.train

def recorded(training, *rest, **more):
    kind = type(training.pruner)
    select = kind.select
    def selected(self, epoch):
        selection = select(self, epoch)
        kept.append((selection.index_K.clone(), selection.weight_K.clone()))
        return selection
    kind.select = selected
    for row in train(training, *rest, **more):
        yield row
        kept.append([value.clone() for value in training.model.state_dict().values()])
    kind.select = select

engine.train = recorded
try:
    cli.main(words)
finally:
    torch.save(kept, os.path.join(folder, os.environ.get("RANK", "0") + ".pt"))
"""


def started(folder: Path, processes: int, *words: Any) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "recorder.py"
    script.write_text(RECORDER)
    arguments = [str(w) for w in (script, folder, "run", *RUN, *words, "--no-reference", "--out", folder / "runs")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [sys.executable, *(torchrun if processes > 1 else []), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, processes: int, *words: Any) -> tuple[Record, list[list[Any]]]:
    """The record, and what each rank kept."""
    process = started(folder, processes, *words)
    told, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert told.count("╭") == 1  # the first process speaks for all
    [(_, record)] = read_all([folder / "runs"]).records
    return record, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


# The first batches of 31 are of a size at which half of it, rounded up, says less than the whole of how many examples SADP
# measures its bound on.
REFRESHED = ["--set", "refresh=1", "--batch-size", 31]


@pytest.mark.parametrize(
    ("method", "words"),
    [("sadp", []), ("sadp", REFRESHED), ("infobatch", []), ("el2n", [])],
    ids=["sadp", "sadp-refreshed", "infobatch", "el2n"],
)
def test_two_processes_select_and_train_as_one_does(method: str, words: list[Any], tmp_path: Path) -> None:
    one, [alone] = run(tmp_path / "1", 1, "--method", method, *EXACT, *words)
    two, ranks = run(tmp_path / "2", 2, "--method", method, *EXACT, *words)
    for kept in ranks:
        assert len(kept) == len(alone) == 2 * 4
        for ours, theirs in zip(alone, kept, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                if a.dtype == torch.float64:
                    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)  # weights of the network
                else:
                    assert torch.equal(a, b)  # indices and weights of the selection
    assert [row["kept"] for row in one.epochs] == [row["kept"] for row in two.epochs]
    assert [row["mean_weight"] for row in one.epochs] == [row["mean_weight"] for row in two.epochs]
    for a, b in zip(one.epochs, two.epochs, strict=True):
        assert abs(a["train_loss"] - b["train_loss"]) < 1e-9
    assert one.test_accuracy == two.test_accuracy and one.prepare_examples == two.prepare_examples
    assert torch.tensor(one.firing_rate).sub(torch.tensor(two.firing_rate)).abs().max() < 1e-6
    assert (one.spec.processes, two.spec.processes) == (1, 2) and one.spec.key != two.spec.key


@pytest.mark.parametrize("method", ["sadp", "infobatch", "el2n"])
def test_with_batch_norm_two_processes_train_and_keep_the_budget(method: str, tmp_path: Path) -> None:
    record, [first, second] = run(tmp_path / "2", 2, "--method", method, "--batch-size", 30, "--precision", "fp32")
    assert abs(1 - record.examples_seen / (4 * 203) - 0.4) < 0.005
    assert record.epochs[-1]["train_loss"] < record.epochs[0]["train_loss"]
    assert len(first) == len(second) == 2 * 4
    for ours, theirs in zip(first, second, strict=True):  # selections, weights, and running statistics once shared
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_two_processes_killed_go_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Not evaluated in between, each rank has running statistics of its own when the checkpoint is written."""
    words = ["--method", "sadp", "--precision", "fp32", "--batch-size", 30, "--epochs", 40, "--evaluate-every", 40]
    whole, _ = run(tmp_path / "whole", 2, *words)
    process = started(tmp_path / "parts", 2, *words)
    while process.poll() is None and not list((tmp_path / "parts" / "runs").glob("*.before")):
        time.sleep(0.001)
    # torchrun puts each process into a session of its own.
    subprocess.run(["pkill", "-KILL", "-f", str(tmp_path / "parts" / "recorder.py")], check=True)
    process.communicate()
    assert not list((tmp_path / "parts" / "runs").glob("*.json"))
    again, _ = run(tmp_path / "parts", 2, *words)
    assert numbers(again) == numbers(whole) and again.interruptions == 1


def test_what_is_kept_of_each_example_comes_to_every_rank(tmp_path: Path) -> None:
    code = """
import torch
from sadp_bench import ranks
with ranks.joined():
    rank = ranks.rank()
    score_N = torch.full((7,), torch.nan)
    flag_N, count_N = torch.zeros(7, dtype=torch.bool), torch.zeros(7, dtype=torch.int64)
    mine = torch.tensor([[6, 0], [3, 2]][rank])
    score_N[mine] = torch.tensor([[0.1, torch.inf], [-1e-30, torch.nan]][rank])
    flag_N[mine], count_N[mine] = rank == 0, 2**53 + rank
    ranks.gather([score_N, flag_N, count_N], [mine])
    print(f"{rank} {[score_N.tolist(), flag_N.int().tolist(), count_N.tolist()]}\\n", end="", flush=True)
"""
    script = tmp_path / "gather.py"
    script.write_text(code)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    small = torch.tensor(-1e-30).item()
    tenth = torch.tensor(0.1).item()
    score = f"[inf, nan, nan, {small}, nan, nan, {tenth}]"
    expected = f"[{score}, [1, 0, 0, 0, 0, 0, 1], [{2**53}, 0, {2**53 + 1}, {2**53 + 1}, 0, 0, {2**53}]]"
    assert sorted(done.stdout.splitlines()) == [f"0 {expected}", f"1 {expected}"]
