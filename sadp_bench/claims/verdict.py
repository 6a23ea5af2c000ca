"""Verdicts: of a metric's interval against its pass band, and of a claim from the verdicts of all its metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from sadp_bench.records.statistics import Interval


class Verdict(Enum):
    """The result for a claim, or for one of its metrics."""

    HELD = "held"
    NOT_HELD = "not held"
    UNDECIDED = "undecided"
    UNTESTABLE = "not testable here"


@dataclass(frozen=True, slots=True)
class Band:
    """The values of a metric with which a claim holds. Both ends belong to the band.

    Attributes:
        at_least: Lowest value; None: no lower end.
        at_most: Highest value; None: no upper end.
    """

    at_least: float | None
    at_most: float | None

    def verdict(self, interval: Interval | None) -> Verdict:
        """Returns the verdict of the mean's 95 % interval; undecided where it crosses an end of the band, or is None."""
        if interval is None:
            return Verdict.UNDECIDED
        low, high = interval
        above = self.at_least is None or low >= self.at_least
        below = self.at_most is None or high <= self.at_most
        if above and below:
            return Verdict.HELD
        outside = self.at_least is not None and high < self.at_least or self.at_most is not None and low > self.at_most
        return Verdict.NOT_HELD if outside else Verdict.UNDECIDED

    def text(self) -> str:
        """Returns 'at least 25', 'at most 0.3', or '25 to 36'."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


def joined(found: Iterable[tuple[bool, Verdict]]) -> Verdict:
    """Returns the verdict of a claim. Metrics that are not testable here are left out.

    Args:
        found: For each metric, whether it is a premise, and its verdict. Where a premise is not shown to hold, the setting
            may not be the claim's, and the claim is undecided.
    """
    tested = [(premise, verdict) for premise, verdict in found if verdict is not Verdict.UNTESTABLE]
    verdicts = {verdict for _, verdict in tested}
    if not tested:
        return Verdict.UNTESTABLE
    if any(premise and verdict is not Verdict.HELD for premise, verdict in tested):
        return Verdict.UNDECIDED
    if Verdict.NOT_HELD in verdicts:
        return Verdict.NOT_HELD
    return Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.HELD
