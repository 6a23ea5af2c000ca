"""Sampling from large sets. Small sets are drawn as in every earlier version."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sadp_bench.core.rng import stream
from sadp_bench.pruners import sampling
from sadp_bench.pruners.sampling import (
    balanced,
    inclusion_probability,
    kept_in_epoch,
    smooth,
    systematic_sample,
    weights,
)
from tests.helpers import drawn


def test_selection_holds_at_the_size_of_imagenet():
    num_examples = 1_281_167
    num_kept = kept_in_epoch(num_examples, 0.35, 0)
    score_N = torch.rand(num_examples, generator=stream(0, "large")) ** 8
    p_N = inclusion_probability(smooth(score_N, 0.1), num_kept)
    index_K = systematic_sample(p_N, stream(1, "large"))
    assert len(index_K.unique()) == num_kept == 832_759
    assert p_N.sum().item() == pytest.approx(num_kept, rel=1e-9)
    for power in (0.0, 0.5, 1.0):
        assert weights(p_N, num_kept, power)[index_K].mean().item() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(weights(p_N, num_kept), num_kept / (num_examples * p_N))


def as_large(monkeypatch, max_whole=8, block=7):
    """Makes a few examples take the path of more than 2^24."""
    monkeypatch.setattr(sampling, "MAX_WHOLE", max_whole)
    monkeypatch.setattr(sampling, "BLOCK", block)


def test_large_sets_have_the_probabilities_of_small_ones(monkeypatch):
    generator, problems = stream(0, "large"), []
    for trial in range(60):
        score_N = (3 * torch.randn(90 + trial, generator=generator)).exp()
        score_N = [score_N, score_N.round(), torch.ones_like(score_N)][trial % 3]
        num_kept = [1 + trial, len(score_N), len(score_N) - 1, 40][trial % 4]
        surplus_N = 2 * torch.rand(len(score_N), generator=generator) - 1
        whole_N = inclusion_probability(smooth(score_N, 0.2), num_kept)
        raw_N = inclusion_probability(score_N, num_kept)
        problems.append((score_N, num_kept, surplus_N, raw_N, whole_N, balanced(whole_N, surplus_N, num_kept)))
    as_large(monkeypatch)
    for score_N, num_kept, surplus_N, raw_N, whole_N, now_N in problems:
        np.testing.assert_allclose(inclusion_probability(score_N, num_kept), raw_N, rtol=1e-5, atol=1e-30)
        p_N = inclusion_probability(smooth(score_N, 0.2), num_kept)
        assert p_N.dtype == torch.float32
        np.testing.assert_allclose(p_N, whole_N, rtol=1e-5)
        np.testing.assert_allclose(balanced(p_N, surplus_N, num_kept), now_N, rtol=1e-4, atol=1e-5)
        index_K = systematic_sample(p_N, generator)
        assert len(index_K) == num_kept and (index_K.diff() > 0).all()
        assert set((p_N == 1).nonzero().flatten().tolist()) <= set(index_K.tolist())
    for bad in (-1.0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            smooth(torch.ones(20).index_fill_(0, torch.tensor([3]), bad), 0.2)


def test_large_sets_are_drawn_with_their_probabilities_and_every_pair_is_possible(monkeypatch):
    as_large(monkeypatch)
    p_N = inclusion_probability(torch.rand(26, generator=stream(3, "scores")) ** 3 + 0.3, 12)
    taken_RN = drawn(p_N, 1500).double()
    open_N = p_N < 1
    assert (taken_RN[:, ~open_N] == 1).all()
    p_M = p_N[open_N].double()
    z_M = (taken_RN.mean(0)[open_N] - p_M) / (p_M * (1 - p_M) / 1500).sqrt()
    assert z_M.abs().max() < 4.5 and z_M.square().mean() < 2.5
    together_NN = taken_RN.T @ taken_RN
    assert (together_NN > 0).all()


def by_one_sort(score_N, num_kept):
    """Returns `inclusion_probability` of all scores, as every earlier version computed it up to 2^24 examples."""
    falling_N, order_N = score_N.double().sort(descending=True)
    rest_N = falling_N.flip(0).cumsum(0).flip(0)
    capped_N = torch.arange(num_kept)
    level_K = (num_kept - capped_N) / rest_N[:num_kept]
    num_capped = int((level_K * falling_N[:num_kept] >= 1).cumprod(0).sum())
    p_sorted_N = torch.ones_like(falling_N)
    p_sorted_N[num_capped:] = falling_N[num_capped:] * level_K[num_capped]
    return torch.empty_like(p_sorted_N).scatter_(0, order_N, p_sorted_N)


def by_one_permutation(p_N, generator):
    """Returns `systematic_sample`, as every earlier version drew it up to 2^24 examples."""
    certain_N = p_N >= sampling.CERTAIN
    num_drawn = int(p_N.sum().round()) - int(certain_N.sum())
    open_M = (~certain_N).nonzero().squeeze(1)
    open_M = open_M[torch.randperm(len(open_M), generator=generator)]
    end_M = p_N[open_M].cumsum(0)
    end_M = end_M * (num_drawn / end_M[-1])
    end_M[-1] = num_drawn
    tick_M = (end_M - torch.rand((), generator=generator, dtype=torch.float64)).ceil()
    chosen = open_M[tick_M > torch.cat([tick_M.new_zeros(1), tick_M[:-1]])]
    return torch.cat([certain_N.nonzero().squeeze(1), chosen]).sort().values


def test_small_sets_are_drawn_as_ever():
    for num_examples, num_kept, spread in ((50_000, 20_000, 1), (1797, 1500, 3), (100_001, 900, 2)):
        score_N = (spread * torch.randn(num_examples, generator=stream(0, "as ever"))).exp()
        surplus_N = torch.zeros(num_examples)
        for epoch in range(3):
            p_N = inclusion_probability(smooth(score_N, 0.2), num_kept)
            assert torch.equal(p_N, by_one_sort(smooth(score_N, 0.2), num_kept))
            now_N = balanced(p_N, surplus_N, num_kept)
            index_K = systematic_sample(now_N, stream(0, "as ever", epoch))
            assert torch.equal(index_K, by_one_permutation(now_N, stream(0, "as ever", epoch)))
            surplus_N -= p_N
            surplus_N[index_K] += 1
