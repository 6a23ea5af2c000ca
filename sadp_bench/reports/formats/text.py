"""Tables as text for people: Markdown, and text for a terminal."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable
from typing import Any

from sadp_bench.reports.contents import Contents
from sadp_bench.reports.tables.table import Cell, Sheet, Table, spans
from sadp_bench.reports.tables.verdicts import EXPLAINED

LEGEND = (
    "Cells: accuracy in %, mean ± half-width of the 95 % t-interval, or [low, high] where 0 or 100 % cuts it (number of "
    "runs). Below it: measured speed-up over full / ceiling, the speed-up if dropped examples cost nothing (number of timed "
    "runs, where some were not). For full: charged seconds."
)
BOLD = " Bold: the best mean accuracy at a ratio, over the seeds that its methods share."
PAIRED = (
    "Paired differences: accuracy minus that of full, or of random at the same ratio, seed by seed (seeds in brackets). "
    "Verdict on the difference to full: lossless if the interval lies above -margin, worse if below it, else undecided. "
    "Verdict on the difference to random: better or worse if the interval excludes 0; level if it contains 0 and lies "
    "within ±margin; else undecided. "
    "Below the verdict: the smallest difference that these seeds can decide, half of the interval's width. "
    "Speed-up: measured over full, seed by seed, for seeds with equal timing conditions. Its interval is computed on "
    "logarithms. "
    "Time to full's - 1: charged seconds until an evaluation first shows full's final accuracy minus 1 point. It is the "
    "mean over the seeds that reach it (3/5: three of five). Below it: its share of full's time."
)
HOLM = (
    "Holm's p: the p-value of a paired, two-sided t-test, adjusted by Holm's method over all rows of a table. The verdict "
    "against full tests a difference of -margin, the verdict against random a difference of 0. A verdict stands where its "
    "p-value is at most 0.05; level always stands. Intervals are not adjusted."
)
UNCORRECTED = (
    "Verdicts are not corrected for their number, so a few of many will be wrong. --correct holm corrects them."
)
VERDICT_STYLES = {"lossless": "green", "better": "green", "worse": "red", "level": "cyan", "undecided": "yellow"}
MIN_WIDTH = 20  # columns; some systems report 0 for a pipe, and nothing would be shown


def _explained(contents: Contents, bold: bool) -> list[str]:
    """Returns the explanations of the tables by ratio, where there are any."""
    by_ratio = [sheet for sheet in contents.sheets if sheet.kind == "ratio"]
    paired = any(len(sheet.tables) > 1 for sheet in by_ratio)
    corrections = [HOLM if contents.correction == "holm" else UNCORRECTED] if paired or contents.summary else []
    if contents.summary and contents.sheets:
        return [EXPLAINED.format(margin=f"{100 * contents.margin:g}"), *corrections]
    return [*([LEGEND + (BOLD if bold else "")] if by_ratio else []), *([PAIRED] if paired else []), *corrections]


def markdown(contents: Contents) -> str:
    """Returns the report in Markdown."""
    blocks = []
    for sheet in contents.sheets:
        blocks.append(f"### {sheet.title}")
        blocks += [_markdown_list(sheet.findings)] if sheet.findings else []
        for table in sheet.tables:
            blocks += [*filter(None, [table.caption and f"{table.caption}:"]), _markdown_table(table)]
        blocks += [_markdown_list(sheet.notes)] if sheet.notes else []
    return "\n\n".join([*blocks, *_explained(contents, bold=True), *contents.closing]) + "\n"


def _markdown_list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown_table(table: Table) -> str:
    rule = ["---"] + ["---:"] * (len(table.heads) - 1)
    lines = [[label, *map(_markdown_cell, cells)] for label, cells in table.lines]
    return "\n".join(map(_markdown_line, [table.heads, rule, *lines]))


def _markdown_line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"


def _markdown_cell(cell: Cell) -> str:
    above = f"**{cell.above}**" if cell.best else cell.above
    return "<br>".join(filter(None, [above, cell.below]))


def text(contents: Contents, width: int = 80, styled: bool = False) -> str:
    """Returns the report for a terminal. `width` and `styled` are those of `sheets_text`."""
    return sheets_text(contents.sheets, [*_explained(contents, bold=styled), *contents.closing], width, styled)


def sheets_text(sheets: Iterable[Sheet], closing: Iterable[str], width: int = 80, styled: bool = False) -> str:
    """Returns sheets for a terminal. A table that is too wide continues below with its further columns.

    Args:
        sheets: The sheets.
        closing: The lines below them.
        width: Columns of the terminal.
        styled: Whether to emit ANSI codes.
    """
    from rich.console import Console
    from rich.text import Text

    out, width = io.StringIO(), max(width, MIN_WIDTH)
    console = Console(file=out, width=width, force_terminal=styled, color_system="standard" if styled else None)
    for sheet in sheets:
        console.print(Text(sheet.title, style="bold"))
        for sentence in sheet.findings:
            console.print(Text(_item(sentence, width)))
        for table in sheet.tables:
            if table.caption:
                console.print(Text(table.caption))
            for first, last in _spans(table, width):
                console.print(_rich_table(table, first, last))
        for note in sheet.notes:
            style = "yellow" if note.startswith(("Warning", "Failed")) else ""
            # The terminal wraps the line of a command, so that it can be copied in one piece.
            console.print(Text(note, style=style), soft_wrap="`" in note)
        console.print()
    for line in closing:
        console.print(Text(line))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _spans(table: Table, width: int) -> list[tuple[int, int]]:
    words = [word for label, _ in table.lines for word in label.split()]
    return spans(table, width - 2 - min(max(map(len, words)), width // 3))  # as labels wrap


def _rich_table(table: Table, first: int, last: int) -> Any:
    import rich.table
    from rich import box
    from rich.text import Text

    found = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    found.add_column(table.heads[0], overflow="fold")
    for head in table.heads[1:][first:last]:
        found.add_column(head, justify="right", no_wrap=True)
    for label, cells in table.lines:
        if not any(cell.above for cell in cells[first:last]):
            continue
        shown = []
        for cell in cells[first:last]:
            above = _words(cell.above, "bold" if cell.best else "")
            shown.append(above.append("\n").append_text(_words(cell.below, "not bold")) if cell.below else above)
        found.add_row(Text(label), *shown)
    return found


def _item(sentence: str, width: int) -> str:
    """Returns a list item, wrapped to the width. A number and its % stay on one line."""
    lines = textwrap.fill(sentence.replace(" %", "\xa0%"), width, initial_indent="- ", subsequent_indent="  ")
    return lines.replace("\xa0", " ")


def _words(text: str, style: str) -> Any:
    """Returns a line of a cell for a terminal, in the color of the verdict at its start."""
    from rich.text import Text

    return Text(text, style=" ".join(filter(None, [style, VERDICT_STYLES.get(text.partition(" ")[0], "")])))
