"""IES against its definition: the mean second difference of the loss over three epochs."""

from __future__ import annotations

import numpy as np
import torch

from baselines.ies import IES
from tests.helpers import bench, prepared, seen


def test_the_examples_whose_loss_changes_its_pace_train() -> None:
    rng = np.random.default_rng(0)
    pruner = prepared(IES(0.4), 31, num_epochs=8)
    history: list[np.ndarray] = []
    firsts = set()
    for epoch in range(8):
        kept = pruner.select(epoch).index_K
        resting = pruner.revisit(epoch)
        assert bool((pruner.select(epoch).weight_K == 1).all()) and len(kept) == pruner.num_kept(epoch)
        if epoch < 7:
            assert sorted([*kept.tolist(), *resting.tolist()]) == list(range(31)), "each example has a loss an epoch"
        else:
            assert len(resting) == 0, "nothing is selected afterwards"
        if epoch < 3:
            firsts.add(tuple(sorted(kept.tolist())))  # fewer than three losses: at random
        else:
            last = np.stack(history[-5:])
            score = np.abs(last[2:] - 2 * last[1:-1] + last[:-2]).mean(0)
            assert sorted(kept.tolist()) == sorted(np.argsort(-score)[: len(kept)].tolist())
        loss_N = rng.exponential(size=31).astype(np.float32)
        history.append(loss_N)
        for index in kept.split(7):
            pruner.observe(seen(index, loss_B=torch.tensor(loss_N)[index], epoch=epoch))
        pruner.observe_forward(seen(resting, loss_B=torch.tensor(loss_N)[resting], epoch=epoch))
    assert len(firsts) == 3


def test_an_example_without_enough_losses_trains_before_one_with_a_score() -> None:
    pruner = prepared(IES(0.5), 4)
    pruner.loss_history_N[:2] = torch.tensor([[3.0, 1, 2, 1, 5]])
    assert sorted(pruner.select(5).index_K.tolist()) == [2, 3]


def test_a_run_passes_the_others_forward_once_an_epoch_but_the_last() -> None:
    run = bench("ies", 0.4, epochs=3)
    run.prepare()
    rows = list(run.rows())
    assert [row.get("forward_only", 0) for row in rows] == [101 - rows[0]["kept"], 101 - rows[1]["kept"], 0]
    assert int(run.pruner.loss_history_N.isfinite().sum(1).min()) == 2
    assert int(run.pruner.loss_history_N.isfinite().sum(1).max()) == 3
