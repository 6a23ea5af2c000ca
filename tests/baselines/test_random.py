"""Random pruning: RS2's shuffles, or one fixed subset."""

from __future__ import annotations

import torch

from baselines.random_subset import Random
from tests.helpers import prepared


def test_fresh_shows_every_example_once_per_n_consecutive_visits():
    for num_examples, prune_ratio in ((10, 0.3), (31, 0.5), (97, 0.7), (20, 0.9), (7, 0.05)):
        pruner = prepared(Random(prune_ratio), num_examples)
        visits_N = torch.zeros(num_examples, dtype=torch.int64)
        total = 0
        for epoch in range(60):
            selection = pruner.select(epoch)
            assert len(selection.index_K.unique()) == len(selection.index_K)
            assert torch.equal(selection.weight_K, torch.ones(len(selection.index_K)))
            visits_N[selection.index_K] += 1
            total += len(selection.index_K)
            assert visits_N.max() - visits_N.min() <= 1, (num_examples, prune_ratio, epoch)
            assert visits_N.min() == total // num_examples
        assert abs(total - 60 * (1 - prune_ratio) * num_examples) <= 0.5 + 1e-9


def test_fresh_starts_like_consecutive_slices_of_one_shuffle():
    pruner = prepared(Random(0.75), 40)
    slices = [set(pruner.select(epoch).index_K.tolist()) for epoch in range(4)]
    assert set.union(*slices) == set(range(40))
    assert sum(map(len, slices)) == 40


def test_each_shuffle_is_another_and_so_is_each_seed():
    def epochs(seed):
        pruner = prepared(Random(0.5), 40, seed=seed)
        return [tuple(pruner.select(epoch).index_K.tolist()) for epoch in range(4)]

    assert len(set(epochs(0) + epochs(1))) == 8
    assert epochs(0) == epochs(0)


def test_every_example_is_as_likely_in_the_epoch_that_crosses_the_end():
    taken_N = torch.zeros(10)
    for seed in range(2000):
        pruner = prepared(Random(0.3), 10, seed=seed)
        pruner.select(0)
        taken_N[pruner.select(1).index_K] += 1
    assert (taken_N - 1400).abs().max() < 4.5 * (2000 * 0.7 * 0.3) ** 0.5


def test_rescaled_weights_sum_to_n_and_the_selection_is_the_same():
    plain, rescaled = prepared(Random(0.3), 31), prepared(Random(0.3, rescale=True), 31)
    for epoch in range(4):
        selection = rescaled.select(epoch)
        assert torch.equal(selection.index_K, plain.select(epoch).index_K)
        assert torch.equal(selection.weight_K, torch.full((len(selection.index_K),), 31 / len(selection.index_K)))


def test_fixed_keeps_one_subset_for_the_whole_run():
    pruner = prepared(Random(0.3, fresh=False), 31)  # K alternates between 22 and 21
    subsets = [set(pruner.select(epoch).index_K.tolist()) for epoch in range(10)]
    assert sorted({len(subset) for subset in subsets}) == [21, 22]
    smallest, largest = min(subsets, key=len), max(subsets, key=len)
    assert smallest < largest and all(subset in (smallest, largest) for subset in subsets)


def test_saved_state_continues_the_same_shuffle():
    pruner = prepared(Random(0.4), 25, seed=3)
    pruner.select(0)
    other = Random(0.4)
    other.load_state_dict(pruner.state_dict())
    for epoch in range(1, 6):
        assert torch.equal(pruner.select(epoch).index_K, other.select(epoch).index_K)
