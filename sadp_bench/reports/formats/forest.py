"""The forest plot of the page: each interval as a small drawing in a table's cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sadp_bench.records.statistics import Estimate

WIDTH = 120  # units of a drawing
ROOM = 4  # units at each end, for the dot


@dataclass(frozen=True, slots=True)
class Bar:
    """The places of a drawing's parts, from 0 to `WIDTH`.

    Attributes:
        mean: The place of the mean.
        ends: The places of the interval's ends, cut at the drawing's edge; None without an interval.
        zero: The place of no difference.
        margin: The place of a loss as large as the margin.
    """

    mean: float
    ends: tuple[float, float] | None
    zero: float
    margin: float


def bars(estimates: Sequence[Estimate], margin: float) -> list[Bar | None]:
    """Returns the drawings of a column of differences on one scale; None for a row without a difference.

    The scale contains every mean, 0, and the margin on both sides. Intervals may extend it by half of that span at each
    end, so that one long interval does not flatten all others.

    Args:
        estimates: The difference of each row.
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
