"""The sections of the page for data, time and weights, where the records hold more than bptt and dense."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from sadp_bench.report.axes_sheets import COUNTED, MIB, TIMED, axes_notes, energy_unit
from sadp_bench.report.claims import NOT_MEASURED, place, where
from sadp_bench.report.further import Further
from sadp_bench.report.memory import memory_notes
from sadp_bench.report.page.figures import Figures
from sadp_bench.report.page.markup import Markup, Part, element, joined, named, scrolling, with_code
from sadp_bench.report.page.tables import Sorting
from sadp_bench.report.page.wording import NOTHING, between, plain, signed
from sadp_bench.report.search import search_notes, settled_told, steps_told
from sadp_bench.report.tables import Row

Shown = tuple[Part, Sorting]
Column = tuple[str, str, Callable[[Row], Shown]]  # head, unit, a row's cell and what it is sorted by
PAIRED = "Changes and differences are paired by seed; in brackets the 95 % t-interval."

Sections = list[tuple[str, str, list[Markup]]]


def sections(found: Further, figures: Figures) -> Sections:
    """(id, heading, parts) of each."""
    made: Sections = []
    for name, heading, rows, told, part in (
        ("axes", "Data, time and weights together", found.axes, [*TIMED, *COUNTED], _axes),
        ("memory", "Training memory against time steps", found.memory, [], lambda own: _memory(own, figures)),
        ("search", "The search for connections", found.search, [], _search),
    ):
        parts = [_list(told)] if told else []
        for title, own in itertools.groupby(rows, key=lambda row: row["group"]):
            parts += [element("h3", title), *part(list(own))]
        if rows:
            made.append((name, heading, parts))
    if found.claims:
        made.append(("claims", "The papers' claims, and what these records say", _claims(found.claims)))
    return made


def facts(found: Further) -> list[tuple[str, Part]]:
    """For the top of the page."""
    time, weights = (dict.fromkeys(row[name] for row in found.axes) for name in ("time", "weights"))
    return [("Time axis", ", ".join(time)), ("Weight axis", ", ".join(weights))] if found else []


def _axes(rows: list[Row]) -> list[Markup]:
    scale, unit = energy_unit(rows)
    timed: list[Column] = [
        RUN,
        ("n", "", _count("n")),
        ("accuracy", "% [95 %]", _number("accuracy", 2, 100)),
        ("time", "charged s", _number("seconds", 1, reach=False)),
        ("search", "of these s", _number("search_seconds", 1, reach=False)),
        ("speed-up", "measured × [95 %]", _number("speedup", of="n_timed")),
        ("without search", "measured × [95 %]", _number("speedup_without_search")),
        ("theoretical", "not measured, ×", _number("theoretical_speedup", reach=False)),
        ("product", "of single axes × [95 %]", _number("product")),
        ("kept", "% of it [95 %]", _number("kept_share", 0, 100, of="n_product")),
    ]
    counted: list[Column] = [
        RUN,
        ("connections", "%", _number("density", 1, 100, reach=False)),
        ("training memory", "MiB [95 %]", _number("train_memory_bytes", 1, MIB)),
        ("accumulates", "millions [95 %]", _number("accumulates", 3, 1e-6)),
        ("multiply-accumulates", "millions [95 %]", _number("multiply_accumulates", 3, 1e-6)),
        ("energy", f"{unit}, 45 nm estimate", _number("energy_joules", 2, scale)),
        ("firing rate", "mean of layers [95 %]", _number("firing_rate", 3)),
    ]
    title = rows[0]["group"]
    return [
        _table(f"Accuracy and time: {title}", timed, rows),
        _table(f"Memory and operations: {title}", counted, rows, "apart"),
        _list(axes_notes(rows)),
    ]


def _memory(rows: list[Row], figures: Figures) -> list[Markup]:
    at = {(row["time"], row["timesteps"]): row for row in rows}
    columns: list[Column] = [("backprop", "", _text("time"))]
    for step in sorted({row["timesteps"] for row in rows}):
        columns.append((f"T={step}", "MiB [95 %]", _at(at, step)))
    first = [next(row for row in rows if row["time"] == name) for name in dict.fromkeys(row["time"] for row in rows)]
    plots = figures.of(rows[0]["group"])
    return [
        _table(f"Training memory, {rows[0]['group']}", columns, first, "narrow"),
        _list(memory_notes(rows)),
        *([element("div", *plots, class_="plots")] if plots else []),
    ]


def _at(at: dict[tuple[str, int], Row], step: int) -> Callable[[Row], Shown]:
    def cell(row: Row) -> Shown:
        found = at.get((row["time"], step))
        return (NOTHING, None) if found is None else _number("train_memory_bytes", 1, MIB, of="n", always=True)(found)

    return cell


def _search(rows: list[Row]) -> list[Markup]:
    columns: list[Column] = [
        RUN,
        ("n", "", _count("n")),
        ("T of the search", "of the run's", lambda row: (steps_told(row), row["search_timesteps_mean"])),
        ("rounds", "", _number("rounds", 0, reach=False)),
        ("epochs", "", _number("search_epochs", 1, reach=False)),
        ("search", "charged s [95 %]", _number("search_seconds", 1)),
        ("share", "% of charged s", _number("search_share", 0, 100, reach=False)),
        ("settled", "", lambda row: (settled_told(row), float(row["n_converged"]) if row["n_told"] else None)),
        ("early time / all steps", "of search s [95 %]", _number("early_time_ratio")),
    ]
    return [_table(f"Searches, {rows[0]['group']}", columns, rows), _list(search_notes(rows))]


def _claims(rows: list[Row]) -> list[Markup]:
    columns: list[Column] = [
        ("paper", "", _text("paper")),
        ("claim", "", _text("claim")),
        ("claimed", "", _text("claimed")),
        ("measured", "", _measured),
        ("on", "these records", lambda row: (place(row, rows) or NOTHING, row["name"] or None)),
        ("n", "", _count("n")),
        ("claimed on", "", _text("paper_setting")),
        ("not comparable", "", lambda row: ("; ".join(row["not_comparable"]) or NOTHING, None)),
    ]
    return [_table("Claims and measurements", columns, rows, "words"), _list([*where(rows), PAIRED])]


def _measured(row: Row) -> Shown:
    mean, digits = row["measured_mean"], 1 if row["unit"] == "change" else 2
    if mean is None:
        return NOT_MEASURED, None
    number = plain if row["unit"] == "accuracy" else signed
    shown = f"{number(100 * mean, digits)} {'points' if row['unit'] == 'points' else '%'}"
    return _two(shown, between(row["measured_low"], row["measured_high"], digits, 100)), mean


def _text(name: str) -> Callable[[Row], Shown]:
    return lambda row: (row[name], row[name])


def _count(name: str) -> Callable[[Row], Shown]:
    return lambda row: (row[name], float(row[name]))


def _number(
    name: str, digits: int = 2, scale: float = 1.0, *, reach: bool = True, of: str = "n", always: bool = False
) -> Callable[[Row], Shown]:
    """Sorted by the unrounded mean; reach: with its interval. of: how many runs it is the mean of, which is told always or
    where that is not all."""

    def cell(row: Row) -> Shown:
        mean = row[f"{name}_mean"]
        if mean is None:
            return NOTHING, None
        ends = between(row[f"{name}_low"], row[f"{name}_high"], digits, scale) if reach else ""
        runs = f"n = {row[of]}" if always or row[of] != row["n"] else ""
        return _two(plain(scale * mean, digits), " ".join(filter(None, [ends, runs]))), float(mean)

    return cell


def _run(row: Row) -> Shown:
    return joined([named(row["data"]), element("small", f"{row['time']} · {row['weights']}")]), row["name"]


RUN: Column = ("run", "data, time, weights", _run)


def _table(title: str, columns: Sequence[Column], rows: Sequence[Row], more: str = "") -> Markup:
    heads = [
        element("th", element("span", head), element("small", unit) if unit else None, scope="col")
        for head, unit, _ in columns
    ]
    body = [element("tr", *(_cell(number, *column[2](row)) for number, column in enumerate(columns))) for row in rows]
    caption = element("caption", title, class_="hidden")
    parts = (caption, element("thead", element("tr", *heads)), element("tbody", *body))
    return scrolling(element("table", *parts, class_=f"sortable axes {more}".rstrip()), f"Table, {title}")


def _cell(number: int, shown: Part, value: Sorting) -> Markup:
    sorting = repr(value) if isinstance(value, float) else value
    name, scope = ("td", None) if number else ("th", "row")
    return element(name, shown, scope=scope, data_value=sorting)


def _two(above: str, below: str) -> Markup:
    return joined([above, element("small", below) if below else None])


def _list(lines: Sequence[str]) -> Markup:
    return element("ul", *(element("li", with_code(line)) for line in lines), class_="notes")
