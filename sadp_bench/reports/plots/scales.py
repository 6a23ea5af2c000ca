"""The limits and ticks of axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sadp_bench.reports.plots.style import Interval

if TYPE_CHECKING:
    from matplotlib.axis import Axis

# Ticks of a logarithmic axis, in the order of their priority.
TICKS = (1, 2, 5, 10, 0.5, 0.2, 0.1, 20, 50, 100, 3, 1.5, 7, 0.7, 1.2, 0.8, 0.9, 1.1, 1.3, 1.7, 2.5, 4, 0.3, 1.05, 1.15,
         30, 200, 500, 1000)  # fmt: skip


def limits(values: Sequence[float], intervals: Iterable[Interval | None], least: float) -> Interval:
    """Returns the limits of an axis that contains all values, and their intervals unless these would compress the values.

    At each end an interval extends the axis by at most half of the values' span (or of `least`). A longer bar is cut.

    Args:
        values: The values on the axis.
        intervals: The intervals of the values.
        least: The least span of the axis.
    """
    low, high = min(values), max(values)
    span = max(high - low, least)
    ends = [end for ends in intervals if ends is not None for end in ends]
    bottom = max(min([low, *ends]), low - span / 2)
    top = min(max([high, *ends]), high + span / 2)
    room = max(0.08 * (top - bottom), (least - (top - bottom)) / 2)
    return bottom - room, top + room


def log_limits(values: Sequence[float], intervals: Iterable[Interval | None], least: float) -> Interval:
    """Returns the limits of a logarithmic axis, as `limits` does. `least` is a factor, and an interval's end may be 0."""
    ends = [(math.log(low) if low > 0 else -math.inf, math.log(high)) for low, high in filter(None, intervals)]
    low, high = limits([math.log(value) for value in values], ends, math.log(least))
    return math.exp(low), math.exp(high)


def spaced(values: Iterable[float], limits: Interval, most: int = 12) -> list[float]:
    """Returns the values within the limits that are far enough from earlier ones on a logarithmic axis."""
    room = math.log(limits[1] / limits[0]) / most
    kept: list[float] = []
    for value in values:
        if limits[0] <= value <= limits[1] and all(abs(math.log(value / other)) > room for other in kept):
            kept.append(value)
    return kept


def log_ticks(axis: Axis, limits: Interval, most: int = 12) -> None:
    """Sets at most `most` ticks with plain numbers on a logarithmic axis."""
    from matplotlib.ticker import NullLocator

    powers = [10.0**power for power in range(-12, 13)]
    wide = limits[1] > 30 * limits[0]
    ticks = spaced(
        powers if wide else [*TICKS, *(tick * power for power in powers for tick in (1, 2, 5))], limits, most
    )
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
