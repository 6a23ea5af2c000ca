"""Intervals, verdicts and ranks against closed forms, printed tables and other people's code."""

import math
import statistics as stdlib_statistics

import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from sadp_bench.records import statistics
from sadp_bench.records.statistics import (
    Quantity,
    critical_difference,
    estimate,
    holm,
    interval,
    p_value,
    paired_difference,
    paired_factor,
    rank_analysis,
    ratio_of_means,
    t_interval,
    verdict,
)

numbers = st.floats(-1, 1).map(lambda x: round(x, 6))
samples = st.lists(numbers, min_size=2, max_size=12)


# Student's quantile has a closed form at 1 and 2 degrees of freedom; the others are the printed table's.
def test_t_interval_equals_the_textbook_formula():
    for values, quantile in [
        ([0.1, 0.5], math.tan(math.pi * 0.475)),
        ([0.1, 0.5, 0.3], 0.95 / math.sqrt(2 * 0.975 * 0.025)),
        ([1, 2, 3, 4, 5], 2.776445),
        ([1, 1, 2, 3, 5, 8, 13, 21, 34, 55], 2.262157),
    ]:
        mean = sum(values) / len(values)
        error = math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1) / len(values))
        assert t_interval(values) == pytest.approx((mean - quantile * error, mean + quantile * error), rel=1e-6)


def test_t_interval_equals_statsmodels():
    weightstats = pytest.importorskip("statsmodels.stats.weightstats", reason="statsmodels is not installed")
    values = [0.6291, 0.6176, 0.6233, 0.623, 0.6174]
    for level in (0.5, 0.95, 0.99):
        assert t_interval(values, level) == pytest.approx(weightstats.DescrStatsW(values).tconfint_mean(1 - level))


def test_one_value_has_no_interval():
    assert t_interval([0.5]) is t_interval([]) is None
    found = estimate([None, 0.5], Quantity.RATIO)
    assert (found.mean, found.spread, found.low, found.high, found.n) == (0.5, None, None, None, 1)
    assert estimate([None], Quantity.SHARE) is None


@given(samples)
def test_interval_lies_around_the_mean_and_grows_with_the_level(values):
    low, high = t_interval(values)
    mean = stdlib_statistics.fmean(values)
    assert low <= mean <= high
    assert high - mean == pytest.approx(mean - low, abs=1e-12)
    wider = t_interval(values, 0.99)
    assert wider[0] <= low and high <= wider[1]


@given(samples, st.integers(2, 4))
def test_interval_shrinks_where_the_same_values_come_again(values, times):
    assume(max(values) - min(values) > 1e-3)
    low, high = t_interval(values)
    again = t_interval(values * times)
    assert low < again[0] and again[1] < high


def test_equal_values_have_an_interval_of_no_width():
    assert t_interval([0.1] * 3) == pytest.approx((0.1, 0.1))


def test_differences_are_paired_by_seed_and_only_common_seeds_count():
    found = paired_difference({0: 0.5, 1: 0.7, 2: 0.9, 5: 0.1}, {2: 0.6, 1: 0.6, 0: 0.6, 9: 0.0})
    # -0.1, 0.1 and 0.3: mean 0.1, standard deviation 0.2, Student's quantile 4.302653
    half = 4.302653 * 0.2 / math.sqrt(3)
    assert (found.mean, found.spread, found.low, found.high) == pytest.approx((0.1, 0.2, 0.1 - half, 0.1 + half))
    assert found.n == 3
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


@given(st.dictionaries(st.integers(0, 9), numbers, max_size=9), st.dictionaries(st.integers(0, 9), numbers, max_size=9))
def test_difference_the_other_way_round_is_its_mirror_image(one, other):
    found, mirrored = paired_difference(one, other), paired_difference(other, one)
    if found is None:
        assert mirrored is None and not set(one) & set(other)
    else:
        assert (found.n, found.mean) == (mirrored.n, pytest.approx(-mirrored.mean))
        if found.low is not None:
            assert (found.low, found.high) == (pytest.approx(-mirrored.high), pytest.approx(-mirrored.low))


def test_verdict_at_the_margins():
    for low, high, expected in [
        (-0.004, 0.001, "lossless"),
        (0.01, 0.02, "lossless"),
        (-0.005, 0.001, "undecided"),  # at the margin itself nothing is shown
        (-0.006, 0.001, "undecided"),
        (-0.02, -0.005, "undecided"),
        (-0.02, -0.006, "worse"),
        (None, None, None),
        (0.01, 0.01, None),  # seeds that agree to the last example
    ]:
        assert verdict(low, high, 0.005) == expected, (low, high)


@given(numbers, numbers, st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_a_larger_margin_never_makes_a_verdict_harsher(one, other, margin, larger):
    assume(one != other)
    low, high = sorted([one, other])
    margin, larger = sorted([margin, larger])
    order = ["worse", "undecided", "lossless"]
    assert order.index(verdict(low, high, margin)) <= order.index(verdict(low, high, larger))


# Demšar, JMLR 2006, table 5.
def test_critical_difference_equals_the_published_table_and_example():
    for methods, quantile in enumerate([1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164], start=2):
        expected = quantile * math.sqrt(methods * (methods + 1) / (6 * 14))
        assert critical_difference(methods, 14) == pytest.approx(expected, rel=3e-4), methods
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)  # 4 methods on 14 data sets, section 3.2.2


def blocks(*scores, names="abc"):
    return {number: dict(zip(names, block, strict=False)) for number, block in enumerate(scores)}


def test_ranks_of_five_like_blocks_equal_hand_worked_numbers():
    # ranks 1, 2, 3 in each: chi² = 12 * 5 / (3 * 4) * (1 + 4 + 9 - 3 * 16 / 4) = 10; p = exp(-10 / 2) at 2 degrees
    found = rank_analysis(blocks(*[(0.3, 0.2, 0.1)] * 5))
    assert list(found.mean_ranks.items()) == [("a", 1), ("b", 2), ("c", 3)]
    assert (found.statistic, found.p_value) == (pytest.approx(10), pytest.approx(math.exp(-5)))
    # 2.343 sqrt(3 * 4 / (6 * 5)) = 1.482 lies between 1 and 2
    assert found.critical_difference == pytest.approx(1.482, abs=1e-3)
    assert found.groups == (("a", "b"), ("b", "c"))


def test_ties_share_the_average_rank_and_correct_the_statistic():
    found = rank_analysis(blocks((0.3, 0.3, 0.1), *[(0.3, 0.2, 0.1)] * 4))
    # mean ranks 5.5/5, 9.5/5 and 3: 5 (1.21 + 3.61 + 9 - 12) = 9.1, over 1 - (2³ - 2) / (5 * (3³ - 3)) = 0.95
    assert found.mean_ranks == pytest.approx({"a": 1.1, "b": 1.9, "c": 3})
    assert found.statistic == pytest.approx(9.1 / 0.95)
    assert found.p_value == pytest.approx(math.exp(-9.1 / 0.95 / 2))


def test_friedman_that_does_not_reject_leaves_all_methods_in_one_group():
    found = rank_analysis(blocks((1, 2, 3), (3, 1, 2), (2, 3, 1), (1, 2, 3), (3, 2, 1)))
    assert found.p_value > 0.05 and [set(group) for group in found.groups] == [{"a", "b", "c"}]
    alike = rank_analysis(blocks(*[(1, 1, 1)] * 5))
    assert (alike.statistic, alike.p_value, set(alike.mean_ranks.values())) == (0, 1, {2})


def test_blocks_that_lack_a_method_are_dropped_and_rare_methods_left_out():
    scores = blocks(*[(0.3, 0.2, 0.1)] * 6, (0.3, 0.2))
    scores[0]["rare"] = 0.9
    found = rank_analysis(scores)
    assert (found.num_blocks, found.dropped_blocks, found.left_out) == (6, 1, ("rare",))
    assert found.mean_ranks == {"a": 1, "b": 2, "c": 3}


def test_too_few_methods_or_blocks_have_no_ranks():
    assert rank_analysis(blocks(*[(2, 1)] * 9)) is None
    assert rank_analysis(blocks(*[(3, 2, 1)] * 4)) is None
    assert rank_analysis({}) is None


scores = st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=statistics.MIN_BLOCKS, max_size=8)


@given(scores, st.randoms(use_true_random=False))
def test_ranks_have_neither_the_order_of_blocks_nor_their_level(table, random):
    found = rank_analysis(blocks(*table, names="abcd"))
    assert sum(found.mean_ranks.values()) == pytest.approx(1 + 2 + 3 + 4)
    assert {name for group in found.groups for name in group} == set("abcd")
    moved = [tuple(math.exp(score / 3) + level for score in block) for level, block in enumerate(table)]
    random.shuffle(moved)
    again = rank_analysis(blocks(*moved, names="abcd"))
    assert again.mean_ranks == pytest.approx(found.mean_ranks)
    assert again.p_value == pytest.approx(found.p_value)


def test_no_interval_contains_what_its_quantity_cannot_be():
    values = [0.02, 0.98]  # of two values the t-interval is 9 times as wide as they lie apart
    assert interval(values, Quantity.SHARE) == (0.0, 1.0) and interval(values, Quantity.DIFFERENCE) == (-1.0, 1.0)
    assert interval(values, Quantity.AMOUNT) == (0.0, t_interval(values)[1])
    assert interval([0.4, 0.41], Quantity.SHARE) == t_interval([0.4, 0.41])  # nothing to cut


@given(samples)
def test_interval_of_ratios_is_that_of_their_inverses_and_lies_above_0(values):
    ratios = [2**value for value in values]
    low, high = interval(ratios, Quantity.RATIO)
    assert 0 < low <= stdlib_statistics.geometric_mean(ratios) * (1 + 1e-9) <= high * (1 + 2e-9)
    inverse = interval([1 / ratio for ratio in ratios], Quantity.RATIO)
    assert inverse == pytest.approx((1 / high, 1 / low))


def test_ratios_without_an_interval():
    for values in ([1.0], [0.0, 1.0], [1e-100, 1e100]):  # one, none of logarithms, and an end that no float holds
        assert interval(values, Quantity.RATIO) is None


def test_the_half_width_is_of_intervals_around_the_mean_only():
    assert estimate([0.5, 0.6], Quantity.SHARE).half is None  # cut at 1
    assert estimate([0.50, 0.51], Quantity.SHARE).half == pytest.approx(0.005 * math.tan(math.pi * 0.475))
    assert estimate([1.0, 1.1], Quantity.RATIO).half is None
    assert estimate([3e-8, 3.1e-8], Quantity.RATIO).half is None and estimate([3e-8, 3e-8], Quantity.AMOUNT).half == 0


def test_fiellers_interval_holds_the_quotients_that_no_t_test_refuses():
    """The mean of x - quotient * y lies t standard errors off 0 at each end of the interval."""
    pairs = [(0.3, 1.1), (0.5, 0.9), (0.2, 1.2), (0.6, 1.0), (0.4, 1.4)]
    found = ratio_of_means(pairs)
    assert found.mean == pytest.approx(2.0 / 5.6) and found.n == 5 and found.low < found.mean < found.high
    for end in (found.low, found.high):
        low, high = t_interval([x - end * y for x, y in pairs])
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-12)
    scaled = ratio_of_means([(1e-80 * x, 1e-80 * y) for x, y in pairs])
    assert (scaled.low, scaled.high) == pytest.approx((found.low, found.high))


def test_a_quotient_of_an_undecided_denominator_has_no_number():
    undecided = [[(1.0, 0.5), (1.0, -0.4)], [(1.0, 1.0)], [], [(1.0, 0.0), (1.0, 0.0)], [(0.0, 0.0), (0.0, 0.0)]]
    assert [ratio_of_means(pairs) for pairs in undecided] == [None] * 5


def test_a_factor_and_its_inverse_have_inverse_means_and_ends():
    one, other = {0: 0.2, 1: 0.3, 2: 0.25, 3: 0.0}, {0: 0.4, 1: 0.5, 2: 0.45, 3: 1.0, 9: 1.0}
    found, inverse = paired_factor(one, other), paired_factor(other, one)
    assert found.n == 3  # The logarithm of 0 does not exist.
    assert found.mean == pytest.approx((0.5 * 0.6 * 0.25 / 0.45) ** (1 / 3)) == pytest.approx(1 / inverse.mean)
    assert (found.low, found.high) == pytest.approx((1 / inverse.high, 1 / inverse.low))
    assert paired_factor({0: 1.0}, {1: 1.0}) is None


def test_p_values_equal_scipys_and_holms_are_the_hand_worked_ones():
    values = [0.01, 0.03, -0.005, 0.02]
    found = estimate(values, Quantity.DIFFERENCE)
    assert p_value(found, -0.005) == pytest.approx(scipy.stats.ttest_1samp(values, -0.005).pvalue)
    assert p_value(estimate([0.1, 0.1], Quantity.DIFFERENCE), 0) is p_value(estimate([0.1], Quantity.SHARE), 0) is None
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == [0.03, None, 0.06, 0.06, 0.02] and holm([0.7, 0.6]) == [1.0, 1.0]
