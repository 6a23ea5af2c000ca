"""UCB and epsilon-greedy: means, variances and rankings against plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from baselines.eps_greedy import EpsGreedy
from baselines.ucb import UCB
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from tests.helpers import prepared, seen

N = 101


class Plain:
    """The means and variances of the definition, one example after the other."""

    def __init__(self, memory):
        self.memory, self.mean, self.variance = memory, {}, {}

    def visit(self, index, loss):
        if index not in self.mean:
            self.mean[index], self.variance[index] = loss, 0.0
            return
        old = self.mean[index]
        self.mean[index] = self.memory * old + (1 - self.memory) * loss
        self.variance[index] = self.memory * self.variance[index] + (1 - self.memory) * (loss - old) ** 2

    def bounds(self, confidence):
        return np.array([self.mean.get(i, np.inf) + confidence * self.variance.get(i, 0.0) for i in range(N)])


def visited(pruner, plain, selection, epoch):
    """Lets both observe losses that grow more different from epoch to epoch."""
    loss_N = torch.rand(N, generator=stream(epoch, "losses")) * (1 + torch.arange(N) % 3)
    for index_B in selection.index_K.split(17):
        pruner.observe(seen(index_B, loss_B=loss_N[index_B]))
    for i in selection.index_K.tolist():
        plain.visit(i, loss_N[i].item())


def test_ucb_keeps_the_highest_bounds_of_the_start_of_the_period():
    for ratio, confidence, memory, period in ((0.3, 1.0, 0.2, 1), (0.5, 2.5, 0.5, 2), (0.7, 0.0, 0.2, 3)):
        pruner = prepared(UCB(ratio, confidence=confidence, memory=memory, period=period), N, 12)
        plain, total = Plain(memory), 0
        for epoch in range(12):
            if epoch % period == 0:
                bound_N = plain.bounds(confidence)
            selection, num_kept = pruner.select(epoch), pruner.num_kept(epoch)
            threshold = np.sort(bound_N)[-num_kept]
            kept = selection.index_K.tolist()
            assert len(set(kept)) == len(kept) == num_kept
            assert {i for i in range(N) if bound_N[i] > threshold + 1e-5} <= set(kept), (ratio, epoch)
            assert bound_N[kept].min() >= threshold - 1e-5
            assert torch.equal(selection.weight_K, torch.ones(num_kept))
            total += num_kept
            visited(pruner, plain, selection, epoch)
            if epoch + 1 == period * math.ceil(1 / (1 - ratio)):
                assert len(plain.mean) == N, "ucb sees every example within ceil(1 / (1 - ratio)) periods"
        assert abs(total - (1 - ratio) * N * 12) <= 0.5


def test_epsilon_greedy_keeps_the_highest_means_and_some_of_the_others():
    for eps, period in ((0.1, 1), (0.3, 2), (0.0, 1), (1.0, 1)):
        pruner = prepared(EpsGreedy(0.5, eps=eps, period=period), N, 12)
        plain = Plain(0.2)
        for epoch in range(12):
            if epoch % period == 0:
                mean_N, first_K = plain.bounds(0.0), pruner.num_kept(epoch)
            kept = pruner.select(epoch).index_K.tolist()
            greedy = kept[: round((1 - eps) * first_K)]
            assert len(set(kept)) == len(kept) == pruner.num_kept(epoch)
            if greedy:
                threshold = np.sort(mean_N)[-len(greedy)]
                assert {i for i in range(N) if mean_N[i] > threshold + 1e-6} <= set(greedy), (eps, epoch)
                assert mean_N[greedy].min() >= threshold - 1e-6
            visited(pruner, plain, pruner.select(epoch), epoch)


def test_the_random_part_takes_each_of_the_others_as_often():
    pruner, taken_N = prepared(EpsGreedy(0.5, eps=0.2, period=1), 20, 100), torch.zeros(20)
    pruner.observe(seen(torch.arange(20), loss_B=torch.arange(20.0)))
    for epoch in range(3000):
        taken_N[pruner.select(epoch).index_K] += 1
    assert bool((taken_N[12:] == 3000).all())  # the greedy 8 of 10
    assert (taken_N[:12] - 500).abs().max() < 4.5 * (3000 * 1 / 6 * 5 / 6) ** 0.5


def test_the_first_period_is_uniform_and_the_set_stays_within_a_period():
    for kind in (UCB, EpsGreedy):
        pruner = prepared(kind(0.25, period=4), 40, 12)
        first = set(pruner.select(0).index_K.tolist())
        pruner.observe(seen(torch.arange(40), loss_B=torch.rand(40, generator=stream(0, "losses"))))
        assert all(set(pruner.select(epoch).index_K.tolist()) == first for epoch in (1, 2, 3)), kind
        assert set(pruner.select(4).index_K.tolist()) != first
        assert first != set(prepared(kind(0.25), 40, seed=1).select(0).index_K.tolist())


def test_the_period_is_a_tenth_of_the_run_and_at_most_ten_epochs():
    found = [prepared(UCB(0.5), 40, num_epochs).epochs_of_period() for num_epochs in (5, 19, 20, 99, 200, 1000)]
    assert found == [1, 1, 2, 9, 10, 10] and prepared(UCB(0.5, period=15), 40, 20).epochs_of_period() == 15


def test_settings_out_of_range_are_refused():
    nan = float("nan")
    for make, message in (
        (lambda: UCB(0.5, confidence=-1.0), "ucb's confidence is at least 0 and finite, not -1"),
        (lambda: UCB(0.5, confidence=nan), "ucb's confidence is at least 0 and finite, not nan"),
        (lambda: UCB(0.5, memory=1.0), "ucb's memory is at least 0 and below 1, not 1"),
        (lambda: EpsGreedy(0.5, memory=-0.1), "eps-greedy's memory is at least 0 and below 1, not -0.1"),
        (lambda: EpsGreedy(0.5, eps=1.5), "eps-greedy's eps is from 0 to 1, not 1.5"),
        (lambda: EpsGreedy(0.5, period=-1), "eps-greedy's period is at least 1 epoch, or 0 .*, not -1"),
    ):
        with pytest.raises(BadInput, match=message):
            make()
