"""A run on two processes is the run on one: the same selections, weights and losses, and the same budget."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from sadp_bench.records.record import Record
from sadp_bench.records.store import read_all
from tests.drop_in import distributed_jobs
from tests.drop_in.distributed_jobs import GATHER, KILLED
from tests.small_runs import numbers

RUN = ["run", "--ratio", 0.4, "--train-examples", 203, "--batch-size", 29, "--epochs", 4, "--timesteps", 2]
RUN += ["--threads", 1, "--device", "cpu", "--augment", "crop", "--set", "backbone.width=4", "--no-reference"]
RUN += ["--checkpoint-seconds", 0, "--method"]
FLOAT64 = ["--precision", "fp64", "--set", "backbone.norm=none"]
# The first batches of 31 are of a size at which half of it, rounded up, differs from the number of examples that SADP
# measures its bound on.
EXACT: dict[str, list[Any]] = {
    "sadp": [*RUN, "sadp", *FLOAT64],
    "sadp-31": [*RUN, "sadp", *FLOAT64, "--batch-size", 31],
    "infobatch": [*RUN, "infobatch", *FLOAT64],
    "el2n": [*RUN, "el2n", *FLOAT64],
    "sltt-k": [*RUN, "sadp", *FLOAT64, "--backprop", "sltt-k", "--k", 1],
    "local": [*RUN, "sadp", *FLOAT64, "--backprop", "local"],
    "pq": [*RUN, "random", *FLOAT64, "--sparsity", "pq", "--density", 0.3, "--set", "sparsity.every=1"],
    "eb": [*RUN, "random", *FLOAT64, "--sparsity", "eb", "--density", 0.3, "--early-time", "--timesteps", 4],
}
WITH_BATCH_NORM = {
    method: [*RUN, method, "--batch-size", 30, "--precision", "fp32", "--set", "backbone.pool_at=after-norm"]
    for method in ("sadp", "infobatch", "el2n")
}
# Without an evaluation in between, each rank has its own running statistics when the checkpoint is written.
LONG = [*WITH_BATCH_NORM["sadp"], "--epochs", 8, "--evaluate-every", 8]
Run = tuple[Record, list[list[Any]]]  # and what each rank kept


def under_torchrun(folder: Path, jobs: Mapping[str, list[Any]]) -> str:
    """Runs the jobs on two processes and returns the output."""
    words = {name: [str(word) for word in job] for name, job in jobs.items()}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, distributed_jobs.__file__, str(folder), json.dumps(words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs_in(folder: Path, processes: int, names: Iterable[str]) -> dict[str, Run]:
    """Returns each run by its job's name."""
    runs = {}
    for name in names:
        [(_, record)] = read_all([folder / name / "runs"]).records
        kept = [torch.load(folder / name / f"{rank}.pt", weights_only=True) for rank in range(processes)]
        runs[name] = record, kept
    return runs


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Returns the runs of one process, which is this one."""
    folder = tmp_path_factory.mktemp("alone")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        distributed_jobs.main(folder, {name: [str(word) for word in job] for name, job in EXACT.items()})
    return runs_in(folder, 1, EXACT)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Run], str]:
    batch_norm = {f"{name} with batch norm": job for name, job in WITH_BATCH_NORM.items()}
    jobs = {**EXACT, **batch_norm, "long": LONG, "long, in two parts": [KILLED, *LONG]}
    folder = tmp_path_factory.mktemp("two")
    output = under_torchrun(folder, {**jobs, GATHER: [GATHER]})
    assert output.count("╭") == len(jobs)  # the first process prints for all
    return runs_in(folder, 2, jobs), output


@pytest.mark.parametrize("name", EXACT)
def test_two_processes_select_and_train_as_one_does(
    name: str, alone: dict[str, Run], two: tuple[dict[str, Run], str]
) -> None:
    (one, [own]), (other, ranks) = alone[name], two[0][name]
    for kept in ranks:
        assert len(kept) == len(own) == 2 * 4
        for ours, theirs in zip(own, kept, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                if a.dtype == torch.float64:
                    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)  # weights of the network
                else:
                    assert torch.equal(a, b)  # indices and weights of the selection
    assert [row["kept"] for row in one.epochs] == [row["kept"] for row in other.epochs]
    assert [row["mean_weight"] for row in one.epochs] == [row["mean_weight"] for row in other.epochs]
    for a, b in zip(one.epochs, other.epochs, strict=True):
        assert abs(a["train_loss"] - b["train_loss"]) < 1e-9
    assert one.test_accuracy == other.test_accuracy and one.prepare_examples == other.prepare_examples
    assert torch.tensor(one.firing_rate).sub(torch.tensor(other.firing_rate)).abs().max() < 1e-6
    assert (one.spec.processes, other.spec.processes) == (1, 2) and one.spec.key != other.spec.key


@pytest.mark.parametrize("method", WITH_BATCH_NORM)
def test_with_batch_norm_two_processes_train_and_keep_the_budget(method: str, two: tuple[dict[str, Run], str]) -> None:
    record, [first, second] = two[0][f"{method} with batch norm"]
    assert abs(1 - record.examples_seen / (4 * 203) - 0.4) < 0.005
    assert record.epochs[-1]["train_loss"] < record.epochs[0]["train_loss"]
    assert len(first) == len(second) == 2 * 4
    for ours, theirs in zip(first, second, strict=True):  # selections, weights, and running statistics once shared
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_two_processes_killed_go_on_as_if_nothing_had_been(two: tuple[dict[str, Run], str]) -> None:
    whole, again = (two[0][name][0] for name in ("long", "long, in two parts"))
    assert numbers(again) == numbers(whole) and again.interruptions == 1


def test_what_is_kept_of_each_example_comes_to_every_rank(two: tuple[dict[str, Run], str]) -> None:
    small = torch.tensor(-1e-30).item()
    tenth = torch.tensor(0.1).item()
    score = f"[inf, nan, nan, {small}, nan, nan, {tenth}]"
    expected = f"[{score}, [1, 0, 0, 0, 0, 0, 1], [{2**53}, 0, {2**53 + 1}, {2**53 + 1}, 0, 0, {2**53}]]"
    assert {f"0 {expected}", f"1 {expected}"} <= set(two[1].splitlines())
