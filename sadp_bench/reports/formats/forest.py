"""Intervals as small drawings in the cells of the page: a forest plot, a row each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sadp_bench.records.statistics import Estimate

WIDTH = 120  # units of a drawing
ROOM = 4  # units at each end, for the dot


@dataclass(frozen=True, slots=True)
class Bar:
    """A drawing of an interval. All are places from 0 to `WIDTH`.

    Attributes:
        mean: Of the estimate.
        ends: Of the interval, cut at the drawing's ends; None without an interval.
        zero: Of no difference.
        margin: Of the smallest difference that matters, on the side of a loss.
    """

    mean: float
    ends: tuple[float, float] | None
    zero: float
    margin: float


def bars(estimates: Sequence[Estimate], margin: float) -> list[Bar | None]:
    """Returns the drawings of a column of differences on one scale; None where a row has none.

    The scale holds every mean, no difference and the margin. Of an interval it holds what reaches at most half of that
    span further, so that one long interval does not flatten all others.

    Args:
        estimates: A row each.
        margin: The smallest difference that matters, above 0.
    """
    means = [found.mean for found in estimates if found.n]
    low, high = min([-margin, *means]), max([margin, *means])
    reach = (high - low) / 2
    ends = [end for found in estimates for end in _ends(found)]
    low, high = max(min([low, *ends]), low - reach), min(max([high, *ends]), high + reach)

    def place(value: float) -> float:
        inside = min(max(value, low), high)
        return round(ROOM + (WIDTH - 2 * ROOM) * (inside - low) / (high - low), 1)

    return [
        Bar(place(found.mean), _both(map(place, _ends(found))), place(0.0), place(-margin)) if found.n else None
        for found in estimates
    ]


def _ends(found: Estimate) -> tuple[float, ...]:
    return () if found.low is None or found.high is None else (found.low, found.high)


def _both(places: Iterable[float]) -> tuple[float, float] | None:
    found = tuple(places)
    return (found[0], found[1]) if found else None
