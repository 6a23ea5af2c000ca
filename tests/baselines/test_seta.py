"""SeTa: groups by k-means, the window's place by epoch, and K examples whatever the window holds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from baselines.seta import SeTa, loss_groups
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from tests.helpers import prepared, seen

LOSSES = [0.1, 0.15, 0.2, 0.12, 0.18, 1.0, 1.1, 1.05, 2.0, 2.1, 2.2, 4.0, 4.1, 7.0, 7.2]  # five groups of 5, 3, 3, 2, 2
OF = [0] * 5 + [1] * 3 + [2] * 3 + [3] * 2 + [4] * 2


def with_losses(loss_N, prune_ratio, num_epochs=20, seed=0, **settings):
    pruner = prepared(SeTa(prune_ratio, **settings), len(loss_N), num_epochs, seed)
    pruner.observe(seen(torch.arange(len(loss_N)), loss_B=torch.as_tensor(loss_N)))
    return pruner


def squares(parts):
    return sum(((part - part.mean()) ** 2).sum() for part in parts)


def test_groups_are_the_best_contiguous_ones_of_separated_losses():
    shuffled = torch.randperm(15, generator=stream(0, "shuffle"))
    assert loss_groups(torch.tensor(LOSSES)[shuffled], 5).tolist() == [OF[i] for i in shuffled]
    skewed = np.sort(np.concatenate([np.linspace(0, 0.05, 12), [0.9, 1.0, 3.0, 3.2]]))
    cuts = itertools.combinations(range(1, 16), 2)
    best = min(cuts, key=lambda cut: squares(np.split(skewed, cut)))
    group_N = loss_groups(torch.from_numpy(skewed), 3).numpy()
    assert np.searchsorted(group_N, [1, 2]).tolist() == list(best), "most losses are low, and quantiles alone fail"


def test_every_loss_is_in_the_group_of_the_nearest_mean():
    for seed, groups in itertools.product(range(4), (2, 5, 9)):
        loss_N = torch.rand(501, generator=stream(seed, "losses")).pow(3).numpy() * 4
        group_N = loss_groups(torch.from_numpy(loss_N), groups).numpy()
        mean_G = np.array([loss_N[group_N == g].mean() for g in range(groups)])
        assert (np.diff(mean_G) > 0).all()
        assert (abs(loss_N[:, None] - mean_G).argmin(1) == group_N).all(), (seed, groups)
    assert len(loss_groups(torch.full((7,), 3.0), 5).unique()) == 1


def test_the_window_slides_from_easy_to_hard_and_begins_anew():
    pruner = with_losses(LOSSES, 0.6, groups=5, window=3)  # K = 6: each window has as many
    taken = [set() for _ in range(3)]
    for epoch in range(1, 17):
        groups = [OF[i] for i in pruner.select(epoch).index_K]
        assert len(groups) == 6 and set(groups) <= {epoch % 3 + offset for offset in range(3)}, epoch
        taken[epoch % 3] |= set(groups)
    assert taken == [{0, 1, 2}, {1, 2, 3}, {2, 3, 4}]


def test_a_window_of_few_is_whole_and_the_rest_comes_from_the_next_groups():
    pruner = with_losses(LOSSES, 0.4, groups=5, window=2)  # K = 9
    # The windows have 8, 6, 5 and 4 examples. The next harder groups have 3, 2 and 2; then the next easier ones follow.
    expected = {
        0: {0: 5, 1: 3, 2: 1},
        1: {1: 3, 2: 3, 3: 2, 4: 1},
        2: {2: 3, 3: 2, 4: 2, 1: 2},
        3: {3: 2, 4: 2, 2: 3, 1: 2},
    }
    for epoch in range(1, 17):
        index_K = pruner.select(epoch).index_K
        assert len(index_K.unique()) == 9
        counts = dict(zip(*np.unique([OF[i] for i in index_K], return_counts=True), strict=True))
        assert counts == expected[epoch % 4], epoch


def test_the_first_and_the_last_epochs_draw_from_all():
    pruner = with_losses(LOSSES, 0.6, num_epochs=8, groups=5, window=1)
    for epoch in (0, 7):  # floor(0.875 x 8) = 7
        draws = {OF[i] for seed in range(20) for i in with_losses(LOSSES, 0.6, 8, seed, window=1).select(epoch).index_K}
        assert draws == {0, 1, 2, 3, 4}, epoch
    assert {OF[i] for i in pruner.select(6).index_K} == {1, 2}
    last = [with_losses(LOSSES, 0.6, 5, seed, window=1, delta=1.0).select(4).index_K for seed in range(20)]
    assert {OF[i] for index_K in last for i in index_K} == {4, 3, 2}, "2, 2 and 2 of 3 examples"
    last = [with_losses(LOSSES, 0.6, 5, seed, window=1, delta=0.0).select(4).index_K for seed in range(20)]
    assert {OF[i] for index_K in last for i in index_K} == {0, 1, 2, 3, 4}


def test_the_last_losses_count_over_epochs_and_odd_budgets_are_exact():
    for ratio in (0.3, 0.5, 0.7):
        pruner, loss_N, total = prepared(SeTa(ratio), 311, 9), np.full(311, 3.0), 0
        for epoch in range(9):
            selection = pruner.select(epoch)
            index_K = selection.index_K
            total += len(index_K)
            assert torch.equal(selection.weight_K, torch.ones(len(index_K))) and len(index_K.unique()) == len(index_K)
            if 0 < epoch < 7:
                group_N = loss_groups(torch.from_numpy(loss_N), 5).numpy()
                inside_N = (group_N >= epoch % 2) & (group_N < epoch % 2 + 4)
                assert inside_N[index_K.numpy()].sum() == min(inside_N.sum(), len(index_K)), (ratio, epoch)
            drawn_K = torch.rand(len(index_K), generator=stream(epoch, "losses")) ** 2 * 3
            pruner.observe(seen(index_K, loss_B=drawn_K))
            loss_N[index_K.numpy()] = drawn_K.numpy()
        assert abs(total - 9 * (1 - ratio) * 311) <= 0.5


def test_settings_out_of_range_are_refused():
    for settings, message in (
        ({"groups": 1}, "seta's groups are from 2 to 100, not 1"),
        ({"window": 6}, "seta's window is from 1 to the 5 groups, not 6"),
        ({"window": 0}, "seta's window is from 1 to the 5 groups, not 0"),
        ({"delta": 1.1}, "seta's delta is at least 0 and at most 1, not 1.1"),
    ):
        with pytest.raises(BadInput, match=message):
            SeTa(0.5, **settings)
