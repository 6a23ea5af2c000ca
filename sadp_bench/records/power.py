"""Power of paired t-tests: what a number of seeds can decide, and the number that a decision takes.

A difference is decided where the 95 % interval of the paired differences excludes 0, and a method is lossless where it lies
above -margin. Pure functions of numbers; all amounts have one unit.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from sadp_bench.records.statistics import ALPHA

POWER = 0.8  # chance to decide a difference that there is
ASSUMED_SPREAD = (
    0.4  # points, the standard deviation of paired differences; those of the committed records are 0.3 to 0.5
)
MAX_SEEDS = 1_000_000  # more are no plan
NODES = 200  # of the integral, whose error is below 1e-5


def power(seeds: int, difference: float, spread: float, *, margin: bool = False) -> float:
    """Returns the chance that so many paired seeds decide a true difference.

    It is exact for independent, normal differences. SciPy's noncentral t returns NaN for few seeds and large differences,
    so this function integrates over the distribution of the sample's spread.

    Args:
        seeds: At least 2.
        difference: The true difference; with `margin` the margin of a method without any loss.
        spread: Standard deviation of the paired differences, above 0.
        margin: Whether the lower end of the interval alone decides, as for "lossless".
    """
    from scipy.special import ndtr, stdtrit

    spread_P, weight_P = _spreads(seeds)
    reach_P = float(stdtrit(seeds - 1, 1 - ALPHA / 2)) * spread_P  # of the interval, in standard errors
    shift = difference / spread * math.sqrt(seeds)
    chance = float(weight_P @ ndtr(shift - reach_P))
    return chance if margin else chance + float(weight_P @ ndtr(-shift - reach_P))


@functools.cache
def _spreads(seeds: int) -> tuple[Any, Any]:
    """Returns quantiles of a sample's spread over the true one, and the weights of the integral over them."""
    import numpy
    from scipy.special import chdtri

    place_P, weight_P = numpy.polynomial.legendre.leggauss(NODES)
    return numpy.sqrt(chdtri(seeds - 1, (place_P + 1) / 2) / (seeds - 1)), weight_P / 2


def seeds_needed(difference: float, spread: float, *, margin: bool = False) -> int | None:
    """Returns the fewest paired seeds of at least 80 % power; None for more than a million. Arguments as of `power`."""
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
    """Returns the least difference that so many paired seeds decide with 80 % power; None for fewer than two."""
    if seeds < 2:
        return None
    from scipy.optimize import brentq

    return spread * float(brentq(lambda difference: power(seeds, difference, 1.0) - POWER, 0.0, 100.0))


def uncertainty(seeds: int) -> tuple[float, float]:
    """Returns the 95 % interval of the true spread over the spread of a sample."""
    from scipy.special import chdtri

    low, high = (math.sqrt((seeds - 1) / float(chdtri(seeds - 1, tail))) for tail in (ALPHA / 2, 1 - ALPHA / 2))
    return low, high
