"""The table of findings: the best method of each group and ratio, its cost in accuracy and its saving in time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sadp_bench.core.text import NOTHING, number, percent
from sadp_bench.reports.rows import RatioRow, shared_means
from sadp_bench.reports.sentences import fastest_lossless
from sadp_bench.reports.tables.by_ratio import ACCURACY, RANDOM_VERDICT, TO_FULL, TO_RANDOM, VERDICT
from sadp_bench.reports.tables.table import Cell, Column, Table, table

VERDICTS = ("lossless", "worse", "undecided")


@dataclass(frozen=True, slots=True)
class BestMethod:
    """What was found in one group: its title, the fastest lossless method in a sentence, the best at each ratio."""

    group: str
    sentence: str
    table: Table


def best_methods(groups: Iterable[Sequence[RatioRow]]) -> list[BestMethod]:
    """Returns a finding of each group that has pruned runs or a reference."""
    return [BestMethod(rows[0].group, fastest_lossless(rows), _best(rows)) for rows in groups]


@dataclass(frozen=True, slots=True)
class _Ratio:
    """The best row of a ratio, and all rows of it that have runs; none where no run has finished."""

    ratio: float
    best: RatioRow | None
    done: list[RatioRow]


def _of_best(column: Column, head: str = "", unit: str = "") -> Column:
    """Returns the column of the best row."""
    return Column(head or column.head, unit=unit, show=lambda at: column.cell(at.best) if at.best else Cell())


def _speedup(row: RatioRow) -> Cell:
    return Cell(f"{number(row.speedup.mean) if row.speedup.n else NOTHING}{row.mark} of {number(row.ceiling.mean)}")


def _saved(row: RatioRow) -> Cell:
    saved = number(100 * (1 - 1 / row.speedup.mean), 0, " %") if row.speedup.n else NOTHING
    return Cell(f"{saved}{row.mark}")


def _verdicts(at: _Ratio) -> Cell:
    found = [row.verdict for row in at.done]
    counts = [f"{found.count(name)} {name}" for name in VERDICTS if name in found]
    return Cell(" · ".join([*counts, *([f"{found.count(None)} without a verdict"] if None in found else [])]))


FINDING_COLUMNS = (
    Column("ratio"),
    Column("best mean accuracy", show=lambda at: Cell(at.best.label if at.best else "no run has finished")),
    _of_best(replace(ACCURACY, interval="ends", runs="beside"), unit="% [95 %]"),
    _of_best(TO_FULL, unit="points [95 %]"),
    _of_best(VERDICT, unit=VERDICT.unit),
    _of_best(TO_RANDOM, unit="points [95 %]"),
    _of_best(RANDOM_VERDICT, unit=RANDOM_VERDICT.unit),
    _of_best(Column("speed-up", show=_speedup), unit="of its ceiling"),
    _of_best(Column("time saved", show=_saved), unit="of full's"),
    Column("all methods", unit="number by verdict", show=_verdicts),
)


def _best(rows: Sequence[RatioRow]) -> Table:
    lines = []
    for ratio in sorted({row.ratio for row in rows if row.prunes}):
        done = [row for row in rows if row.ratio == ratio and row.prunes and row.n]
        ranked = sorted(zip(shared_means(done), done, strict=True), key=lambda pair: -pair[0])
        lines.append(_Ratio(ratio, ranked[0][1] if ranked else None, done))
    return table(FINDING_COLUMNS, lines, lambda at: percent(at.ratio))
