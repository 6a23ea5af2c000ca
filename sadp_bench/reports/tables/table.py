"""The parts of a table: columns that show the fields of rows, cells, and sheets of tables with their notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sadp_bench.core.text import NOTHING, number
from sadp_bench.records.statistics import Estimate

GAP = 2  # letters: space between columns
MIB = 1 / 2**20
INTERVALS = (
    "Cells: mean ± half-width of the 95 % t-interval. [low, high]: the interval of a ratio, or one cut at 0 or 100 %."
)
ONE_SEED = "One seed: no ± and no interval."


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table, in words.

    Attributes:
        text: The first line.
        runs: The number of runs, shown in brackets after the text.
        below: The second line.
        inline: Both lines as one, for LaTeX; "" where there is no such form.
        best: Whether it is the best of its column.
        second: Whether it is the second best of its column.
        sort: The unrounded value by which the column is sorted; None for a missing value.
    """

    text: str = ""
    runs: str = ""
    below: str = ""
    inline: str = ""
    best: bool = False
    second: bool = False
    sort: float | str | None = None

    @property
    def above(self) -> str:
        """The first line with the number of runs."""
        return f"{self.text} ({self.runs})" if self.runs else self.text


@dataclass(frozen=True, slots=True)
class Table:
    """Heads and lines. A line is a label and a cell for every head except the first. A label may have two lines."""

    heads: list[str]
    lines: list[tuple[str, list[Cell]]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Tables that belong together.

    Attributes:
        kind: The kind of its tables: "ratio", "outcomes", "classes", "axes", "memory", "search", "ranks", "versus" or
            "summary".
        group: The title of the group that it shows; "" where it shows all groups.
        title: The heading.
        tables: The tables, each with a caption above it or none.
        notes: Remarks on them, one per line.
        long: Whether columns beyond the width of a printed page continue in another environment (LaTeX).
        findings: The findings of the tables, a sentence each.
    """

    kind: str
    group: str
    title: str
    tables: list[Table]
    notes: list[str] = field(default_factory=list)
    long: bool = False
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Column:
    """A column that shows one field of each row.

    Attributes:
        head: The text above it.
        key: The name of the field, an `Estimate` or a property.
        unit: The line below the head.
        digits: Decimals of a number.
        scale: Factor from the field's unit to the shown unit.
        interval: "half" shows `mean ±half-width`, and `mean [low, high]` where the mean is not in the middle; "ends" shows
            `[low, high]` in a second line; "" shows no interval.
        runs: "below" shows `n = 2`, "fewer" does so only where some runs lack the number, "beside" shows `(2)`.
        sign: Whether a positive number has a sign.
        optional: Whether the column is left out where no row has a number.
        timed: Whether the number depends on seconds. It then has a mark where disturbed runs are left out.
        rare: Whether most rows have no such number. Its absence then has no mark.
        show: A function that returns the cell of a row, in place of all this.
    """

    head: str
    key: str = ""
    unit: str = ""
    digits: int = 2
    scale: float = 1.0
    interval: Literal["half", "ends", ""] = "half"
    runs: Literal["below", "fewer", "beside", ""] = ""
    sign: bool = False
    timed: bool = False
    optional: bool = False
    rare: bool = False
    show: Callable[[Any], Cell] | None = None

    @property
    def heading(self) -> str:
        """Head and unit."""
        return f"{self.head}\n{self.unit}" if self.unit else self.head

    def cell(self, row: Any) -> Cell:
        """Returns the row's cell."""
        return (
            self.show(row)
            if self.show
            else self._estimate(getattr(row, self.key), row.n, row.mark if self.timed else "")
        )

    def _estimate(self, found: Estimate, n: int, mark: str) -> Cell:
        if not found.n:
            return Cell(NOTHING if self.rare else f"{NOTHING}{mark}")
        mean, ends, one_line = f"{self._number(found.mean)}{mark}", "", ""
        if found.low is not None and found.high is not None and self.interval:
            ends = f"[{self._number(found.low)}, {self._number(found.high)}]"
            half = None if found.half is None else number(self.scale * found.half, self.digits)
            one_line = f"{mean} {ends}" if half is None else f"{self._number(found.mean)} ±{half}{mark}"
        counted = self.runs == "below" or self.runs == "fewer" and found.n < n
        below = ends if self.interval == "ends" else ""
        return Cell(
            text=mean if below else one_line or mean,
            runs=str(found.n) if self.runs == "beside" or counted and below else "",
            below=below or (f"n = {found.n}" if counted else ""),
            inline=one_line if below else "",
            sort=float(found.mean),
        )

    def _number(self, value: float) -> str:
        text = number(self.scale * value, self.digits)
        return text if text.startswith("-") or not self.sign else f"+{text}"


def table(columns: Sequence[Column], rows: Iterable[Any], label: Callable[[Any], str], caption: str = "") -> Table:
    """Returns the table of these columns. The first column contains the labels.

    Args:
        columns: The columns.
        rows: The rows, a line each.
        label: Returns the label of a row.
        caption: The table's caption.
    """
    rows = list(rows)
    columns = [c for c in columns if not c.optional or any(getattr(row, c.key).n for row in rows)]
    lines = [(label(row), [column.cell(row) for column in columns[1:]]) for row in rows]
    return Table([column.heading for column in columns], lines, caption)


def interval_notes(rows: Iterable[Any], *keys: str) -> list[str]:
    """Returns the definition of ±, where one of these estimates has an interval, and a note on single seeds."""
    rows = list(rows)
    some = any(getattr(row, key).low is not None for row in rows for key in keys)
    return [*([INTERVALS] if some else []), *([ONE_SEED] if any(row.n == 1 for row in rows) else [])]


def spans(table: Table, width: int) -> list[tuple[int, int]]:
    """Returns ranges of columns that fit beside the labels, at least one column each.

    Args:
        table: The table.
        width: The room beside the labels, in letters.
    """
    found, first, used = [], 0, 0
    for place, head in enumerate(table.heads[1:]):
        cells = [cells[place] for _, cells in table.lines]
        parts = [*head.split("\n"), *(cell.above for cell in cells), *(cell.below for cell in cells)]
        needed = GAP + max(map(len, parts))
        if place > first and used + needed > width:
            found.append((first, place))
            first, used = place, 0
        used += needed
    return [*found, (first, len(table.heads) - 1)]
