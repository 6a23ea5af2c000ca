"""The power of paired t-tests against simulations, SciPy's noncentral t, and known chances."""

import math

import numpy as np
import pytest
from scipy.special import nctdtr, stdtrit

from sadp_bench.records.power import MAX_SEEDS, POWER, decidable, power, seeds_needed, uncertainty
from sadp_bench.records.statistics import t_interval, verdict


def test_power_is_the_share_of_simulated_tables_that_decide():
    draws = np.random.default_rng(0)
    for seeds, difference, spread in ((3, 0.9, 0.4), (5, 0.5, 0.5), (10, 0.3, 0.4)):
        tables = draws.normal(difference, spread, (20_000, seeds))
        half = stdtrit(seeds - 1, 0.975) * tables.std(1, ddof=1) / math.sqrt(seeds)
        decided = np.abs(tables.mean(1)) > half
        assert power(seeds, difference, spread) == pytest.approx(decided.mean(), abs=0.012), seeds
        lossless = tables.mean(1) - difference - half > -difference  # of a method without any loss
        assert power(seeds, difference, spread, margin=True) == pytest.approx(lossless.mean(), abs=0.012), seeds


def test_the_simulated_rule_is_that_of_the_verdicts():
    draws = np.random.default_rng(1)
    verdicts = [verdict(*t_interval(list(draws.normal(0, 0.5, 5))), 0.5) for _ in range(1000)]
    assert verdicts.count("lossless") / 1000 == pytest.approx(power(5, 0.5, 0.5, margin=True), abs=0.05)


def test_a_method_without_loss_is_rarely_called_lossless_by_few_seeds():
    """Spread and margin 0.5: 18 % of the tables of 3 seeds, 40 % of 5 and 80 % of 10."""
    chances = [power(seeds, 0.5, 0.5, margin=True) for seeds in (3, 5, 10)]
    assert chances == pytest.approx([0.179, 0.401, 0.803], abs=0.001)


def test_power_equals_scipys_noncentral_t_where_that_has_a_value():
    compared = 0
    for seeds in (2, 3, 6, 30, 1000):
        for shift in (0.5, 2.0, 5.0, 9.0):
            t = stdtrit(seeds - 1, 0.975)
            expected = 1 - nctdtr(seeds - 1, shift, t) + nctdtr(seeds - 1, shift, -t)
            if not math.isnan(expected):
                assert power(seeds, shift / math.sqrt(seeds), 1.0) == pytest.approx(expected, abs=1e-5), (seeds, shift)
                compared += 1
    assert compared > 12


def test_seeds_and_differences_are_each_others_inverse():
    for spread in (0.3, 0.4, 0.5):
        for difference in (0.1, 0.3, 1.0, 5.0):
            seeds = seeds_needed(difference, spread)
            assert power(seeds, difference, spread) >= POWER
            assert seeds == 2 or power(seeds - 1, difference, spread) < POWER
            assert decidable(seeds, spread) <= difference * (1 + 1e-9)
    assert decidable(3, 0.4) == pytest.approx(1.31, abs=0.01) and decidable(1, 0.4) is None
    assert seeds_needed(0.5, 0.5, margin=True) == 10 and seeds_needed(1e-9, 1.0) is None
    assert power(MAX_SEEDS, 1e-300, 1e300) == pytest.approx(0.05, abs=1e-4) and power(2, 1e300, 1e-9) == pytest.approx(
        1
    )


def test_the_spread_of_three_seeds_may_be_six_times_as_large():
    assert uncertainty(3) == pytest.approx((0.521, 6.285), abs=0.001)  # sqrt(2 / 7.378) and sqrt(2 / 0.0506)
