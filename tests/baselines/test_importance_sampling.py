"""Online importance sampling: tau, the switch, the draw and its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.importance_sampling import ImportanceSampling
from sadp_bench.core.errors import BadInput
from tests.helpers import prepared, seen
from tests.within_batch import candidates


def errors(norms: np.ndarray) -> torch.Tensor:
    """Returns errors at two steps and two classes, whose sum over time has these norms."""
    return torch.tensor(np.stack([norms * 0.3, norms * 0.7])[:, :, None] * np.array([0.6, 0.8]))


def test_candidates_pass_forward_once_the_running_tau_exceeds_the_threshold() -> None:
    rng = np.random.default_rng(0)
    pruner = prepared(ImportanceSampling(2 / 3), 300)
    assert pruner.threshold == pytest.approx(2)
    tau, switched = 0.0, False
    for batch in range(40):
        norms = rng.exponential(size=30) ** (1 + batch / 4)
        expected_uniform = tau <= 2
        calls = []
        given = candidates(torch.arange(30), 10, logit_errors=errors(norms))
        forward = given.forward
        object.__setattr__(given, "forward", lambda watch, f=forward, c=calls: c.append(1) or f(watch))
        choice = pruner.choose_in_batch(given)
        assert bool(calls) != expected_uniform
        if expected_uniform:
            assert choice.index_K.tolist() == list(range(10)) and bool((choice.weight_K == 1).all())
        g = norms if not expected_uniform else norms[:10]
        pruner.observe(seen(torch.arange(10), logit_errors=errors(norms[:10])))
        g = g / g.sum()
        tau = 0.9 * tau + 0.1 * np.sqrt(len(g) * np.sum(g**2))
        switched |= not expected_uniform
        assert float(pruner.tau) == pytest.approx(tau, rel=1e-5)
    assert switched


def test_the_weighted_mean_of_a_batch_is_that_of_the_candidates() -> None:
    rng = np.random.default_rng(3)
    pruner = prepared(ImportanceSampling(0.5, threshold=1.0, memory=0.0), 60)
    norms, value = rng.exponential(size=20) + 0.1, rng.normal(size=20)
    watched = {"logit_errors": errors(norms)}
    pruner.observe(seen(torch.arange(20), **watched))
    means, g = [], norms / norms.sum()
    for _ in range(3000):
        choice = pruner.choose_in_batch(candidates(torch.arange(20), 10, **watched))
        at, weight = choice.index_K.numpy(), choice.weight_K.numpy()
        np.testing.assert_allclose(weight, 1 / (20 * g[at]), rtol=1e-5)
        means.append(np.mean(weight * value[at]))
    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - value.mean()) < 4 * error


def test_candidates_without_a_gradient_are_drawn_evenly_and_settings_are_checked() -> None:
    pruner = prepared(ImportanceSampling(0.5, threshold=1.0), 60)
    pruner.tau = torch.tensor(5.0)
    choice = pruner.choose_in_batch(candidates(torch.arange(20), 10, logit_errors=errors(np.zeros(20))))
    assert choice.weight_K.tolist() == pytest.approx([1.0] * 10)
    for options, message in (
        ({"threshold": 0.5}, "threshold is 0 .* not 0.5"),
        ({"memory": 1.0}, "memory is at least 0"),
    ):
        with pytest.raises(BadInput, match=message):
            ImportanceSampling(0.5, **options)
