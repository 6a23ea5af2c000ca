"""How far the numbers of a few seeds can be trusted: intervals, paired differences, a verdict, ranks of methods.

Pure functions of numbers. SciPy is imported where it is needed, so that importing this costs nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sadp_bench.records.metrics import summary

LEVEL = 0.95  # of every interval
ALPHA = 0.05  # of the rank analysis
MIN_RESAMPLED = 8
NO_WIDTH = 1e-9  # of an interval of accuracies: differences of equal shares differ in their last bits
MIN_METHODS = 3
MIN_BLOCKS = 5

Key = TypeVar("Key", bound=Hashable)
Interval = tuple[float, float]


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Of the mean: mean ± t s / sqrt(n), where t is Student's quantile at n - 1 degrees of freedom.

    Source: Student, "The Probable Error of a Mean", Biometrika 1908. Takes the values for independent and normal; of
    shares it may reach below 0 or above 1. None for fewer than two values.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    mean, quantile = statistics.fmean(values), float(stdtrit(len(values) - 1, (1 + level) / 2))
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def bootstrap_interval(values: Sequence[float], level: float = LEVEL, seed: int = 0) -> Interval | None:
    """Of the mean, without the assumption of normality: bias-corrected and accelerated, of 9,999 resamples.

    Source: Efron, "Better Bootstrap Confidence Intervals", JASA 1987. None for fewer than 8 values: n values have only
    (2n - 1)! / (n! (n - 1)!) different resamples (126 for n = 5, 6,435 for n = 8), whose tails are too coarse for a
    95 % interval, which then is too narrow. Equal values have no spread to resample: the interval is that value.
    """
    if len(values) < MIN_RESAMPLED:
        return None
    if min(values) == max(values):
        return values[0], values[0]
    import numpy as np
    from scipy.stats import bootstrap

    generator = np.random.default_rng(seed)
    found = bootstrap((values,), np.mean, confidence_level=level, method="BCa", rng=generator).confidence_interval
    low, high = float(found.low), float(found.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of n numbers: mean, sample standard deviation (spread) and 95 % t-interval; None where n is 1."""

    mean: float
    spread: float | None
    low: float | None
    high: float | None
    n: int


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Of the values that are there; None where there is none."""
    there = [value for value in values if value is not None]
    found = summary(there)
    if found is None:
        return None
    low, high = t_interval(there) or (None, None)
    return Estimate(found.mean, found.spread, low, high, found.n)


def paired_difference(of: Mapping[Key, float], against: Mapping[Key, float]) -> Estimate | None:
    """Of one method's numbers by seed minus another's, over the seeds that both have; None where there is none."""
    return estimate(of[key] - against[key] for key in of if key in against)


def verdict(low: float | None, high: float | None, margin: float) -> str | None:
    """What an interval of (accuracy - accuracy of full) says: "lossless", "worse" or "undecided".

    Non-inferiority (Piaggio et al., JAMA 2012): lossless where no more than the margin is lost anywhere in the interval,
    worse where more is lost everywhere. Of the two-sided 95 % interval one end counts, so each is a one-sided test
    at 2.5 %. None where there is no interval: one seed decides nothing; nor do a few that happen to agree to the last
    example, whose interval has no width but what rounding leaves.
    """
    assert margin > 0
    if low is None or high is None or high - low < NO_WIDTH:
        return None
    return "lossless" if low > -margin else "worse" if high < -margin else "undecided"


@dataclass(frozen=True, slots=True)
class RankAnalysis:
    """Methods ranked within blocks. mean_ranks: best (lowest) first.

    num_blocks: that hold every one of these methods. dropped_blocks: that lack one. left_out: methods in too few blocks.
    groups: maximal runs of methods, in the order of their ranks, that can't be told apart.
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
    """Friedman's test and Nemenyi's critical difference at 5 %; the higher score has the lower rank, ties the average.

    Source: Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006. Differs in the tie
    correction of Friedman's statistic. Mean ranks that differ by less than the critical difference can't be told
    apart; none can where Friedman's test does not reject. None for fewer than 3 methods in 5 blocks, see `comparable`.
    """
    methods, blocks = comparable(scores)
    if len(methods) < MIN_METHODS or len(blocks) < MIN_BLOCKS:
        return None
    from scipy.stats import friedmanchisquare, rankdata

    by_method = [[scores[block][method] for block in blocks] for method in methods]
    ranks = [rankdata([-score for score in block]) for block in zip(*by_method, strict=True)]
    means = {
        method: float(sum(own) / len(blocks)) for method, own in zip(methods, zip(*ranks, strict=True), strict=True)
    }
    mean_ranks = dict(sorted(means.items(), key=lambda item: item[1]))
    statistic, p_value = 0.0, 1.0
    if any(len(set(block)) > 1 for block in zip(*by_method, strict=True)):
        statistic, p_value = map(float, friedmanchisquare(*by_method))
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


def comparable(scores: Mapping[Key, Mapping[str, float]]) -> tuple[list[str], list[Key]]:
    """(methods, blocks): the methods in at least 5 blocks, as no other can be part of an analysis, and the blocks that
    hold them all."""
    names = dict.fromkeys(method for block in scores.values() for method in block)
    methods = [name for name in names if sum(name in block for block in scores.values()) >= MIN_BLOCKS]
    return methods, [name for name, block in scores.items() if set(methods) <= set(block)]


def critical_difference(num_methods: int, num_blocks: int) -> float:
    """Of mean ranks, at 5 %: q sqrt(k (k + 1) / (6 N)), where q is the studentised range's quantile over sqrt(2)."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - ALPHA, num_methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(num_methods * (num_methods + 1) / (6 * num_blocks))


def _groups(mean_ranks: Mapping[str, float], least: float) -> tuple[tuple[str, ...], ...]:
    """mean_ranks: ascending. least: the smallest difference that tells two methods apart."""
    names = list(mean_ranks)
    runs: list[Collection[str]] = []
    for first, name in enumerate(names):
        run = [other for other in names[first:] if other == name or mean_ranks[other] - mean_ranks[name] < least]
        if not any(set(run) <= set(longer) for longer in runs):
            runs.append(run)
    return tuple(tuple(run) for run in runs)
