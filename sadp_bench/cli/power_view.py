"""The difference that the seeds of a sweep can decide, in a sentence of its plan."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sadp_bench.core.text import count, number, percent
from sadp_bench.records.power import ASSUMED_SPREAD, POWER, decidable
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.statistics import NO_WIDTH
from sadp_bench.reports.grouping import rows


@dataclass(frozen=True, slots=True)
class Decision:
    """The smallest difference that a sweep decides.

    Attributes:
        seeds: The number of seeds of each method and ratio; the smallest one where they differ.
        spread: The standard deviation of paired differences, in points.
        assumed: Whether the spread is an assumption, because no records determine it.
        points: The difference in points; None for one seed.
    """

    seeds: int
    spread: float
    assumed: bool
    points: float | None

    def sentence(self) -> str:
        """Returns '3 paired seeds decide differences of about 1.3 points (80 % power, paired spread 0.4 assumed)'."""
        if self.points is None:
            return f"{count(self.seeds, 'seed')} decides no difference: a paired spread needs at least two"
        origin = "assumed" if self.assumed else "of the records here"
        points = number(self.points, 1 if self.points >= 1 else 2)
        return (
            f"{count(self.seeds, 'paired seed')} decide differences of about {points} points "
            f"({percent(POWER)} power, paired spread {self.spread:.2g} {origin})"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a table, for `--dry-run --json`."""
        spread = {"paired_spread_points": self.spread, "spread_assumed": self.assumed}
        return {"paired_seeds": self.seeds, "decidable_points": self.points, **spread}


def decision(specs: Iterable[Spec], records: Iterable[Record]) -> Decision | None:
    """Returns what a sweep's seeds decide; None for a sweep that has only `full`.

    Args:
        specs: The sweep's runs.
        records: The records of finished runs. The spread is the median of their paired spreads to full and to random.
    """
    seeds = Counter(spec.any_seed().key for spec in specs if spec.method != "full")
    if not seeds:
        return None
    differences = (of for row in rows(records) for of in (row.accuracy_difference, row.random_difference))
    spreads = [of.spread for of in differences if of.spread is not None and of.spread >= NO_WIDTH]
    spread = 100 * statistics.median(spreads) if spreads else ASSUMED_SPREAD
    fewest = min(seeds.values())
    return Decision(fewest, spread, not spreads, decidable(fewest, spread))
