"""The tables by pruning ratio: accuracy and speed-up of each method, and their paired differences."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sadp_bench.core.text import NOTHING, number, percent
from sadp_bench.records.comparison import ACCURACY_SLACK
from sadp_bench.reports.rows import RatioRow, shared_means
from sadp_bench.reports.sentences import findings
from sadp_bench.reports.tables.notes import ratio_notes
from sadp_bench.reports.tables.table import Cell, Column, Sheet, Table, interval_notes, table

ACCURACY = Column("accuracy", "accuracy", "%", 2, 100)
WORST_EXPLAINED = (
    "Worst class: the class of the lowest accuracy in each run. Its difference to full's worst class is paired by seed. The "
    "two classes may differ."
)


def ratio_sheets(rows: Iterable[RatioRow]) -> list[Sheet]:
    """Returns a sheet for each group, in the order of the rows."""
    return [_sheet(title, list(own)) for title, own in itertools.groupby(rows, key=lambda row: row.group)]


def _sheet(title: str, rows: list[RatioRow]) -> Sheet:
    tables = [_results(rows)]
    pruned = [row for row in rows if not row.is_full]
    shown = [found for row in pruned for found in (row.accuracy_difference, row.random_difference)]
    if any(found.low is not None for found in shown) or any(row.cpu_speedup.n for row in pruned):
        tables.append(_differences(rows))
    return Sheet("ratio", title, title, tables, ratio_notes(rows), findings=findings(rows))


def class_sheets(rows: Iterable[RatioRow]) -> list[Sheet]:
    """Returns a sheet for each group whose records contain accuracies by class: the accuracy on the worst class."""
    known = [row for row in rows if row.worst_class_accuracy.n]
    return [_class_sheet(title, list(own)) for title, own in itertools.groupby(known, key=lambda row: row.group)]


def _class_sheet(title: str, rows: list[RatioRow]) -> Sheet:
    notes = [WORST_EXPLAINED, *interval_notes(rows, "worst_class_accuracy", "worst_class_difference")]
    shown = table(WORST, rows, lambda row: f"{row.label}\n{percent(row.ratio)}")
    return Sheet("classes", title, f"Worst class: {title}", [shown], notes)


def _results(rows: list[RatioRow]) -> Table:
    """Returns accuracy and time, by method and ratio."""
    ratios = sorted({0.0} | {row.ratio for row in rows})
    at = {(row.label, row.ratio): row for row in rows}
    labels = list(dict.fromkeys(["full", *(row.label for row in rows)]))
    lines = [(label, [_result(label, ratio, at) for ratio in ratios]) for label in labels]
    return Table(["method", *map(percent, ratios)], lines)


def _result(label: str, ratio: float, at: dict[tuple[str, float], RatioRow]) -> Cell:
    row = at.get((label, ratio))
    if row is None:
        # Only `full` belongs at ratio 0, and nowhere else.
        return Cell(NOTHING) if (label == "full") == (ratio == 0) else Cell()
    if not row.n:
        return Cell(f"{len(row.failed)} failed")
    rivals = [other for other in at.values() if other.ratio == ratio and other.prunes and other.n]
    means = shared_means(rivals)
    rank = sorted(set(means), reverse=True).index(means[rivals.index(row)]) if row in rivals else None
    return replace(
        ACCURACY.cell(row),
        runs=f"{row.n}, {len(row.failed)} failed" if row.failed else f"{row.n}",
        below=_time(row),
        best=rank == 0 and len(rivals) > 1,
        second=rank == 1 and len(rivals) > 2,
    )


def _time(row: RatioRow) -> str:
    """Returns the charged seconds of `full`, or another method's speed-up and its ceiling."""
    timed = row.seconds if row.is_full else row.speedup
    fewer = f" ({timed.n})" if 0 < timed.n < row.n else ""
    if row.is_full:
        return f"{number(timed.mean, 1, ' s') if timed.n else NOTHING}{row.mark}{fewer}"
    return f"{number(timed.mean) if timed.n else NOTHING}{row.mark}{fewer} / {row.ceiling.mean:.2f}x"


def _verdict(row: RatioRow) -> Cell:
    """Returns the verdict, and below it the smallest difference that these seeds can decide, in points."""
    decides = row.decidable_difference
    if row.is_full or row.verdict is None or decides is None:
        return Cell() if row.is_full else Cell(row.verdict or NOTHING, sort=row.verdict)
    below = number(100 * decides)
    return Cell(row.verdict, below=below, inline=f"{row.verdict} ({below})", sort=row.verdict)


def _random_verdict(row: RatioRow) -> Cell:
    if row.is_full or row.method == "random" and row.random_verdict is None:
        return Cell()
    return Cell(row.random_verdict or NOTHING, sort=row.random_verdict)


def _p_value(value: float | None) -> Cell:
    if value is None:
        return Cell()
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", sort=value)


def _to_accuracy(row: RatioRow) -> Cell:
    """Returns the time to full's accuracy minus the slack, and below it the share of full's time."""
    timed, reached = row.speedup.n, row.seconds_to_accuracy.n
    if not timed:
        return Cell(f"{NOTHING}{row.mark}")
    if not reached:
        return Cell(f"never{row.mark}", str(timed))
    seconds = f"{number(row.seconds_to_accuracy.mean, 1, ' s')}{row.mark}"
    share = percent(round(row.share_to_accuracy.mean, 2)) if row.share_to_accuracy.n else ""
    runs = f"{reached}" if reached == timed else f"{reached}/{timed}"
    inline = ", ".join(filter(None, [seconds, share]))
    return Cell(seconds, runs, share, inline, sort=float(row.seconds_to_accuracy.mean))


def but(column: Column, *methods: str) -> Column:
    """Returns the column with empty cells for these methods, which would be compared with themselves."""

    def show(row: RatioRow) -> Cell:
        cell = column.cell(row)
        return Cell(sort=cell.sort) if row.method in methods else cell

    return Column(column.head, column.key, optional=column.optional, show=show)


TO_FULL = but(
    Column("to full", "accuracy_difference", "points", 2, 100, interval="ends", runs="beside", sign=True), "full"
)
TO_RANDOM = but(
    Column("to random", "random_difference", "points", 2, 100, interval="ends", runs="beside", sign=True),
    "full", "random",
)  # fmt: skip
SPEEDUP = but(Column("speed-up", "speedup", "×", interval="ends", runs="beside", timed=True), "full")
CPU_SPEEDUP = but(Column("speed-up", "cpu_speedup", interval="ends", runs="beside", optional=True), "full")
WORST_CLASS = Column("worst class", "worst_class_accuracy", "%", 2, 100, runs="beside", optional=True)
WORST_TO_FULL = but(
    Column("to full", "worst_class_difference", "points", 2, 100, interval="ends", runs="beside", sign=True, optional=True),
    "full",
)  # fmt: skip
VERDICT = Column("verdict", unit="decides ≥", show=_verdict)
RANDOM_VERDICT = Column("verdict", unit="to random", show=_random_verdict)
VERDICT_P = Column("verdict", unit="Holm's p", show=lambda row: _p_value(row.verdict_p))
RANDOM_P = Column("to random", unit="Holm's p", show=lambda row: _p_value(row.random_p))
TO_ACCURACY = Column("time to", unit=f"full's - {100 * ACCURACY_SLACK:g}", show=_to_accuracy)
DIFFERENCES = (
    Column("method"), TO_FULL, VERDICT, TO_RANDOM, RANDOM_VERDICT, SPEEDUP, replace(CPU_SPEEDUP, unit="by CPU"), TO_ACCURACY,
)  # fmt: skip
WORST = (Column("method"), replace(ACCURACY, runs="beside"), WORST_CLASS, replace(WORST_TO_FULL, unit="points [95 %]"))
CLAIMS = (
    Column("method"),
    Column("ratio", show=lambda row: Cell(percent(row.ratio), sort=row.ratio)),
    Column("n", show=lambda row: Cell(str(row.n), sort=float(row.n), below=_failed(row))),
    ACCURACY,
    replace(TO_FULL, unit="points [95 %]"),
    VERDICT,
    replace(TO_RANDOM, unit="points [95 %]"),
    RANDOM_VERDICT,
    replace(SPEEDUP, unit="× [95 %]"),
)
EVERYTHING = (
    *CLAIMS,
    replace(CPU_SPEEDUP, head="by CPU", unit="× [95 %]"),
    Column("ceiling", "ceiling", "×", interval=""),
    Column("efficiency", "efficiency", "of ceiling", interval="", timed=True),
    Column("time", "seconds", "charged s", 1, interval="", timed=True),
    TO_ACCURACY,
    replace(WORST_CLASS, runs="fewer"),
    replace(WORST_TO_FULL, head="worst class to full", unit="points [95 %]"),
)


def _failed(row: RatioRow) -> str:
    return f"{len(row.failed)} failed" if row.failed else ""


def _differences(rows: Sequence[RatioRow]) -> Table:
    """Returns the differences to full and random, the speed-up and the time to full's accuracy."""
    caption = f"Paired differences in points: mean and 95 % interval; margin {100 * rows[0].margin:g} points"
    done = [row for row in rows if row.n]
    return table(_with_p_values(DIFFERENCES, done), done, lambda row: f"{row.label}\n{percent(row.ratio)}", caption)


def claims_table(rows: Sequence[RatioRow]) -> Table:
    """Returns the table of a group's claims, a line for each method and ratio: accuracy, differences, verdicts, speed-up."""
    return table(_with_p_values(CLAIMS, rows), rows, lambda row: row.display_label)


def whole_table(rows: Sequence[RatioRow]) -> Table:
    """Returns one table with every number of a group, a line for each method and ratio."""
    return table(_with_p_values(EVERYTHING, rows), rows, lambda row: row.display_label)


def _with_p_values(columns: Sequence[Column], rows: Sequence[RatioRow]) -> list[Column]:
    """Returns the columns, with a column of adjusted p-values after each verdict that has them."""
    found = []
    for column in columns:
        found.append(column)
        if column is VERDICT and any(row.verdict_p is not None for row in rows):
            found.append(VERDICT_P)
        if column is RANDOM_VERDICT and any(row.random_p is not None for row in rows):
            found.append(RANDOM_P)
    return found
