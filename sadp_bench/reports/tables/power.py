"""The table of power: the number of seeds that decide a difference, by the paired spreads of records, and their cost."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sadp_bench.core.text import NOTHING, number, percent
from sadp_bench.records.metrics import charged_cpu_seconds, charged_seconds
from sadp_bench.records.power import MAX_SEEDS, POWER, seeds_needed, uncertainty
from sadp_bench.records.record import Record
from sadp_bench.records.statistics import ALPHA, NO_WIDTH, Estimate
from sadp_bench.reports.rows import RatioRow
from sadp_bench.reports.tables.table import Cell, Sheet, Table

HEADS = ["method", "to full\nspread", "to full\nseeds", "to random\nspread", "to random\nseeds", "lossless\nseeds"]


@dataclass(frozen=True, slots=True)
class Need:
    """The number of seeds that one comparison needs.

    Attributes:
        n: The number of paired seeds in the records.
        spread: The standard deviation of their paired differences, a share; None where it cannot be computed.
        seeds: The smallest number of seeds that decides; None without a spread, and above `MAX_SEEDS`.
        hours: The charged hours of both runs of all pairs; None where `seeds` is None.
    """

    n: int = 0
    spread: float | None = None
    seeds: int | None = None
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class PowerRow:
    """The needs of one method and ratio, for a decided difference to full and to random and for the verdict "lossless"."""

    row: RatioRow
    to_full: Need
    to_random: Need
    lossless: Need

    @property
    def has_spread(self) -> bool:
        """Whether the records determine a spread to full or to random."""
        return self.to_full.spread is not None or self.to_random.spread is not None

    def to_json(self) -> dict[str, Any]:
        """Returns the row as one flat table; spreads in points."""
        found: dict[str, Any] = {"group": self.row.group, "method": self.row.label, "ratio": self.row.ratio}
        for name in ("to_full", "to_random", "lossless"):
            need = getattr(self, name)
            points = None if need.spread is None else 100 * need.spread
            found |= {f"{name}.n": need.n, f"{name}.spread": points}
            found |= {f"{name}.seeds": need.seeds, f"{name}.hours": need.hours}
        return found


def power_rows(rows: Iterable[RatioRow], difference: float, margin: float) -> list[PowerRow]:
    """Returns the needs of each method and ratio except `full`.

    Args:
        rows: The rows by ratio.
        difference: The true difference of accuracy that should be decided, a share.
        margin: The share of accuracy that a lossless method may lose.
    """
    found = []
    for _, own in itertools.groupby(rows, key=lambda row: row.group):
        group = [row for row in own if row.n]
        full = [run for row in group if row.is_full for run in row.runs]
        for row in group:
            if not row.is_full:
                at_ratio = [other for other in group if other.method == "random" and other.ratio == row.ratio]
                random = [run for other in at_ratio for run in other.runs]
                of = row.accuracy_difference
                needs = (
                    _need(of, difference, row.runs, full),
                    _need(row.random_difference, difference, row.runs, random),
                )
                found.append(PowerRow(row, *needs, _need(of, margin, row.runs, full, margin=True)))
    return found


def _need(
    of: Estimate, difference: float, runs: Sequence[Record], rivals: Sequence[Record], *, margin: bool = False
) -> Need:
    if of.spread is None or of.spread < NO_WIDTH:
        return Need(of.n)
    seeds = seeds_needed(difference, of.spread, margin=margin)
    pair = sum(statistics.fmean(map(_seconds, each)) for each in (runs, rivals))
    return Need(of.n, of.spread, seeds, None if seeds is None else seeds * pair / 3600)


def _seconds(record: Record) -> float:
    """Returns the charged CPU seconds of a run, or its charged seconds on a GPU and in older records."""
    return charged_cpu_seconds(record) or charged_seconds(record)


def power_sheets(rows: Iterable[PowerRow]) -> list[Sheet]:
    """Returns a sheet for each group whose records determine a spread."""
    known = [row for row in rows if row.has_spread]
    sheets = []
    for title, own in itertools.groupby(known, key=lambda row: row.row.group):
        lines = [(f"{row.row.label}\n{percent(row.row.ratio)}", _cells(row)) for row in own]
        sheets.append(Sheet("power", title, title, [Table(HEADS, lines)]))
    return sheets


def _cells(row: PowerRow) -> list[Cell]:
    to_full, to_random = ([_spread(need), _seeds(need)] for need in (row.to_full, row.to_random))
    return [*to_full, *([Cell(), Cell()] if row.row.method == "random" else to_random), _seeds(row.lossless)]


def _spread(need: Need) -> Cell:
    return Cell(
        NOTHING if need.spread is None else number(100 * need.spread), below=f"n = {need.n}" if need.spread else ""
    )


def _seeds(need: Need) -> Cell:
    if need.seeds is None or need.hours is None:
        return Cell(NOTHING if need.spread is None else f"> {MAX_SEEDS:,}")
    return Cell(f"{need.seeds:,}", below=number(need.hours, 1 if need.hours >= 10 else 2, " h"))


def power_notes(rows: Iterable[PowerRow], difference: float, margin: float) -> list[str]:
    """Returns the definitions below the sheets, and the rows without a spread. The arguments are those of `power_rows`."""
    rows = list(rows)
    without = ", ".join(row.row.name for row in rows if not row.has_spread)
    known = [need.n for row in rows for need in (row.to_full, row.to_random) if need.spread is not None]
    lacking = (
        [f"No spread, because fewer than two seeds are paired or all differences are equal: {without}."]
        if without
        else []
    )
    if not known:
        return lacking
    low, high = uncertainty(min(known))
    return [
        f"Seeds: the fewest paired seeds that decide a true difference of {100 * difference:g} points with {percent(POWER)} "
        f"power (paired t-test, two-sided, {percent(ALPHA)}). Below them: charged CPU hours of both runs of all pairs, or "
        "hours of the clock where records have no CPU seconds.",
        f"Lossless: the fewest paired seeds that show with the same power a loss of at most {100 * margin:g} points, for a "
        "method without any loss.",
        "Spread: the standard deviation of the paired differences in points. It is uncertain itself: where n is "
        f"{min(known)}, the true spread is {low:.1f} to {high:.1f} times as large (95 %).",
        *lacking,
    ]
