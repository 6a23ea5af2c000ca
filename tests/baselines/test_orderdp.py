"""OrderDP: the highest losses of an epoch's candidates, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.orderdp import OrderDP
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from tests.helpers import prepared, seen

N = 101


def made_losses(epoch):
    return torch.rand(N, generator=stream(epoch, "losses"))


def test_the_highest_losses_of_the_candidates_are_kept():
    for ratio, candidates, num_candidates in (
        (0.3, 0.0, 81),
        (0.5, 0.0, 81),
        (0.1, 0.0, 91),
        (0.7, 0.6, 61),
        (0.7, 1.0, 101),
    ):
        pruner = prepared(OrderDP(ratio, candidates=candidates), N, 8)
        loss_N, total = np.full(N, np.inf), 0
        for epoch in range(8):
            selection = pruner.select(epoch)
            kept, num_kept = set(selection.index_K.tolist()), pruner.num_kept(epoch)
            drawn = torch.randperm(N, generator=stream(0, "pruner", epoch))[:num_candidates].numpy()
            threshold = np.sort(loss_N[drawn])[-num_kept]
            assert len(kept) == len(selection.index_K) == num_kept and kept <= set(drawn.tolist())
            assert {i for i in drawn.tolist() if loss_N[i] > threshold} <= kept
            assert loss_N[list(kept)].min() == threshold
            assert torch.equal(selection.weight_K, torch.ones(num_kept))
            total += num_kept
            pruner.observe(seen(selection.index_K, loss_B=made_losses(epoch)[selection.index_K]))
            loss_N[selection.index_K.numpy()] = made_losses(epoch).double().numpy()[selection.index_K.numpy()]
        assert abs(total - (1 - ratio) * N * 8) <= 0.5


def test_an_unseen_candidate_is_kept_before_a_seen_one():
    pruner = prepared(OrderDP(0.5, candidates=1.0), N)
    pruner.observe(seen(torch.arange(80), loss_B=torch.full((80,), 1e30)))
    assert set(range(80, N)) <= set(pruner.select(0).index_K.tolist())


def test_ties_and_candidates_follow_the_seed():
    chosen = [tuple(prepared(OrderDP(0.5), N, seed=seed).select(0).index_K.tolist()) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    pruner, taken_N = prepared(OrderDP(0.5), 20), torch.zeros(20)
    for epoch in range(2000):
        taken_N[pruner.select(epoch).index_K] += 1
    assert (taken_N - 1000).abs().max() < 4.5 * (2000 * 0.25) ** 0.5, "ties are broken evenly"


def test_candidates_that_can_not_hold_the_kept_are_refused():
    for share in (0.4, 1.1, -0.1, float("nan")):
        with pytest.raises(BadInput, match=rf"candidates is 0 .*from 1 - ratio = 0\.5 to 1, not {share:g}"):
            OrderDP(0.5, candidates=share)
    pruner = prepared(OrderDP(0.3, candidates=0.7), N)
    drawn = torch.randperm(N, generator=stream(0, "pruner", 0))[:71]
    assert set(pruner.select(0).index_K.tolist()) == set(drawn.tolist())
