"""HWBS: averages, probabilities, draws and weights against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from baselines.hwbs import HWBS
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.pruners.sampling import systematic_sample
from tests.helpers import in_standard_errors, prepared, seen, weighted_sums

N = 31


def observed(pruner, index_B, epoch=0, steps=3):
    """Lets the pruner observe made logits of a batch; returns the error norms by NumPy."""
    generator = stream(epoch, "logits")
    logits_TBC = 4 * torch.randn(steps, len(index_B), 5, generator=generator)
    label_B = index_B % 5
    pruner.observe(seen(index_B, logits_TBC=logits_TBC, label_B=label_B, epoch=epoch))
    return np.linalg.norm(softmax(logits_TBC.double().mean(0).numpy(), axis=1) - np.eye(5)[label_B.numpy()], axis=1)


def water_filled(score_N, num_kept):
    """Caps one score after the other at probability 1, in falling order."""
    order, p_N = np.argsort(-score_N), np.ones(len(score_N))
    for num_capped in range(num_kept):
        rest = order[num_capped:]
        level = (num_kept - num_capped) / score_N[rest].sum()
        if level * score_N[rest].max() <= 1:
            p_N[rest] = level * score_N[rest]
            break
    return p_N


def test_averages_probabilities_and_weights_are_those_of_the_definition():
    for ratio, smoothing, memory in ((0.3, 0.2, 0.5), (0.5, 0.1, 0.9), (0.7, 1.0, 0.0)):
        pruner = prepared(HWBS(ratio, smoothing=smoothing, memory=memory), N, 6)
        average_N = np.full(N, np.nan)
        for epoch in range(6):
            selection = pruner.select(epoch)
            num_kept = pruner.num_kept(epoch)
            mean = 1.0 if np.isnan(average_N).all() else np.nanmean(average_N)
            filled_N = np.where(np.isnan(average_N), mean, average_N)
            p_N = water_filled((1 - smoothing) * filled_N / filled_N.mean() + smoothing, num_kept)
            index_K = selection.index_K.numpy()
            assert len(set(index_K.tolist())) == num_kept
            np.testing.assert_allclose(selection.weight_K, num_kept / (N * p_N[index_K]), rtol=1e-5)
            again = systematic_sample(torch.tensor(p_N), pruner.generator(epoch))
            assert set(again.tolist()) == set(index_K.tolist()), (ratio, epoch)
            new_K = observed(pruner, selection.index_K, epoch)
            old_K = average_N[index_K]
            average_N[index_K] = np.where(np.isnan(old_K), new_K, memory * old_K + (1 - memory) * new_K)


def test_the_first_epoch_is_uniform_and_unseen_examples_have_the_mean():
    pruner = prepared(HWBS(0.5), N)
    assert torch.allclose(pruner.select(0).weight_K, torch.ones(16))
    norm_B = observed(pruner, torch.arange(10))
    assert torch.allclose(pruner.final_scores()[10:], torch.tensor(norm_B.mean(), dtype=torch.float32))


def test_independent_draws_take_each_example_by_its_probability_and_are_unbiased():
    pruner = prepared(HWBS(0.5, draw="bernoulli"), 64, 5000)
    observed(pruner, torch.arange(64))
    p_N = torch.tensor(water_filled(0.8 * pruner.score_N.double().numpy() / pruner.score_N.mean().item() + 0.2, 32))
    taken_RN = torch.zeros(800, 64)
    for epoch, taken_N in enumerate(taken_RN):
        taken_N[pruner.select(epoch).index_K] = 1
    assert in_standard_errors(taken_RN[:, p_N < 1], p_N[p_N < 1]).max() < 4.5
    assert taken_RN[:, p_N == 1].all() and taken_RN.sum(1).std() > 2, "K varies"
    assert pruner.exempt and not pruner.fixed_size


def test_weighted_means_of_exact_draws_are_unbiased():
    pruner = prepared(HWBS(0.5), N + 1)
    observed(pruner, torch.arange(N + 1))
    value_ND = torch.randn(N + 1, 3, generator=stream(1, "values"), dtype=torch.float64)
    assert in_standard_errors(weighted_sums(pruner, value_ND, 700), value_ND.mean(0)).max() < 4
    assert pruner.fixed_size and not pruner.exempt


def test_settings_out_of_range_are_refused():
    for setting, allowed in (
        ({"smoothing": 0.0}, "smoothing is above 0 and at most 1, not 0"),
        ({"smoothing": float("nan")}, "smoothing is above 0"),
        ({"memory": 1.0}, "memory is at least 0 and below 1, not 1"),
        ({"draw": "poisson"}, "draw is one of exact, bernoulli, not 'poisson'"),
    ):
        with pytest.raises(BadInput, match=f"hwbs's {allowed}"):
            HWBS(0.5, **setting)
    with pytest.raises(BadInput, match="expects at least 32 examples in an epoch, not 15.5: take draw=exact"):
        prepared(HWBS(0.5, draw="bernoulli"), N)
