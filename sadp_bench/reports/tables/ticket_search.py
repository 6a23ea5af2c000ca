"""The table of the searches for connections and their cost."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sadp_bench.core.text import NOTHING
from sadp_bench.records.comparison import timing_mismatch
from sadp_bench.records.metrics import charged_seconds, search_seconds, searched, ticket_number
from sadp_bench.records.record import Record
from sadp_bench.records.statistics import Estimate, Quantity
from sadp_bench.reports.rows import Row, over_seeds
from sadp_bench.reports.tables.axes import AxesRow, axes_label
from sadp_bench.reports.tables.notes import disturbed, measured_on, warnings
from sadp_bench.reports.tables.table import Cell, Column, Sheet, interval_notes, table

SEARCH_EXPLAINED = (
    "Search: the seconds of the search alone. They are charged. Early time / all steps: search seconds with early time over "
    "those without, by seed.",
    "Settled: whether the masks agreed before the last epoch of the search, for searches that test it.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchRow(Row):
    """The runs of a row of the three axes whose connections come from a search.

    Attributes:
        data: The choice on the data axis.
        time: The choice on the time axis.
        weights: The choice on the weight axis.
        label: The method, with those of its options that differ within the group.
        timesteps: T of the runs.
        n_converged: Number of searches whose masks settled.
        n_told: Number of searches that record whether their masks settled.
        search_share: The search's share of all charged seconds.
        early_time_ratio: Search seconds with early time divided by those without, for runs of the same seed and
            environment.
    """

    COUNTED: ClassVar[dict[str, str]] = {"n_early_time": "early_time_ratio"}

    data: str
    time: str
    weights: str
    label: str
    timesteps: int
    n_converged: int
    n_told: int
    search_timesteps: Estimate
    search_epochs: Estimate
    rounds: Estimate
    search_seconds: Estimate
    search_share: Estimate
    early_time_ratio: Estimate


def search_rows(rows: Iterable[AxesRow]) -> list[SearchRow]:
    """Returns a row for each row of the three axes whose connections come from a search."""
    rows = list(rows)
    by_key = {run.spec.key: run for row in rows for run in row.runs}
    return [_row(row, runs, by_key) for row in rows if (runs := tuple(filter(searched, row.runs)))]


def _row(row: AxesRow, runs: tuple[Record, ...], by_key: Mapping[str, Record]) -> SearchRow:
    settled = [run.ticket["converged"] for run in runs if isinstance(run.ticket.get("converged"), bool)]
    numbers: dict[str, Any] = {
        name: over_seeds((ticket_number(run, name) for run in runs), Quantity.AMOUNT)
        for name in ("search_timesteps", "search_epochs", "rounds")
    }
    return SearchRow(
        group=row.group,
        settings=row.settings,
        name=row.name,
        runs=runs,
        data=row.data,
        time=row.time,
        weights=row.weights,
        label=row.label,
        timesteps=runs[0].spec.timesteps,
        n_converged=sum(settled),
        n_told=len(settled),
        search_seconds=over_seeds(map(search_seconds, runs), Quantity.AMOUNT),
        search_share=over_seeds(map(_share, runs), Quantity.SHARE),
        early_time_ratio=over_seeds((early_time_ratio(run, by_key) for run in runs), Quantity.RATIO),
        **numbers,
    )


def early_time_ratio(run: Record, by_key: Mapping[str, Record]) -> float | None:
    """Returns a run's search seconds with early time divided by those without.

    None for a run without early time, and where the other run is missing or from another environment.
    """
    if not run.spec.early_time:
        return None
    other = by_key.get(dataclasses.replace(run.spec, early_time=False).key)
    if other is None or timing_mismatch(run, other):
        return None
    with_it, without = search_seconds(run), search_seconds(other)
    return with_it / without if with_it is not None and without else None


def _share(run: Record) -> float | None:
    seconds = search_seconds(run)
    return None if seconds is None else seconds / charged_seconds(run)


def _whole(found: Estimate, more: str = "") -> Cell:
    """Returns the cell of a mean of whole numbers, with at most one decimal."""
    return Cell(f"{round(found.mean, 1):g}{more}", sort=float(found.mean)) if found.n else Cell(NOTHING)


def _settled(row: SearchRow) -> Cell:
    return Cell(f"{row.n_converged} of {row.n_told}", sort=float(row.n_converged)) if row.n_told else Cell(NOTHING)


SEARCH_COLUMNS = (
    Column("run"),
    Column("T of the", unit="search", show=lambda row: _whole(row.search_timesteps, f" of {row.timesteps}")),
    Column("rounds", show=lambda row: _whole(row.rounds)),
    Column("epochs", show=lambda row: _whole(row.search_epochs)),
    Column("search", "search_seconds", "s", 1, runs="below", timed=True),
    Column("of charged", "search_share", "%", 0, 100, timed=True),
    Column("settled", show=_settled),
    Column("early time", "early_time_ratio", "/ all steps", interval="ends", timed=True, rare=True),
)


def search_sheets(rows: Iterable[SearchRow]) -> list[Sheet]:
    """Returns a sheet for each group."""
    return [_sheet(title, list(own)) for title, own in itertools.groupby(rows, key=lambda row: row.group)]


def _sheet(title: str, rows: list[SearchRow]) -> Sheet:
    notes = [
        measured_on(rows),
        *SEARCH_EXPLAINED,
        *warnings(rows),
        *disturbed(rows),
        *interval_notes(rows, "search_seconds"),
    ]
    return Sheet("search", title, f"Search for connections: {title}", [table(SEARCH_COLUMNS, rows, axes_label)], notes)
