"""RePB: ranks within windows, skipped and returning examples, and weights by visits, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.repb import RePB
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from tests.helpers import prepared, seen

N, B = 103, 7


def trained(pruner, selection, epoch, drift=0.0):
    """Shows the selection in a made order; returns the losses and the windows by example. Losses rise by `drift` a batch."""
    order = selection.index_K[torch.randperm(len(selection.index_K), generator=stream(epoch, "order"))]
    loss_N = torch.rand(N, generator=stream(epoch, "losses")).double().numpy()
    window = {}
    for number, index_B in enumerate(order.split(B)):
        loss_N[index_B.numpy()] += drift * number
        pruner.observe(seen(index_B, loss_B=torch.tensor(loss_N[index_B.numpy()])))
        window |= dict.fromkeys(index_B.tolist(), number // pruner.window)
    return loss_N, window


def ranks(loss_N, window):
    """Returns (place + 1/2) / size of each visited example within its window."""
    rank = {}
    for number in set(window.values()):
        members = sorted((i for i in window if window[i] == number), key=lambda i: loss_N[i])
        rank |= {i: (place + 0.5) / len(members) for place, i in enumerate(members)}
    return rank


def test_selections_and_weights_are_those_of_the_definition():
    for ratio, window, drop_share in ((0.3, 2, 0.5), (0.5, 3, 0.5), (0.7, 2, 0.5), (0.5, 1, 0.2), (0.9, 1, 0.7)):
        pruner = prepared(RePB(ratio, window=window, drop_share=drop_share), N, 9)
        visits_N, rank, total = np.zeros(N), {}, 0
        for epoch in range(9):
            selection, num_kept = pruner.select(epoch), pruner.num_kept(epoch)
            index_K = selection.index_K.numpy()
            kept = set(index_K.tolist())
            assert len(kept) == len(index_K) == num_kept
            num_skipped = max(len(rank) - num_kept, min(N - num_kept, round(drop_share * len(rank))))
            threshold = sorted(rank.values())[num_skipped] if num_skipped < len(rank) else np.inf
            skipped = rank.keys() - kept
            assert len(skipped) == num_skipped, (ratio, epoch)
            assert all(rank[i] <= threshold for i in skipped) and all(rank[i] >= threshold for i in kept & rank.keys())
            visits_N[index_K] += 1
            weight_K = np.minimum((1 - ratio) * (epoch + 1) / visits_N[index_K], 10)
            np.testing.assert_allclose(selection.weight_K, weight_K / weight_K.mean(), rtol=1e-5)
            rank, total = ranks(*trained(pruner, selection, epoch)), total + num_kept
        assert abs(total - (1 - ratio) * N * 9) <= 0.5, ratio


def test_only_losses_of_one_window_are_compared():
    """The network gets worse while it trains, so that the first windows have the lowest losses of all."""
    pruner = prepared(RePB(0.3, window=2), N)
    _, window = trained(pruner, pruner.select(0), 0, drift=5.0)
    kept = set(pruner.select(1).index_K.tolist())
    sizes = np.bincount(list(window.values()))
    skipped = np.bincount([window[i] for i in window.keys() - kept], minlength=len(sizes))
    assert len(sizes) == 6 and abs(skipped - 0.43 * sizes).max() <= 1, (sizes, skipped)


def test_all_skipped_examples_return_up_to_a_ratio_and_beyond_it_each_as_often():
    for ratio, returning, draws in ((0.3, 31, 3), (0.7, 16, 700)):  # of 103, with half of 31, rounded to even, skipped
        pruner, returned_N = prepared(RePB(ratio), N), torch.zeros(N)
        num_visited = pruner.num_kept(0)
        for epoch in [1] * draws if ratio == 0.3 else range(draws):
            pruner.observe(
                seen(torch.arange(num_visited), loss_B=torch.rand(num_visited, generator=stream(epoch, "losses")))
            )
            returned_N[pruner.select(epoch).index_K] += 1
        share_N = returned_N[num_visited:] / draws
        expected = returning / (N - num_visited)
        assert (share_N - expected).abs().max() <= 4.5 * (expected * (1 - expected) / draws) ** 0.5, ratio


def test_weights_have_mean_1_in_every_pass_and_are_limited():
    pruner = prepared(RePB(0.9), N, 200)
    pruner.visits_N[:50] = 150
    selection = pruner.select(150)
    of_new = selection.weight_K[selection.index_K >= 50]
    assert selection.weight_K.mean().item() == pytest.approx(1) and of_new.max() == of_new.min()
    ratio = of_new.max() / selection.weight_K.min()
    assert ratio.item() == pytest.approx(10 / (0.1 * 151 / 151), rel=1e-4)


def test_settings_out_of_range_are_refused():
    for setting, allowed in (
        ({"window": 0}, "window is at least 1 batch, not 0"),
        ({"drop_share": 0.0}, "drop_share is above 0 and below 1, not 0"),
        ({"drop_share": float("nan")}, "drop_share is above 0 and below 1, not nan"),
    ):
        with pytest.raises(BadInput, match=f"repb's {allowed}"):
            RePB(0.5, **setting)
