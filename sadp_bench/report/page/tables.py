"""A table a group, a row a method and ratio; each column sorts by its unrounded number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sadp_bench.report.page.drawings import strip
from sadp_bench.report.page.markup import Markup, Part, element, joined, named, scrolling
from sadp_bench.report.page.wording import NOTHING, between, plain, signed
from sadp_bench.report.sheets import Grid
from sadp_bench.report.tables import Row, percent

Sorting = float | str | None
Scale = tuple[float, float]
VERDICTS = {"lossless": "●", "worse": "▼", "undecided": "○"}  # a sign each, so that no color has to be seen


@dataclass(frozen=True, slots=True)
class Column:
    """head and unit stand above it; cell shows a row's value and sorts it by the second of the two it returns."""

    head: str
    unit: str
    cell: Callable[[Row, Scale], tuple[Part, Sorting]]


def group_table(rows: Sequence[Row]) -> Markup:
    """Of the rows of one group."""
    scale = _scale(rows)
    head = element("tr", *(_head(column) for column in COLUMNS))
    body = [element("tr", *(_cell(column, row, scale) for column in COLUMNS)) for row in rows]
    title = rows[0]["group"]
    caption = element("caption", f"Every method and ratio: {title}", class_="hidden")
    table = element("table", caption, element("thead", head), element("tbody", *body), class_="sortable")
    return scrolling(table, f"Table, {title}")


def grid_table(title: str, grid: Grid) -> Markup:
    """Of what is in the report's other formats too."""
    head = element("tr", *(element("th", name, scope="col") for name in grid.heads))
    body = [
        element("tr", element("th", label, scope="row"), *(element("td", cell.above) for cell in cells))
        for label, cells in grid.lines
    ]
    caption = element("caption", title, class_="hidden")
    return scrolling(element("table", caption, element("thead", head), element("tbody", *body), class_="short"), title)


def _head(column: Column) -> Markup:
    unit = element("small", column.unit) if column.unit else None
    return element("th", element("span", column.head), unit, scope="col")


def _cell(column: Column, row: Row, scale: Scale) -> Markup:
    shown, value = column.cell(row, scale)
    is_name = column is COLUMNS[0]
    sorting = repr(value) if isinstance(value, float) else value
    return element("th" if is_name else "td", shown, scope="row" if is_name else None, data_value=sorting)


def _scale(rows: Sequence[Row]) -> Scale:
    """The ends of the strips: all means and twice the margin are within; a long interval is cut off."""
    means = [row["accuracy_difference_mean"] or 0.0 for row in rows]
    least = max(2 * (rows[0].get("margin") or 0.0), 1e-6)
    room = 0.15 * (max(means) - min(means))
    return min(min(means) - room, -least), max(max(means) + room, least / 2)


def _method(row: Row, scale: Scale) -> tuple[Part, Sorting]:
    return named(row["label"]), row["label"]


def _ratio(row: Row, scale: Scale) -> tuple[Part, Sorting]:
    return percent(row["ratio"]), float(row["ratio"])


def _runs(row: Row, scale: Scale) -> tuple[Part, Sorting]:
    failed = element("small", f"{row['n_failed']} failed", class_="failed") if row["n_failed"] else None
    return joined([row["n"], failed]), float(row["n"])


def _accuracy(row: Row, scale: Scale) -> tuple[Part, Sorting]:
    mean = row["accuracy_mean"]
    if mean is None:
        return NOTHING, None
    reach = between(row.get("accuracy_low"), row.get("accuracy_high"), scale=100)
    return _two(plain(100 * mean), reach), mean


def _against_full(row: Row, scale: Scale) -> tuple[Part, Sorting]:
    mean = row["accuracy_difference_mean"]
    if row["method"] == "full":
        return element("small", "reference"), 0.0 if row["n"] else None
    if mean is None:
        return NOTHING, None
    low, high = row.get("accuracy_difference_low"), row.get("accuracy_difference_high")
    shown = _two(signed(100 * mean), _reach(low, high, row["n_paired"], row["n"]))
    drawn = strip(mean, low, high, scale, row.get("margin"))
    return element("div", drawn, element("div", shown), class_="compared"), mean


def _verdict(row: Row, scale: Scale) -> tuple[Part, Sorting]:
    return verdict(row), row.get("verdict")


def verdict(row: Row) -> Part:
    """The word with its sign; one seed has none."""
    name = row.get("verdict")
    if name in VERDICTS:
        return element("span", element("span", VERDICTS[name], aria_hidden="true"), f" {name}", class_=name)
    return element("small", "one seed") if row["method"] != "full" and row["n_paired"] == 1 else NOTHING


def _against_random(row: Row, scale: Scale) -> tuple[Part, Sorting]:
    mean = row.get("random_difference_mean")
    if mean is None:
        return NOTHING, None
    reach = _reach(row.get("random_difference_low"), row.get("random_difference_high"), row.get("n_random"), row["n"])
    return _two(signed(100 * mean), reach), mean


def _speedup(row: Row, scale: Scale) -> tuple[Part, Sorting]:
    mean = row["speedup_mean"]
    reach = between(row.get("speedup_low"), row.get("speedup_high"))
    some = "" if mean is None or row["n_timed"] == row["n"] else f"n = {row['n_timed']}"
    return _two(plain(mean), " ".join(filter(None, [reach, some]))), mean


def _number(name: str, digits: int) -> Callable[[Row, Scale], tuple[Part, Sorting]]:
    return lambda row, scale: (plain(row[name], digits), row[name])


def _to_accuracy(row: Row, scale: Scale) -> tuple[Part, Sorting]:
    mean, reached = row.get("seconds_to_accuracy_mean"), row.get("n_reached", row["n"])
    if mean is None and row.get("n_timed"):
        return "never", mean
    some = "" if mean is None or reached == row["n"] else f"{reached} of {row['n']} seeds"
    return _two(plain(mean, 1), some), mean


def _two(above: str, below: str) -> Markup:
    return joined([above, element("small", below) if below else None])


def _reach(low: float | None, high: float | None, n: int | None, runs: int) -> str:
    """The interval, and the number of pairs where that is not the number of runs."""
    return " ".join(filter(None, [between(low, high, scale=100), "" if n in (runs, None) else f"n = {n}"]))


COLUMNS = (
    Column("method", "", _method),
    Column("ratio", "", _ratio),
    Column("n", "", _runs),
    Column("accuracy", "% [95 %]", _accuracy),
    Column("against full", "points [95 %]", _against_full),
    Column("verdict", "", _verdict),
    Column("against random", "points [95 %]", _against_random),
    Column("speed-up", "× [95 %]", _speedup),
    Column("ceiling", "×", _number("ceiling_mean", 2)),
    Column("efficiency", "of ceiling", _number("efficiency_mean", 2)),
    Column("time", "charged s", _number("seconds_mean", 1)),
    Column("to accuracy", "charged s", _to_accuracy),
)
