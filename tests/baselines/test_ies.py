"""IES against its definition: the mean second difference of the loss over three epochs."""

from __future__ import annotations

import numpy as np
import torch

from baselines.ies import IES
from tests.helpers import prepared
from tests.within_batch import candidates


def test_the_examples_whose_loss_changes_its_pace_train() -> None:
    rng = np.random.default_rng(0)
    pruner = prepared(IES(0.4), 31)
    history: list[np.ndarray] = []
    for epoch in range(8):
        loss_N = rng.exponential(size=31).astype(np.float32)
        history.append(loss_N)
        order = rng.permutation(31)
        for batch in np.array_split(order, 3):
            num_trained = round(0.6 * len(batch))
            given = candidates(torch.tensor(batch), num_trained, epoch, loss_B=torch.tensor(loss_N[batch]))
            choice = pruner.choose_in_batch(given)
            places = choice.index_K.tolist()
            assert len(set(places)) == num_trained and bool((choice.weight_K == 1).all())
            if epoch < 2:
                assert places == list(range(num_trained))  # no score yet: in the random order in which they come
                continue
            last = np.stack(history[-5:])[:, batch]
            score = np.abs(last[2:] - 2 * last[1:-1] + last[:-2]).mean(0)
            assert places == np.argsort(-score, kind="stable")[:num_trained].tolist()


def test_an_example_without_enough_losses_trains_before_one_with_a_score() -> None:
    pruner = prepared(IES(0.5), 4)
    pruner.loss_history_N[:2] = torch.tensor([[3.0, 1, 2, 1, 5]])
    choice = pruner.choose_in_batch(candidates(torch.arange(4), 2, loss_B=torch.ones(4)))
    assert choice.index_K.tolist() == [2, 3]
