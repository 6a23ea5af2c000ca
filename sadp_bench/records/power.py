"""Power of paired t-tests: the differences that a number of seeds can decide, and the seeds that a decision takes.

A difference is decided where the 95 % interval of the paired differences excludes 0. A method is lossless where the
interval lies above -margin. The functions are pure, and all amounts have the same unit.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from sadp_bench.records.statistics import ALPHA

POWER = 0.8  # chance to decide a difference that exists
ASSUMED_SPREAD = 0.4  # points, the standard deviation of paired differences; the committed records have 0.3 to 0.5
MAX_SEEDS = 1_000_000  # a plan with more seeds makes no sense
NODES = 200  # nodes of the integral, whose error is below 1e-5


def power(seeds: int, difference: float, spread: float, *, margin: bool = False) -> float:
    """Returns the chance that a number of paired seeds decides a true difference.

    It is exact for independent, normal differences. SciPy's noncentral t returns NaN for few seeds and large differences,
    so this function integrates over the distribution of the sample's spread.

    Args:
        seeds: Number of seeds, at least 2.
        difference: The true difference; with `margin`, the margin, for a method that loses nothing.
        spread: Standard deviation of the paired differences, above 0.
        margin: Whether only the lower end of the interval decides, as for "lossless".
    """
    from scipy.special import ndtr, stdtrit

    spread_P, weight_P = _spreads(seeds)
    reach_P = float(stdtrit(seeds - 1, 1 - ALPHA / 2)) * spread_P  # half of the interval, in true standard errors
    shift = difference / spread * math.sqrt(seeds)
    chance = float(weight_P @ ndtr(shift - reach_P))
    return chance if margin else chance + float(weight_P @ ndtr(-shift - reach_P))


@functools.cache
def _spreads(seeds: int) -> tuple[Any, Any]:
    """Returns quantiles of the ratio of a sample's spread to the true one, and weights of the integral over them."""
    import numpy
    from scipy.special import chdtri

    place_P, weight_P = numpy.polynomial.legendre.leggauss(NODES)
    return numpy.sqrt(chdtri(seeds - 1, (place_P + 1) / 2) / (seeds - 1)), weight_P / 2


def seeds_needed(difference: float, spread: float, *, margin: bool = False) -> int | None:
    """Returns the fewest paired seeds with at least 80 % power; None for more than a million. For arguments see `power`."""
    high = 2
    while power(high, difference, spread, margin=margin) < POWER:
        high *= 2
        if high > MAX_SEEDS:
            return None
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, difference, spread, margin=margin) >= POWER else (middle, high)
    return high


def decidable(seeds: int, spread: float) -> float | None:
    """Returns the least difference that a number of paired seeds decides with 80 % power; None for fewer than two."""
    if seeds < 2:
        return None
    from scipy.optimize import brentq

    return spread * float(brentq(lambda difference: power(seeds, difference, 1.0) - POWER, 0.0, 100.0))


def uncertainty(seeds: int) -> tuple[float, float]:
    """Returns the 95 % interval of the ratio of the true spread to a sample's spread."""
    from scipy.special import chdtri

    low, high = (math.sqrt((seeds - 1) / float(chdtri(seeds - 1, tail))) for tail in (ALPHA / 2, 1 - ALPHA / 2))
    return low, high
