"""The bands of the gate: as wide as theory says, and kept by what has not changed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sadp_bench.gate.bands import LEVEL, Spread, pooled, visit_agreement, visit_spread


def drawn(preference_N, seeds, epochs, rng):
    """Visits of examples that are drawn, each epoch, with their own probability."""
    return rng.binomial(epochs, preference_N, (seeds, len(preference_N))).astype(float)


def test_a_pooled_spread_is_the_root_of_the_mean_squares_about_each_samples_own_mean():
    found = pooled([[1.0, 2.0, 3.0], [10.0, 14.0], [7.0]])
    assert found.freedom == 3
    assert found.size == pytest.approx(math.sqrt((1 + 0 + 1 + 4 + 4) / 3))


@pytest.mark.parametrize("sides", [1, 2])
def test_the_mean_of_new_seeds_leaves_the_band_as_often_as_it_says(sides):
    n, m, groups, level = 3, 3, 2, 0.05
    rng = np.random.default_rng(0)
    factor = Spread(1.0, groups * (n - 1)).half_width(n, m, sides) / stats.t.ppf(1 - LEVEL / sides, groups * (n - 1))
    wide = factor * stats.t.ppf(1 - level / sides, groups * (n - 1))
    samples = rng.normal(size=(4000, groups, n))
    size = samples.std(axis=2, ddof=1).__pow__(2).mean(axis=1) ** 0.5
    fall = samples[:, 0].mean(axis=1) - rng.normal(size=(4000, m)).mean(axis=1)
    outside = (fall > wide * size) if sides == 1 else (abs(fall) > wide * size)
    assert outside.mean() == pytest.approx(level, abs=0.015)


def test_the_errors_of_what_visits_say_cover_repeated_draws():
    rng, spreads, agreements = np.random.default_rng(0), [], []
    preference_N = rng.beta(4, 4, 500)
    for _ in range(300):
        reference, now = (drawn(preference_N, 3, 10, rng) for _ in range(2))
        before, after, error = visit_spread(reference, now)
        spreads.append(math.log(after / before) / error)
        within, across, error = visit_agreement(reference, now)
        agreements.append((across - within) / error)
    assert 0.6 < np.std(spreads) < 1.1 and abs(np.mean(spreads)) < 0.2
    assert 0.6 < np.std(agreements) < 1.1 and abs(np.mean(agreements)) < 0.2


def test_agreement_is_that_of_other_seeds_and_of_the_same_examples():
    rng = np.random.default_rng(0)
    preference_N = rng.beta(1, 1, 3000)
    reference, now = (drawn(preference_N, 3, 10, rng) for _ in range(2))
    correlations = [np.corrcoef(reference[i], now[j])[0, 1] for i in range(3) for j in range(3) if i != j]
    within, across, error = visit_agreement(reference, now)
    assert across == pytest.approx(np.mean(correlations))
    assert within == pytest.approx(np.mean([np.corrcoef(reference)[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]))
    shifted = visit_agreement(reference, np.roll(now, 1, axis=1))[1]
    assert abs(across - within) < 4 * error and within - shifted > 20 * error


def test_the_same_visits_agree_without_error():
    rng = np.random.default_rng(0)
    reference = drawn(rng.beta(4, 4, 200), 3, 10, rng)
    within, across, error = visit_agreement(reference, reference)
    assert across == pytest.approx(within) and error == pytest.approx(0, abs=1e-12)
    before, after, _ = visit_spread(reference, reference)
    assert before == after
