"""Random subsets with a share for each class: counts, turns, one subset for the whole run."""

from __future__ import annotations

import pytest
import torch

from baselines.balanced_random import BalancedRandom
from sadp_bench.core.errors import BadInput
from tests.helpers import classes_of, prepared_for


def counts(pruner, label_N, epochs):
    kept = [pruner.select(epoch) for epoch in range(epochs)]
    assert all(torch.equal(selection.weight_K, torch.ones(len(selection.index_K))) for selection in kept)
    return [label_N[selection.index_K].bincount().tolist() for selection in kept], [s.index_K for s in kept]


def test_equal_and_proportional_shares():
    label_N = classes_of(10, 40, 50)
    for share, ratio, expected in (
        ("equal", 0.4, [10, 25, 25]),  # the small class is full
        ("equal", 0.7, [10, 10, 10]),
        ("proportional", 0.4, [6, 24, 30]),
        ("proportional", 0.7, [3, 12, 15]),
    ):
        for fresh in (True, False):
            found, _ = counts(prepared_for(BalancedRandom(ratio, share=share, fresh=fresh), label_N), label_N, 6)
            assert found == [expected] * 6, (share, ratio, fresh)


def test_fresh_takes_turns_within_each_class_and_odd_budgets_are_exact():
    label_N = classes_of(31, 31, 31)
    for ratio in (0.3, 0.5, 0.7):
        pruner = prepared_for(BalancedRandom(ratio), label_N)
        visits_N, total = torch.zeros(93, dtype=torch.int64), 0
        for epoch in range(40):
            index_K = pruner.select(epoch).index_K
            visits_N[index_K] += 1
            total += len(index_K)
            assert abs(total - (epoch + 1) * (1 - ratio) * 93) <= 0.5
            for of in range(3):
                of_class = visits_N[label_N == of]
                assert of_class.max() - of_class.min() <= 1, (ratio, epoch, of)
            counts_C = label_N[index_K].bincount()
            assert counts_C.max() - counts_C.min() <= 1, (ratio, epoch)


def test_fixed_keeps_one_subset_and_every_example_is_as_likely():
    label_N, taken_N = classes_of(6, 6), torch.zeros(12)
    for seed in range(600):
        pruner = prepared_for(BalancedRandom(0.5, fresh=False), label_N, seed=seed)
        first = pruner.select(0).index_K
        assert torch.equal(first.sort().values, pruner.select(3).index_K.sort().values)
        taken_N[first] += 1
    assert (taken_N - 300).abs().max() < 4.5 * (600 / 4) ** 0.5


def test_fresh_epochs_and_seeds_differ():
    label_N = classes_of(20, 20)
    drawn = {
        tuple(prepared_for(BalancedRandom(0.5), label_N, seed=seed).select(epoch).index_K.sort().values.tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(drawn) == 9


def test_an_unknown_share_is_refused():
    with pytest.raises(BadInput, match="balanced-random's share is one of equal, proportional, not 'half'"):
        BalancedRandom(0.5, share="half")
