"""The table of outcomes: training loss against random sampling, the share of the possible, the gradient mass."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

from sadp_bench.core.text import percent
from sadp_bench.reports.rows import RatioRow
from sadp_bench.reports.tables.by_ratio import but
from sadp_bench.reports.tables.table import ONE_SEED, Column, Sheet, table

TITLE = "Training loss"
FITTED = (
    "Fitted loss and accuracy (acc.): those of the trained network in evaluation mode, on all training images or a fixed "
    "10,000. Loss × random's: the fitted loss divided by random's at the same ratio. It is the geometric mean over paired "
    "seeds (in brackets), with the 95 % t-interval of the logarithms. A factor below 1 is a better fit."
)
POSSIBLE = (
    "Possible: the share of the possible, (random - method) / (random - ceiling). It is computed from the means over paired "
    "seeds, with Fieller's 95 % interval. 0 % is random sampling, 100 % the ceiling. It is shown only where the interval of "
    "random - ceiling excludes 0."
)
MASS = (
    "Mass: the gradient mass, visits x mean weight x mean learning rate, summed over the epochs and divided by full's. "
    "Methods of unequal masses train with unequal sums of learning rates."
)


def _possible(key: str, unit: str) -> Column:
    found = Column("possible", key, "", 0, 100, interval="ends", runs="fewer", optional=True)
    return replace(but(found, "full", "random", "ceiling"), unit=unit)


FACTOR = but(Column("loss", "loss_factor", interval="ends", runs="beside", optional=True), "full", "random")
GRADIENT_MASS = but(Column("mass", "gradient_mass", interval="", optional=True), "full", "ceiling")
COLUMNS = (
    Column("method"),
    Column("fitted", "fitted_loss", "loss", 4, interval="", runs="fewer"),
    replace(FACTOR, unit="× random's"),
    _possible("loss_share", "loss, %"),
    _possible("accuracy_share", "acc., %"),
    Column("fitted", "fitted_accuracy", "acc., %", 2, 100, interval=""),
    replace(GRADIENT_MASS, unit="× full's"),
)


def outcome_sheets(rows: Iterable[RatioRow]) -> list[Sheet]:
    """Returns a sheet for each group whose records contain a fitted loss."""
    known = [row for row in rows if row.fitted_loss.n]
    return [_sheet(title, list(own)) for title, own in itertools.groupby(known, key=lambda row: row.group)]


def _sheet(title: str, rows: list[RatioRow]) -> Sheet:
    shown = table(COLUMNS, rows, lambda row: f"{row.label}\n{percent(row.ratio)}")
    notes = [
        FITTED,
        *([POSSIBLE] if any(row.loss_share.n or row.accuracy_share.n for row in rows) else []),
        *([MASS] if any(row.gradient_mass.n for row in rows) else []),
        *([ONE_SEED] if any(row.n == 1 for row in rows) else []),
    ]
    return Sheet("outcomes", title, f"{TITLE}: {title}", [shown], notes)
