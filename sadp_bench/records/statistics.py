"""Statistics over seeds: intervals, paired differences, verdicts, ranks of methods.

The functions are pure. They import SciPy when they are called, so that an import of this module is quick.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from sadp_bench.records.metrics import summary

LEVEL = 0.95  # confidence of every interval
ALPHA = 0.05  # significance of the rank analysis
NO_WIDTH = 1e-9  # share; an interval below this width is rounding, because equal accuracies differ in their last bits
ROUNDING = 1e-9  # share of a mean; both sides of its interval are equal within it
MAX_LOG = math.log(1e100)  # logarithm of a factor; no loss is as many times another
MIN_METHODS = 3
MIN_BLOCKS = 5

Key = TypeVar("Key", bound=Hashable)
Interval = tuple[float, float]


class Quantity(Enum):
    """The kind of number that is estimated."""

    SHARE = "share"  # an accuracy, in [0, 1]
    DIFFERENCE = "difference"  # a difference of two shares, in [-1, 1]
    AMOUNT = "amount"  # seconds, bytes, operations; at least 0
    RATIO = "ratio"  # a ratio of two amounts, such as a speed-up or an efficiency; above 0


BOUNDS = {Quantity.SHARE: (0.0, 1.0), Quantity.DIFFERENCE: (-1.0, 1.0), Quantity.AMOUNT: (0.0, math.inf)}


def interval(values: Sequence[float], quantity: Quantity) -> Interval | None:
    """Returns the mean's 95 % interval, within the values that the quantity can have; None where there is no interval.

    For a ratio it is the t-interval of the logarithms, so that a ratio and its inverse have the same interval. It lies
    above 0, and is wider above the mean than below. There is none where a value is 0, or an end exceeds all floats. For
    any other quantity it is the t-interval, cut at the bounds.
    """
    if quantity is not Quantity.RATIO:
        found, (lowest, highest) = t_interval(values), BOUNDS[quantity]
        return found and (max(lowest, found[0]), min(highest, found[1]))
    found = t_interval([math.log(value) for value in values]) if all(value > 0 for value in values) else None
    if found is None or max(map(abs, found)) > math.log(sys.float_info.max):
        return None
    return math.exp(found[0]), math.exp(found[1])


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Returns the mean's interval, mean ± t s / sqrt(n), with Student's quantile t at n - 1 degrees of freedom.

    It assumes independent, normal values. It is None for fewer than two values.

    Source: Student, "The Probable Error of a Mean", Biometrika 1908.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    mean, quantile = statistics.fmean(values), float(stdtrit(len(values) - 1, (1 + level) / 2))
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean, spread (sample standard deviation) and 95 % interval of n numbers. Spread and interval need n >= 2."""

    mean: float
    spread: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half of the interval's width; None without an interval, and where the mean is not the middle."""
        if self.low is None or self.high is None:
            return None
        below, above = self.mean - self.low, self.high - self.mean
        alike = math.isclose(below, above, rel_tol=ROUNDING, abs_tol=ROUNDING * abs(self.mean))
        return (self.high - self.low) / 2 if alike else None


def estimate(values: Iterable[float | None], quantity: Quantity) -> Estimate | None:
    """Returns the estimate of the values that are not None; None where all are."""
    there = [value for value in values if value is not None]
    found = summary(there)
    if found is None:
        return None
    low, high = interval(there, quantity) or (None, None)
    return Estimate(found.mean, found.spread, low, high, found.n)


def paired_difference(of: Mapping[Key, float], against: Mapping[Key, float]) -> Estimate | None:
    """Returns the estimate of one method's shares minus another's, over the seeds that both have; None without a seed."""
    return estimate((of[key] - against[key] for key in of if key in against), Quantity.DIFFERENCE)


def paired_factor(of: Mapping[Key, float], against: Mapping[Key, float]) -> Estimate | None:
    """Returns the geometric mean of one method's amounts over another's, over the seeds that both have.

    The interval is the t-interval of the logarithms, and the spread is the logarithms' too. Seeds where an amount is 0 are
    left out. None without a seed.
    """
    pairs = [(of[key], against[key]) for key in of if key in against and min(of[key], against[key]) > 0]
    logs = [log for a, b in pairs if abs(log := math.log(a) - math.log(b)) < MAX_LOG]
    found = summary(logs)
    if found is None:
        return None
    low, high = interval(list(map(math.exp, logs)), Quantity.RATIO) or (None, None)
    return Estimate(math.exp(found.mean), found.spread, low, high, found.n)


def ratio_of_means(pairs: Sequence[tuple[float, float]]) -> Estimate | None:
    """Returns the mean of the first numbers over the mean of the second, with Fieller's 95 % interval and no spread.

    It is None where the t-interval of the second mean contains 0, because the quotient then has no bounded interval.

    Source: Fieller, "Some Problems in Interval Estimation", JRSS B 1954.
    """
    scale, n = max((abs(value) for pair in pairs for value in pair), default=0.0), len(pairs)
    if n < 2 or scale == 0:
        return None
    from scipy.special import stdtrit

    x, y = ([pair[place] / scale for pair in pairs] for place in (0, 1))
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    q = float(stdtrit(n - 1, (1 + LEVEL) / 2)) ** 2 / n
    xx, yy = q * statistics.variance(x), q * statistics.variance(y)
    xy = q * sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / (n - 1)
    square = mean_y**2 - yy  # above 0 where the interval of the second mean excludes 0
    if abs(mean_y) < ROUNDING or square <= ROUNDING * mean_y**2:
        return None
    middle, root = mean_x * mean_y - xy, math.sqrt(max(0.0, (mean_x * mean_y - xy) ** 2 - square * (mean_x**2 - xx)))
    return Estimate(mean_x / mean_y, None, (middle - root) / square, (middle + root) / square, n)


def p_value(found: Estimate, null: float) -> float | None:
    """Returns the two-sided p-value of the t-test that the mean is `null`; None: the spread is unknown or only rounding."""
    if found.spread is None or found.spread < NO_WIDTH:
        return None
    from scipy.special import stdtr

    return 2 * float(stdtr(found.n - 1, -abs(found.mean - null) / (found.spread / math.sqrt(found.n))))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns the p-values adjusted for their number. None stays None.

    The chance of any false rejection among them is that of a single test.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979.
    """
    adjusted, least = list(p_values), 0.0
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    for rank, (p, place) in enumerate(order):
        adjusted[place] = least = max(least, min(1.0, (len(order) - rank) * p))
    return adjusted


def verdict(low: float | None, high: float | None, margin: float) -> str | None:
    """Returns "lossless", "worse" or "undecided" for an interval of (accuracy - accuracy of full).

    "lossless": every value in the interval loses less than the margin. "worse": every value loses more. One end of the
    two-sided 95 % interval decides, so each is a one-sided test at 2.5 %. None where there is no interval, as with one
    seed, or where its width is only rounding, as with seeds that agree to the last example.

    Source: non-inferiority, Piaggio et al., JAMA 2012.
    """
    assert margin > 0
    if low is None or high is None or high - low < NO_WIDTH:
        return None
    return "lossless" if low > -margin else "worse" if high < -margin else "undecided"


def against(
    low: float | None, high: float | None, least: float, equal: float, most: float, above: str, below: str
) -> str | None:
    """Returns the verdict of an interval of a comparison; None where there is no interval, or only rounding as its width.

    An interval that contains `equal` is "level" within `least` and `most`, otherwise "undecided".

    Args:
        low: The interval's lower end.
        high: The interval's upper end.
        least: The lower end of the level values.
        equal: The value of two equal methods.
        most: The upper end of the level values.
        above: The verdict where the whole interval lies above `equal`.
        below: The verdict where the whole interval lies below `equal`.
    """
    if low is None or high is None or high - low < NO_WIDTH:
        return None
    if low > equal or high < equal:
        return above if low > equal else below
    return "level" if least < low and high < most else "undecided"


def to_rival(low: float | None, high: float | None, margin: float) -> str | None:
    """Returns the verdict of an interval of (accuracy - accuracy of another method); None as in `against`.

    "better", "worse": the interval excludes 0. "level": it contains 0 and lies within ±margin. "undecided": neither.
    """
    return against(low, high, -margin, 0.0, margin, "better", "worse")


@dataclass(frozen=True, slots=True)
class RankAnalysis:
    """Methods ranked within blocks.

    Attributes:
        mean_ranks: Mean rank of each method, best (lowest) first.
        num_blocks: Number of blocks that contain all of these methods.
        dropped_blocks: Number of blocks that lack one of them.
        left_out: Methods in too few blocks.
        statistic: Friedman's chi².
        p_value: The p-value of Friedman's test.
        critical_difference: Nemenyi's critical difference of mean ranks.
        groups: Maximal sequences of methods, in the order of their ranks, without a significant difference.
    """

    mean_ranks: dict[str, float]
    num_blocks: int
    dropped_blocks: int
    left_out: tuple[str, ...]
    statistic: float
    p_value: float
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]


def rank_analysis(scores: Mapping[Key, Mapping[str, float]]) -> RankAnalysis | None:
    """Returns Friedman's test and Nemenyi's critical difference at 5 %.

    The higher score has the lower rank; ties have the average. Mean ranks that differ by less than the critical
    difference do not differ significantly. Where Friedman's test does not reject, no mean ranks do.

    Args:
        scores: Block -> score of each method.

    Returns:
        The analysis of the `comparable` methods; None for fewer than 3 methods in 5 blocks.

    Source: Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006. Unlike in the paper,
    Friedman's statistic is corrected for ties.
    """
    methods, blocks = comparable(scores)
    if len(methods) < MIN_METHODS or len(blocks) < MIN_BLOCKS:
        return None
    ranks = [average_ranks([-scores[block][method] for method in methods]) for block in blocks]
    means = {method: sum(own) / len(blocks) for method, own in zip(methods, zip(*ranks, strict=True), strict=True)}
    mean_ranks = dict(sorted(means.items(), key=lambda item: item[1]))
    statistic, p_value = friedman(ranks)
    least = critical_difference(len(methods), len(blocks)) if p_value < ALPHA else math.inf
    return RankAnalysis(
        mean_ranks=mean_ranks,
        num_blocks=len(blocks),
        dropped_blocks=len(scores) - len(blocks),
        left_out=tuple(sorted({method for block in scores.values() for method in block} - set(methods))),
        statistic=statistic,
        p_value=p_value,
        critical_difference=critical_difference(len(methods), len(blocks)),
        groups=_groups(mean_ranks, least),
    )


def average_ranks(values: Sequence[float]) -> list[float]:
    """Returns each value's rank from 1, ascending; equal values have the average of their ranks."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


def friedman(ranks_NK: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Returns Friedman's chi² and its p-value, corrected for ties; 0 and 1 where every block is one tie.

    Args:
        ranks_NK: The ranks of K methods in each of N blocks.

    Source: Conover, "Practical Nonparametric Statistics", 1999, section 5.8. SciPy's function gives the same, but the import
    of its module takes longer than a report's tables.
    """
    from scipy.special import chdtrc

    n, k = len(ranks_NK), len(ranks_NK[0])
    squares = sum(rank**2 for block in ranks_NK for rank in block)
    least = n * k * (k + 1) ** 2 / 4  # the sum of squares where all are ties
    if squares - least < ROUNDING:
        return 0.0, 1.0
    sums = [sum(own) for own in zip(*ranks_NK, strict=True)]
    statistic = (k - 1) * (sum(own**2 for own in sums) - n * least) / (squares - least)
    return statistic, float(chdtrc(k - 1, statistic))


def studentized_range(share: float, num_methods: int) -> float:
    """Returns the quantile q of the range of k = `num_methods` standard normal numbers.

    Their distribution function is k times the integral over z of phi(z) (Phi(z) - Phi(z - q))^(k - 1). The integrand is
    smooth and vanishes at both ends, so equal steps give all digits.
    """
    import numpy as np
    from scipy.special import ndtr

    z = np.linspace(-9.0, 9.0, 1801)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        below = num_methods * float(density @ (ndtr(z) - ndtr(z - middle)) ** (num_methods - 1))
        low, high = (middle, high) if below < share else (low, middle)
    return high


def comparable(scores: Mapping[Key, Mapping[str, float]]) -> tuple[list[str], list[Key]]:
    """Returns (methods, blocks): the methods in at least 5 blocks, and the blocks that contain all of these."""
    names = dict.fromkeys(method for block in scores.values() for method in block)
    methods = [name for name in names if sum(name in block for block in scores.values()) >= MIN_BLOCKS]
    return methods, [name for name, block in scores.items() if set(methods) <= set(block)]


def critical_difference(num_methods: int, num_blocks: int) -> float:
    """Returns q sqrt(k (k + 1) / (6 N)) for k methods in N blocks, at 5 %.

    q is the studentised range's quantile over sqrt(2).
    """
    quantile = studentized_range(1 - ALPHA, num_methods) / math.sqrt(2)
    return quantile * math.sqrt(num_methods * (num_methods + 1) / (6 * num_blocks))


def _groups(mean_ranks: Mapping[str, float], least: float) -> tuple[tuple[str, ...], ...]:
    """Returns the groups of a `RankAnalysis`.

    Args:
        mean_ranks: Mean rank of each method, ascending.
        least: The smallest significant difference.
    """
    names = list(mean_ranks)
    runs: list[Collection[str]] = []
    for first, name in enumerate(names):
        run = [other for other in names[first:] if other == name or mean_ranks[other] - mean_ranks[name] < least]
        if not any(set(run) <= set(longer) for longer in runs):
            runs.append(run)
    return tuple(tuple(run) for run in runs)
