"""Does jobs in turn, each by the real command line, as the only process or as a rank of torchrun.

    python distributed_jobs.py FOLDER '{"name": ["run", ...], ...}'

Each run's folder keeps the selections and the weights after every epoch. PyTorch takes seconds to start, so one process
does several jobs. A fork does a job whose name begins with KILLED: it kills itself midway, then the job starts again.
The job GATHER calls `distributed.gather` instead and prints the result.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as torch_distributed

from sadp_bench.cli import app
from sadp_bench.core import distributed
from sadp_bench.training import loop

GATHER = "gather"
KILLED = "killed"
RANK, SIZE = (int(os.environ.get(name, usual)) for name, usual in (("RANK", "0"), ("WORLD_SIZE", "1")))


def recorded(words: list[str], epochs: int | None = None) -> list[Any]:
    """Runs a command, which kills this process after so many epochs; returns what was kept."""
    kept: list[Any] = []
    train = loop.train

    def train_and_keep(training: Any, *rest: Any, **more: Any) -> Any:
        kind = type(training.pruner)
        select = kind.select

        def selected(self: Any, epoch: int) -> Any:
            selection = select(self, epoch)
            kept.append((selection.index_K.clone(), selection.weight_K.clone()))
            return selection

        with patch.object(kind, "select", selected):
            for row in train(training, *rest, **more):
                yield row
                kept.append([value.clone() for value in training.model.state_dict().values()])
                if row["epoch"] + 1 == epochs:
                    os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(loop, "train", train_and_keep):
        try:
            app.main(words)
        except SystemExit as end:
            assert not end.code
    return kept


def gather() -> None:
    with distributed.process_group():
        score_N = torch.full((7,), torch.nan)
        flag_N, count_N = torch.zeros(7, dtype=torch.bool), torch.zeros(7, dtype=torch.int64)
        mine = torch.tensor([[6, 0], [3, 2]][RANK])
        score_N[mine] = torch.tensor([[0.1, torch.inf], [-1e-30, torch.nan]][RANK])
        flag_N[mine], count_N[mine] = RANK == 0, 2**53 + RANK
        distributed.gather([score_N, flag_N, count_N], [mine])
        print(f"{RANK} {[score_N.tolist(), flag_N.int().tolist(), count_N.tolist()]}\n", end="", flush=True)


def main(folder: Path, jobs: dict[str, list[str]]) -> None:
    torchruns = next(torch_distributed.rendezvous("env://"))[0] if SIZE > 1 else None
    for name, words in jobs.items():
        where = folder / name
        where.mkdir(parents=True, exist_ok=True)
        out = ["--out", str(where / "runs")]
        if words == [GATHER]:
            with meeting(torchruns, name):
                gather()
            continue
        if words[0] == KILLED:
            words = words[1:]
            if not (fork := os.fork()):
                with meeting(torchruns, f"{name}, first"):
                    recorded([*words, *out], epochs=4)
                os._exit(1)
            assert os.waitpid(fork, 0)[1] == signal.SIGKILL
        with meeting(torchruns, name):
            torch.save(recorded([*words, *out]), where / f"{RANK}.pt")


def meeting(torchruns: Any, name: str) -> Any:
    """Lets the ranks of each job meet anew in torchrun's store."""
    if torchruns is None:
        return nullcontext()
    how = {"store": torch_distributed.PrefixStore(name, torchruns), "rank": RANK, "world_size": SIZE}
    return patch.object(torch_distributed, "init_process_group", partial(torch_distributed.init_process_group, **how))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
