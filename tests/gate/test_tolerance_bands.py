"""The bands of the gate: as wide as theory predicts, and kept by unchanged code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sadp_bench.gate import tolerance_bands
from sadp_bench.gate.compare import compare_runs
from sadp_bench.gate.spread import Spread, pooled, together
from sadp_bench.gate.tolerance_bands import visit_agreement, visit_spread
from tests.example_records import make_record, make_spec


def drawn(preference_SN, epochs, rng):
    """Returns visits of examples that are drawn in each epoch with their own probability."""
    return rng.binomial(epochs, preference_SN).astype(float)


def test_a_pooled_spread_is_the_root_of_the_mean_squares_about_each_samples_own_mean():
    found = pooled([[1.0, 2.0, 3.0], [10.0, 14.0], [7.0]])
    assert found.freedom == 3
    assert found.size == pytest.approx(math.sqrt((1 + 0 + 1 + 4 + 4) / 3))


def test_the_mean_of_new_seeds_leaves_the_band_as_often_as_it_states():
    n, m, groups, level = 3, 3, 2, 0.05
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(4000, groups, n))
    size = samples.std(axis=2, ddof=1).__pow__(2).mean(axis=1) ** 0.5
    fall = samples[:, 0].mean(axis=1) - rng.normal(size=(4000, m)).mean(axis=1)
    for sides, outward in ((1, fall), (2, abs(fall))):
        width = Spread(1.0, groups * (n - 1)).of_means(n, m).reach(level, sides)
        assert (outward > width * size).mean() == pytest.approx(level, abs=0.015), sides


def test_the_freedom_of_errors_together_is_welchs():
    # Two samples of 10 and 20 with variances 4 and 1: Welch's t test has these degrees of freedom.
    error = together(Spread(math.sqrt(4 / 10), 9), Spread(math.sqrt(1 / 20), 19))
    one, two = (np.arange(n) for n in (10, 20))
    scaled = [(x - x.mean()) / x.std(ddof=1) for x in (one, two)]
    welch = stats.ttest_ind(2 * scaled[0], scaled[1], equal_var=False)
    assert error.size == pytest.approx(math.sqrt(0.45)) and error.freedom == pytest.approx(welch.df)


def test_what_visits_state_leaves_its_band_no_more_often_than_that_states():
    """Seeds prefer the same examples, some seeds more strongly, and each prefers further examples."""
    for strength, own in ((0.0, 0.0), (0.2, 0.0), (0.2, 0.5)):
        rng, num_seeds, level, left = np.random.default_rng(0), 3, 0.05, []
        for _ in range(1000):
            common_N, own_SN = rng.normal(size=400), rng.normal(size=(2 * num_seeds, 400))
            strength_S = np.exp(strength * rng.normal(size=(2 * num_seeds, 1)))
            visits = drawn(1 / (1 + np.exp(-0.7 * strength_S * common_N - own * own_SN)), 10, rng)
            reference, now = visits[:num_seeds], visits[num_seeds:]
            before, after, error = visit_spread(reference, now)
            within, across, other = visit_agreement(reference, now)
            left.append(
                (abs(math.log(after / before)) > error.reach(level, 2), across < within - other.reach(level, 1))
            )
        assert (np.mean(left, axis=0) <= level + 0.02).all(), (strength, own)


def test_agreement_is_that_of_other_seeds_and_of_the_same_examples():
    rng = np.random.default_rng(0)
    preference_SN = np.broadcast_to(rng.beta(1, 1, 3000), (3, 3000))
    reference, now = (drawn(preference_SN, 10, rng) for _ in range(2))
    correlations = [np.corrcoef(reference[i], now[j])[0, 1] for i in range(3) for j in range(3) if i != j]
    within, across, error = visit_agreement(reference, now)
    assert across == pytest.approx(np.mean(correlations))
    assert within == pytest.approx(np.mean([np.corrcoef(reference)[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]))
    shifted = visit_agreement(reference, np.roll(now, 1, axis=1))[1]
    assert abs(across - within) < 4 * error.size and within - shifted > 20 * error.size


def test_the_same_visits_agree_without_a_difference():
    rng = np.random.default_rng(0)
    reference = drawn(np.broadcast_to(rng.beta(4, 4, 200), (3, 200)), 10, rng)
    within, across, _ = visit_agreement(reference, reference)
    assert across == pytest.approx(within)
    before, after, _ = visit_spread(reference, reference)
    assert before == after


def unchanged(rng, num_epochs=4):
    """Returns both sides of a check, from one distribution. Runs of one seed correlate, and so do a run's weights."""
    sides = []
    for _ in range(2):
        side, fare_S = [], rng.normal(size=3)
        for method in ("full", "random", "sadp"):
            for seed in range(3):
                luck, loss, weight = (fare_S[seed] + rng.normal()) / math.sqrt(2), 1 + 0.1 * rng.normal(), 1.0
                if method == "sadp":
                    weight += 0.01 * rng.normal()
                epochs = [
                    {
                        "epoch": e,
                        "kept": 9,
                        "mean_weight": weight + 1e-4 * rng.normal() * (weight != 1),
                        "train_loss": loss,
                    }
                    for e in range(num_epochs)
                ]
                spec = make_spec(method, 0.0 if method == "full" else 0.5, seed)
                side.append(make_record(spec, 0.5 + 0.02 * luck, epochs=epochs, test_examples=10_000))
        sides.append(side)
    return sides


def test_all_bands_together_fail_an_unchanged_package_no_more_often_than_they_state(monkeypatch):
    monkeypatch.setattr(tolerance_bands, "FALSE_ALARM_LEVEL", 0.2)
    rng, failed = np.random.default_rng(0), []
    for _ in range(200):
        reference, now = unchanged(rng)
        result = compare_runs(reference, {record.spec.key: record for record in now}, exact=False)
        failed.append(not result.passed)
    assert len([found for found in result.findings if found.kind == "band"]) == 3 + 2 + 3 + 2
    assert 0.04 < np.mean(failed) <= 0.2 + 0.05
