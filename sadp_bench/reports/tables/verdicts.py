"""The table of verdicts, a line for each method and a column for each ratio: `report --summary`."""

from __future__ import annotations

from collections.abc import Sequence

from sadp_bench.core.text import NOTHING, percent, signed
from sadp_bench.records.statistics import Estimate
from sadp_bench.reports.rows import RatioRow, largest_first
from sadp_bench.reports.sentences import findings
from sadp_bench.reports.tables.table import Cell, Sheet, Table

EXPLAINED = (
    "Cells: the verdict against full data with the mean paired difference in points. Below it: the same against random "
    "sampling. Lossless: the 95 % interval lies above -{margin} points; worse: below it. Against random: better or worse if "
    "the interval excludes 0; level if it contains 0 and lies within ±{margin} points. Undecided: none of these; more seeds "
    "are needed."
)


def verdict_sheets(groups: Sequence[Sequence[RatioRow]]) -> list[Sheet]:
    """Returns a sheet for each group that has pruned runs, the group of the most runs first."""
    return [_sheet(rows) for rows in largest_first(groups) if any(row.prunes and row.n for row in rows)]


def _sheet(rows: Sequence[RatioRow]) -> Sheet:
    pruned = [row for row in rows if row.prunes and row.n]
    ratios = sorted({row.ratio for row in pruned})
    at = {(row.label, row.ratio): row for row in pruned}
    names = {row.label: row.display_label for row in pruned}
    lines = [(name, [_cell(at.get((label, ratio))) for ratio in ratios]) for label, name in names.items()]
    return Sheet(
        "summary", rows[0].group, rows[0].group, [Table(["method", *map(percent, ratios)], lines)],
        findings=findings(rows),
    )  # fmt: skip


def _cell(row: RatioRow | None) -> Cell:
    if row is None:
        return Cell()
    below = _shown(row.random_verdict, row.random_difference)
    return Cell(_shown(row.verdict, row.accuracy_difference) or NOTHING, below=below)


def _shown(verdict: str | None, difference: Estimate) -> str:
    """Returns 'worse -1.72', or the difference alone, or nothing."""
    points = signed(100 * difference.mean) if difference.n else ""
    return f"{verdict} {points}" if verdict else points
