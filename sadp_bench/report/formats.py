"""Rows as text for people (terminal, Markdown) and, unrounded, for programs (CSV, JSON)."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sadp_bench.report.tables import ENVIRONMENT, Row

NOTHING = "–"
LEGEND = (
    "Cells: accuracy in %, mean ± sample standard deviation (runs); below it measured speed-up over full / ceiling "
    "(what it would be if dropped examples cost nothing). For full: charged seconds."
)
BOLD = " Bold: the best mean accuracy at a ratio."
BUDGET_TOLERANCE = 0.005
NARROWEST = 20  # columns; at 0, which some systems tell of a pipe, nothing would be shown


@dataclass(frozen=True, slots=True)
class Cell:
    """One method at one ratio: accuracy above, time below."""

    accuracy: str = ""
    time: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table for people. lines: a label and a cell a ratio."""

    title: str
    ratios: list[str]
    lines: list[tuple[str, list[Cell]]]
    notes: list[str]


def sheets(table: Iterable[Row]) -> list[Sheet]:
    """A sheet a group, in the order of the rows."""
    return [_sheet(title, list(rows)) for title, rows in itertools.groupby(table, key=lambda row: row["group"])]


def _sheet(title: str, rows: list[Row]) -> Sheet:
    ratios = sorted({0.0} | {row["ratio"] for row in rows})
    at = {(row["label"], row["ratio"]): row for row in rows}
    labels = list(dict.fromkeys(["full", *(row["label"] for row in rows)]))
    lines = [(label, [_cell(label, ratio, at, rows) for ratio in ratios]) for label in labels]
    return Sheet(title, [percent(ratio) for ratio in ratios], lines, _notes(rows))


def _cell(label: str, ratio: float, at: dict[tuple[str, float], Row], rows: list[Row]) -> Cell:
    row = at.get((label, ratio))
    if row is None:
        # Only `full` belongs at ratio 0, and nowhere else.
        return Cell(NOTHING) if (label == "full") == (ratio == 0) else Cell()
    if not row["n"]:
        return Cell(f"{row['n_failed']} failed")
    others = [other for other in rows if other["ratio"] == ratio and other["method"] != "full"]
    rivals = [other["accuracy_mean"] for other in others if other["n"]]
    best = row["method"] != "full" and len(rivals) > 1 and row["accuracy_mean"] == max(rivals)
    return Cell(_accuracy(row), _time(row), best)


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def _accuracy(row: Row) -> str:
    spread = "" if row["accuracy_sd"] is None else f" ±{100 * row['accuracy_sd']:.2f}"
    failed = f", {row['n_failed']} failed" if row["n_failed"] else ""
    return f"{100 * row['accuracy_mean']:.2f}{spread} ({row['n']}{failed})"


def _time(row: Row) -> str:
    if row["method"] == "full":
        return f"{row['seconds_mean']:,.1f} s"
    speedup = NOTHING if row["speedup_mean"] is None else f"{row['speedup_mean']:.2f}"
    return f"{speedup} / {row['ceiling_mean']:.2f}x"


def _notes(rows: list[Row]) -> list[str]:
    equal_updates = rows[0]["protocol"] == "updates"
    done = [row for row in rows if row["n"]]
    return [
        *([_measured_on(done)] if done else ["No run of this table has finished."]),
        *(["Equal updates: nothing is saved, so the nominal maximum is 1."] if equal_updates else []),
        *_failed(rows),
        *_warnings(done),
        *_other_data(done),
        *_missing(done),
        *_mismatched(done),
        *_off_budget(done),
        *(["(1): one seed, so no ±."] if any(row["n"] == 1 for row in rows) else []),
    ]


def _values(rows: list[Row], name: str) -> list[str]:
    longest = 10 if name == "commit" else None
    return sorted({value[:longest] for row in rows for value in row[f"environment.{name}"]})


def _measured_on(rows: list[Row]) -> str:
    def of(name: str) -> str:
        return " or ".join(_values(rows, name))

    return (
        f"Measured on {of('processor')} ({of('device')}), threads {of('threads')}, concurrent jobs {of('jobs')}; "
        f"torch {of('torch')}, spikingjelly {of('spikingjelly')}, sadp-bench {of('sadp_bench')}, commit {of('commit')}."
    )


def _warnings(rows: list[Row]) -> list[str]:
    values = {name: _values(rows, name) for name in ENVIRONMENT if name != "dirty"}
    differing = [f"{name} ({', '.join(several)})" for name, several in values.items() if len(several) > 1]
    lines = [f"Warning: these runs differ in {'; '.join(differing)}."] if differing else []
    dirty = [f"{row['label']} {percent(row['ratio'])}" for row in rows if "true" in row["environment.dirty"]]
    if dirty:
        lines.append(f"Warning: made from a changed (dirty) working tree: {', '.join(dirty)}.")
    return lines


def _named(rows: list[Row], field: str) -> dict[str, str]:
    """Each value of a list field, with the cells that hold it."""
    holders: dict[str, list[str]] = {}
    for row in rows:
        for value in row[field]:
            holders.setdefault(value, []).append(f"{row['label']} {percent(row['ratio'])}")
    return {value: ", ".join(cells) for value, cells in holders.items()}


def _failed(rows: list[Row]) -> list[str]:
    return [f"Failed, so in no number: {cells}, {failure}" for failure, cells in _named(rows, "failures").items()]


def _other_data(rows: list[Row]) -> list[str]:
    seen = _named(rows, "data_sha256")
    if len(seen) < 2:
        return []
    holders = "; ".join(f"{digest[:10]}: {cells}" for digest, cells in seen.items())
    return [f"Warning: these runs saw different data, so don't compare them (SHA-256 {holders})."]


def _missing(rows: list[Row]) -> list[str]:
    return [
        f"No reference for a seed of {cells}, so no speed-up of it; make it: `{line}`"
        for line, cells in _named(rows, "missing_references").items()
    ]


def _mismatched(rows: list[Row]) -> list[str]:
    return [
        f"No speed-up for a seed of {cells}: its reference differs from it ({phrase})."
        for phrase, cells in _named(rows, "mismatches").items()
    ]


def _off_budget(rows: list[Row]) -> list[str]:
    off = [
        f"{row['label']} {percent(row['ratio'])} ({100 * row['realised_ratio_mean']:.1f} %)"
        for row in rows
        if abs(row["realised_ratio_mean"] - row["ratio"]) > BUDGET_TOLERANCE
    ]
    return [f"Warning: these saved another share than asked (in brackets): {', '.join(off)}."] if off else []


def markdown(sheets: list[Sheet], left_out: str = "") -> str:
    blocks = []
    for sheet in sheets:
        head = ["method", *sheet.ratios]
        lines = [_markdown_line(head), _markdown_line(["---"] + ["---:"] * len(sheet.ratios))]
        lines += [_markdown_line([label, *map(_markdown_cell, cells)]) for label, cells in sheet.lines]
        blocks += [f"### {sheet.title}", "\n".join(lines), "\n".join(f"- {note}" for note in sheet.notes)]
    return "\n\n".join([*blocks, LEGEND + BOLD, *filter(None, [left_out])]) + "\n"


def _markdown_line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _markdown_cell(cell: Cell) -> str:
    accuracy = f"**{cell.accuracy}**" if cell.best else cell.accuracy
    return "<br>".join(filter(None, [accuracy, cell.time]))


def text(sheets: list[Sheet], left_out: str = "", *, width: int = 80, styled: bool = False) -> str:
    """For a terminal of so many columns; a table that is too wide continues below with its further ratios."""
    from rich.console import Console
    from rich.text import Text

    out, width = io.StringIO(), max(width, NARROWEST)
    console = Console(file=out, width=width, force_terminal=styled, color_system="standard" if styled else None)
    for sheet in sheets:
        console.print(Text(sheet.title, style="bold"))
        for first, last in _spans(sheet, width):
            console.print(_rich_table(sheet, first, last))
        for note in sheet.notes:
            # A command must be copied in one piece, so its line is left to the terminal to wrap.
            console.print(
                Text(note, style="yellow" if note.startswith(("Warning", "Failed")) else ""), soft_wrap="`" in note
            )
        console.print()
    console.print(Text(LEGEND + (BOLD if styled else "")))
    if left_out:
        console.print(Text(left_out))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _spans(sheet: Sheet, width: int) -> list[tuple[int, int]]:
    """Ranges of ratio columns that fit beside the labels."""
    label_width = min(max(len(label) for label, _ in sheet.lines), width // 3)
    column = max(max(len(cell.accuracy), len(cell.time)) for _, cells in sheet.lines for cell in cells)
    fit = max(1, (width - label_width - 2) // (column + 3))
    return [(first, min(first + fit, len(sheet.ratios))) for first in range(0, len(sheet.ratios), fit)]


def _rich_table(sheet: Sheet, first: int, last: int) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", overflow="fold")
    for ratio in sheet.ratios[first:last]:
        table.add_column(ratio, justify="right", no_wrap=True)
    for label, cells in sheet.lines:
        if not any(cell.accuracy for cell in cells[first:last]):
            continue
        shown = []
        for cell in cells[first:last]:
            above = Text(cell.accuracy, style="bold" if cell.best else "")
            shown.append(above.append(f"\n{cell.time}" if cell.time else "", style="not bold"))
        table.add_row(Text(label), *shown)
    return table


def csv_text(table: list[Row]) -> str:
    """A line a row under the union of their columns; empty where there is no number; lists joined by `; `."""
    names = list(dict.fromkeys(name for row in table for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _joined(value) for name, value in row.items()} for row in table])
    return out.getvalue()


def _joined(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value


def json_text(table: list[Row]) -> str:
    return json.dumps(table, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
