"""Sheets as text for people (terminal, Markdown), and rows, unrounded, for programs (CSV, JSON)."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from sadp_bench.report.sheets import Cell, Grid, Sheet, spans
from sadp_bench.report.tables import Row

LEGEND = (
    "Cells: accuracy in %, mean ± half-width of the 95 % t-interval (runs); below it measured speed-up over full / "
    "ceiling (what it would be if dropped examples cost nothing; in brackets the runs timed, where not all were). For full: "
    "charged seconds."
)
BOLD = " Bold: the best mean accuracy at a ratio, over the seeds that its methods share."
PAIRED = (
    "Paired differences: accuracy minus that of full, or of random at the same ratio, seed by seed (seeds in brackets). "
    "Verdict on the difference to full: lossless if the interval lies above -margin, worse if below it, else undecided. "
    "Speed-up: measured over full, seed by seed, of the seeds that were timed alike. "
    "Time to full's - 1: charged seconds until an evaluation first shows full's final accuracy minus 1 point (mean over "
    "the seeds that get there; 3/5: three of five), and below it the share of what full takes."
)
MIN_WIDTH = 20  # columns; at 0, which some systems tell of a pipe, nothing would be shown


def markdown(sheets: list[Sheet], lines: list[str], *, by_ratio: bool = True) -> str:
    """lines: what is said after the legend. by_ratio: whether there are tables that it explains."""
    blocks = []
    for sheet in sheets:
        blocks.append(f"### {sheet.title}")
        for caption, grid in sheet.grids:
            blocks += [*filter(None, [caption and f"{caption}:"]), _markdown_grid(grid)]
        blocks.append("\n".join(f"- {note}" for note in sheet.notes))
    return "\n\n".join([*blocks, *([LEGEND + BOLD] if by_ratio else []), *_paired(sheets), *lines]) + "\n"


def _paired(sheets: list[Sheet]) -> list[str]:
    return [PAIRED] if any(len(sheet.grids) > 1 for sheet in sheets) else []


def _markdown_grid(grid: Grid) -> str:
    rule = ["---"] + ["---:"] * (len(grid.heads) - 1)
    lines = [[label, *map(_markdown_cell, cells)] for label, cells in grid.lines]
    return "\n".join(map(_markdown_line, [grid.heads, rule, *lines]))


def _markdown_line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"


def _markdown_cell(cell: Cell) -> str:
    above = f"**{cell.above}**" if cell.best else cell.above
    return "<br>".join(filter(None, [above, cell.below]))


def text(sheets: list[Sheet], lines: list[str], *, width: int = 80, styled: bool = False, by_ratio: bool = True) -> str:
    """For a terminal of so many columns; a table that is too wide continues below with its further columns.

    lines: what is said after the legend. by_ratio: whether there are tables that it explains.
    """
    from rich.console import Console
    from rich.text import Text

    out, width = io.StringIO(), max(width, MIN_WIDTH)
    console = Console(file=out, width=width, force_terminal=styled, color_system="standard" if styled else None)
    for sheet in sheets:
        console.print(Text(sheet.title, style="bold"))
        for caption, grid in sheet.grids:
            if caption:
                console.print(Text(caption))
            for first, last in _spans(grid, width):
                console.print(_rich_table(grid, first, last))
        for note in sheet.notes:
            style = "yellow" if note.startswith(("Warning", "Failed")) else ""
            # A command must be copied in one piece, so its line is left to the terminal to wrap.
            console.print(Text(note, style=style), soft_wrap="`" in note)
        console.print()
    legend = [LEGEND + (BOLD if styled else "")] if by_ratio else []
    for line in [*legend, *_paired(sheets), *lines]:
        console.print(Text(line))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _spans(grid: Grid, width: int) -> list[tuple[int, int]]:
    words = [word for label, _ in grid.lines for word in label.split()]
    return spans(grid, width - 2 - min(max(map(len, words)), width // 3))  # as labels wrap


def _rich_table(grid: Grid, first: int, last: int) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(grid.heads[0], overflow="fold")
    for head in grid.heads[1:][first:last]:
        table.add_column(head, justify="right", no_wrap=True)
    for label, cells in grid.lines:
        if not any(cell.above for cell in cells[first:last]):
            continue
        shown = []
        for cell in cells[first:last]:
            above = Text(cell.above, style="bold" if cell.best else "")
            shown.append(above.append(f"\n{cell.below}" if cell.below else "", style="not bold"))
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


def json_text(table: list[Row], further: dict[str, list[Row]]) -> str:
    """An object of all tables: the rows as "rows", each other by its name."""
    return json.dumps({"rows": table, **further}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
