"""The table of one method against every other: `report --compare`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from sadp_bench.core.text import NOTHING, percent
from sadp_bench.reports.tables.table import Cell, Column, Sheet, table
from sadp_bench.reports.versus import LOSS_MARGIN, Versus


def _verdict(value: str | None) -> Cell:
    return Cell(value or NOTHING, sort=value)


COLUMNS = (
    Column("against"),
    Column("accuracy", "difference", "points [95 %]", 2, 100, interval="ends", runs="beside", sign=True),
    Column("verdict", show=lambda row: _verdict(row.verdict)),
    Column("fitted loss", "loss_factor", "× [95 %]", interval="ends", runs="beside", optional=True),
)
LOSS_VERDICT = Column(
    "verdict", "loss_factor", "on the loss", optional=True, show=lambda row: _verdict(row.loss_verdict)
)


def versus_sheets(comparisons: Sequence[Versus], margin: float) -> list[Sheet]:
    """Returns a sheet for each group of the comparisons.

    Args:
        comparisons: The comparisons, as `versus` returns them.
        margin: The share of accuracy within which two methods are level.
    """
    return [_sheet(list(own), margin) for _, own in itertools.groupby(comparisons, key=lambda each: each.group)]


def _sheet(own: list[Versus], margin: float) -> Sheet:
    tables = []
    for ratio, each in itertools.groupby(own, key=lambda row: row.ratio):
        tables.append(table((*COLUMNS, LOSS_VERDICT), each, lambda row: row.rival, f"At {percent(ratio)}"))
    return Sheet("versus", own[0].group, f"{own[0].label} against: {own[0].group}", tables, notes(own, margin))


def notes(own: Sequence[Versus], margin: float) -> list[str]:
    """Returns the definitions of the columns and the verdicts."""
    label, points = own[0].label, f"{100 * margin:g} points"
    found = [
        f"Accuracy: {label} minus the other method, mean and 95 % t-interval over paired seeds (their number in brackets).",
        f"Better, worse: the interval excludes 0. Level: it contains 0 and lies within ±{points}. Undecided: none of these.",
        f"Against full: lossless if the whole interval lies above a loss of {points}; worse if all of it lies below.",
    ]
    if any(each.loss_factor.n for each in own):
        most = f"{1 + LOSS_MARGIN:g}"
        found.append(
            "Fitted loss: that of the trained network on training images in evaluation mode, divided by the other method's "
            f"(geometric mean). Better: below 1. Level: the interval contains 1 and lies between 1 / {most} and {most}."
        )
    return found
