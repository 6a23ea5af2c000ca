"""What finding the connections took: the rows of all searches, and the table of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

from sadp_bench.records.metrics import charged_seconds, differing, search_seconds, searched, ticket_number
from sadp_bench.records.record import Record
from sadp_bench.records.statistics import estimate
from sadp_bench.report.axes import Point, told_of
from sadp_bench.report.axes_sheets import label, number, runs_told, spread_told
from sadp_bench.report.notes import measured_on, warnings
from sadp_bench.report.sheets import NOTHING, Cell, Grid, Sheet
from sadp_bench.report.tables import Row, columns

TOLD = (
    "Seconds: of the search alone, which are charged. Early time / all steps: search seconds with early time over those "
    "without, by seed.",
    "Settled: whether the masks agreed before the search's epochs ran out, where it looks for that.",
)


def search_rows(own: Iterable[Point]) -> list[Row]:
    """One flat, unrounded row for each point whose connections were searched for: mean, standard deviation, 95 % t-interval.

    search_share: of all charged seconds. early_time_ratio: search seconds with early time over those of the run of the same
    seed and environment without. n_converged of n_told: that say whether the search settled.
    """
    own = list(own)
    by_key = {pair.spec.key: pair.record for point in own for pair in point.runs}
    return [row for point in own if (row := _row(point, by_key))]


def _row(point: Point, by_key: Mapping[str, Record]) -> Row | None:
    runs = [pair.record for pair in point.runs if searched(pair.record)]
    if not runs:
        return None
    told = [run.ticket["converged"] for run in runs if isinstance(run.ticket.get("converged"), bool)]
    ratios = [early_time_ratio(run, by_key) for run in runs]
    row = point.row | {
        "timesteps": point.spec.timesteps,
        "n": len(runs),
        "n_early_time": sum(ratio is not None for ratio in ratios),
        "n_converged": sum(told),
        "n_told": len(told),
        "seeds": [run.spec.seed for run in runs],
    }
    for name in ("search_timesteps", "search_epochs", "rounds"):
        row |= columns(name, estimate(ticket_number(run, name) for run in runs))
    row |= columns("search_seconds", estimate(map(search_seconds, runs)))
    row |= columns("search_share", estimate(map(_share, runs))) | columns("early_time_ratio", estimate(ratios))
    return row | told_of(runs)


def early_time_ratio(run: Record, by_key: Mapping[str, Record]) -> float | None:
    """None without early time, and where the run without it is not there or was made elsewhere."""
    if not run.spec.early_time:
        return None
    other = by_key.get(dataclasses.replace(run.spec, early_time=False).key)
    if other is None or differing(run, other):
        return None
    with_it, without = search_seconds(run), search_seconds(other)
    return with_it / without if with_it is not None and without else None


def _share(run: Record) -> float | None:
    seconds = search_seconds(run)
    return None if seconds is None else seconds / charged_seconds(run)


def search_sheets(table: Sequence[Row]) -> list[Sheet]:
    """One a group."""
    groups = [(title, list(rows)) for title, rows in itertools.groupby(table, key=lambda row: row["group"])]
    return [_sheet(title, rows) for title, rows in groups]


def search_notes(rows: list[Row]) -> list[str]:
    """What a reader must be told of one group."""
    return [measured_on(rows), *TOLD, *warnings(rows)]


def steps_told(row: Row) -> str:
    """'2 of 4'; a mean over seeds may be no whole number."""
    mean = row["search_timesteps_mean"]
    return NOTHING if mean is None else f"{round(mean, 1):g} of {row['timesteps']}"


def settled_told(row: Row) -> str:
    return f"{row['n_converged']} of {row['n_told']}" if row["n_told"] else NOTHING


def whole(row: Row, name: str) -> str:
    mean = row[f"{name}_mean"]
    return NOTHING if mean is None else f"{round(mean, 1):g}"


def _sheet(title: str, rows: list[Row]) -> Sheet:
    heads = [
        "run",
        "T of the\nsearch",
        "rounds",
        "epochs",
        "search\ns",
        "of charged\n%",
        "settled",
        "early time\n/ all steps",
    ]
    lines = [
        (
            label(row),
            [
                Cell(steps_told(row)),
                Cell(whole(row, "rounds")),
                Cell(whole(row, "search_epochs")),
                Cell(number(row, "search_seconds", 1), below=runs_told(row)),
                Cell(number(row, "search_share", 0, 100)),
                Cell(settled_told(row)),
                Cell(number(row, "early_time_ratio")),
            ],
        )
        for row in rows
    ]
    told = [*search_notes(rows), *spread_told(rows, "search_seconds")]
    return Sheet(f"Search for connections: {title}", [("", Grid(heads, lines))], told)
