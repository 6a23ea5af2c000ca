"""A loop of someone's own on two processes is the same loop on one: DDP, gloo, loaders with workers."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

LOOP = """
import os, sys
import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from baselines.infobatch import InfoBatch
from sadp_bench import SADP, PrunedSampler, watch, with_index

WORLD = int(os.environ.get("WORLD_SIZE", 1))

def trained(pruner):
    torch.manual_seed(0)
    input, label = torch.randn(160, 1, 6, 6).double(), torch.arange(160) % 3
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    model = nn.parallel.DistributedDataParallel(net) if WORLD > 1 else net
    sampler = PrunedSampler(pruner, labels=label, epochs=6, batch_size=20)
    for name, value in pruner.per_example().items():
        if value.is_floating_point():
            setattr(pruner, name, value.double())  # scores are kept in float32 otherwise
    data = with_index(TensorDataset(input, label))
    loader = DataLoader(data, batch_sampler=sampler, num_workers=2, persistent_workers=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    kept = []
    with watch(model, sampler):
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)
            kept.append((torch.cat(sampler.batches), sampler.weight_N))
            for (image, label_B, index), whole_B in zip(loader, sampler.batches, strict=True):
                logits = model(image)
                loss_B = cross_entropy(logits, label_B, reduction="none")
                optimizer.zero_grad()
                # The plain mean but for slices whose sizes differ by one.
                ((sampler.weight(index) * loss_B).sum() * WORLD / len(whole_B)).backward()
                sampler.observe(index, logits, label_B)
                optimizer.step()
            if epoch == 2:
                state = sampler.state_dict()  # all processes must
    sampler.state_dict()
    scores = [value for value in pruner.per_example().values() if value.is_floating_point()]
    return [kept, scores, [p.detach() for p in net.parameters()], state["epoch"]]

if __name__ == "__main__":
    if WORLD > 1:
        distributed.init_process_group("gloo")
    found = [trained(SADP(0.5, memory=0.5)), trained(InfoBatch(0.25))]
    torch.save(found, f"{sys.argv[1]}/{os.environ.get('RANK', 0)}.pt")
    if WORLD > 1:
        distributed.destroy_process_group()
"""


def run(folder: Path, processes: int) -> list[Any]:
    """Returns what each rank kept, by method. A single process is the test's own."""
    folder.mkdir()
    script = folder / "loop.py"
    script.write_text(LOOP)
    if processes == 1:
        with patch.object(sys, "argv", [str(script), str(folder)]):
            runpy.run_path(str(script), run_name="__main__")
    else:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        words = [sys.executable, *torchrun, str(script), str(folder)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def test_two_processes_with_workers_select_score_and_train_as_one_does(tmp_path: Path) -> None:
    [alone] = run(tmp_path / "1", 1)
    for rank in run(tmp_path / "2", 2):
        for (kept, scores, weights, epoch), theirs in zip(alone, rank, strict=True):
            assert epoch == theirs[3] == 2
            assert len({tuple(index_K.sort().values.tolist()) for index_K, _ in kept}) == 6, "every epoch selects anew"
            for (index_K, weight_N), (their_index_K, their_weight_N) in zip(kept, theirs[0], strict=True):
                assert torch.equal(index_K, their_index_K)
                assert torch.equal(weight_N.nan_to_num(-1), their_weight_N.nan_to_num(-1))
            for ours, other in zip([*scores, *weights], [*theirs[1], *theirs[2]], strict=True):
                assert not ours.isinf().any() and ours.isfinite().double().mean() > 0.9, "few examples are never drawn"
                torch.testing.assert_close(ours, other, rtol=1e-12, atol=1e-12, equal_nan=True)
