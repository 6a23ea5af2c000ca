"""What a report contains: the rows and sheets of all tables, from records."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sadp_bench.core.text import count
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.trials import Searches
from sadp_bench.reports.corrections import corrected
from sadp_bench.reports.grouping import NO_SEARCHES, rows
from sadp_bench.reports.rows import MARGIN, RatioRow, Row
from sadp_bench.reports.tables.axes import AxesRow, axes_rows, axes_sheets
from sadp_bench.reports.tables.by_ratio import class_sheets, ratio_sheets
from sadp_bench.reports.tables.memory import MemoryRow, memory_rows, memory_sheets
from sadp_bench.reports.tables.method_ranks import rank_sheet, why_no_ranks
from sadp_bench.reports.tables.outcomes import outcome_sheets
from sadp_bench.reports.tables.table import Sheet
from sadp_bench.reports.tables.ticket_search import SearchRow, search_rows, search_sheets
from sadp_bench.reports.tables.verdicts import verdict_sheets
from sadp_bench.reports.tables.versus import versus_sheets
from sadp_bench.reports.versus import versus


@dataclass(frozen=True)
class Contents:
    """The content of a report, which every format shows.

    Attributes:
        records: The finished runs.
        failures: The runs that ended without a record.
        problems: The files that were left out, a line each.
        remarks: The remarks about the folders of the records.
        margin: The share of accuracy that a lossless method may lose.
        searches: The searches that settings of the runs come from.
        correction: The correction of the verdicts, one of `corrections.CORRECTIONS`.
        compare: A method whose comparisons replace the usual sheets; "" for the usual sheets.
        summary: Whether the sheets show verdicts and findings alone.
        again: The command that makes this report.
    """

    records: Sequence[Record]
    failures: Sequence[Failure] = ()
    problems: Sequence[str] = ()
    remarks: Sequence[str] = ()
    margin: float = MARGIN
    searches: Searches = NO_SEARCHES
    correction: str = "none"
    compare: str = ""
    summary: bool = False
    again: str = ""

    @property
    def specs(self) -> list[Spec]:
        """Specs of the finished and the failed runs."""
        return [*(record.spec for record in self.records), *(failure.spec for failure in self.failures)]

    @cached_property
    def rows(self) -> list[RatioRow]:
        """The rows by ratio."""
        found = rows(self.records, self.failures, margin=self.margin, searches=self.searches)
        return corrected(found, self.correction)

    @cached_property
    def axes(self) -> list[AxesRow]:
        """The rows of the three axes; none where every run is on bptt and dense."""
        return axes_rows(self.records)

    @cached_property
    def memory(self) -> list[MemoryRow]:
        """The rows of training memory against time steps."""
        return memory_rows(self.records)

    @cached_property
    def search(self) -> list[SearchRow]:
        """The rows of the searches for connections."""
        return search_rows(self.axes)

    @cached_property
    def groups(self) -> list[list[RatioRow]]:
        """The rows of each group with tables by ratio. A group that the tables of the axes show completely has none."""
        in_axes = {run.spec.key for row in self.axes for run in row.runs}
        groups = [list(group) for _, group in itertools.groupby(self.rows, key=lambda row: row.group)]
        return [group for group in groups if not all(_is_in(row, in_axes) for row in group)]

    @cached_property
    def sheets(self) -> list[Sheet]:
        """All sheets, in reading order."""
        if self.compare:
            return versus_sheets(versus(self.rows, self.compare, self.margin), self.margin)
        if self.summary:
            return verdict_sheets(self.groups)
        ranks = rank_sheet(self.rows)
        return [
            *ratio_sheets(row for group in self.groups for row in group),
            *outcome_sheets(row for group in self.groups for row in group),
            *class_sheets(row for group in self.groups for row in group),
            *axes_sheets(self.axes),
            *memory_sheets(self.memory),
            *search_sheets(self.search),
            *([ranks] if ranks else []),
        ]

    @cached_property
    def why_no_ranks(self) -> str | None:
        """Why methods have no ranks; None if they have ranks, or with fewer than two methods."""
        return (
            None
            if self.compare or self.summary or any(sheet.kind == "ranks" for sheet in self.sheets)
            else why_no_ranks(self.rows)
        )

    @cached_property
    def closing(self) -> list[str]:
        """The lines below all tables."""
        left_out = f"Left out: {count(len(self.problems), 'file')}, unreadable or a run's second record."
        lines = [*self.remarks, self.why_no_ranks, left_out if self.problems else None]
        return [line for line in lines if line]

    def columns(self) -> dict[str, list[dict[str, Any]]]:
        """Returns the rows of each table as flat tables, unrounded."""
        tables: dict[str, Iterable[Row]] = {
            "rows": self.rows, "axes": self.axes, "memory": self.memory, "search": self.search,
        }  # fmt: skip
        return {name: [row.columns() for row in own] for name, own in tables.items()}


def _is_in(row: RatioRow, keys: set[str]) -> bool:
    """Returns whether all runs of a row are `full` and have one of these keys."""
    return row.is_full and not row.failed and all(run.spec.reference().key in keys for run in row.runs)
