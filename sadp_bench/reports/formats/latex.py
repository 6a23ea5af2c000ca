"""The report in LaTeX: a table environment for each table, ruled by booktabs."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

from sadp_bench.reports.contents import Contents
from sadp_bench.reports.formats.paper_tables import Group, differences, results
from sadp_bench.reports.formats.tabular import LINE, comments, escaped, float_of, one_line, row
from sadp_bench.reports.formats.text import HOLM
from sadp_bench.reports.paper import Paper
from sadp_bench.reports.tables.table import Cell, Sheet, Table, spans

HEADER = r"""% Tables of sadp-bench, for a text width of 5.5 in or more. In the preamble: \usepackage{booktabs}
% pdflatex sets the letters of European languages; other names need xelatex or lualatex.
"""
PROVENANCE = (
    "Measured on",
    "Warning",
    "Failed",
    "No speed-up",
)  # beginnings of notes that are comments


def latex(contents: Contents, paper: Paper) -> str:
    """Returns a table environment for each table.

    The captions of tables by ratio explain the cells. The notes on these tables become comments. Notes of other sheets stand
    below their first table. Lines that belong to no table become comments.

    Args:
        contents: The report.
        paper: The author's choices.
    """
    correction = [f"% {one_line(HOLM)}"] if contents.correction == "holm" else []
    paper.check(own for rows in contents.groups for own in rows)
    by_title = {rows[0].group: rows for rows in contents.groups}
    labels = {title: f"{paper.label}{f'-{number}' if number > 1 else ''}" for number, title in enumerate(by_title, 1)}
    tables = []
    for sheet in contents.sheets:
        if sheet.kind == "ratio":
            title = sheet.group
            tables += _by_ratio(sheet, Group(title, paper.shown(by_title[title]), paper, labels[title]))
        else:
            tables += _tables(sheet)
    lines = [*correction, *(f"% {one_line(line)}" for line in contents.closing)]
    return "\n".join([HEADER, *tables, *lines]).rstrip("\n") + "\n"


def _by_ratio(sheet: Sheet, group: Group) -> list[str]:
    """Returns the tables of a group by ratio, after the notes on it as comments."""
    tables = [table for table in (results(group), differences(group)) if table]
    return [comments(sheet.notes) + tables[0], *tables[1:]] if tables else []


def _tables(sheet: Sheet) -> list[str]:
    """Returns the table environments of a sheet. A table that is too wide in every size continues in another one."""
    first, *further = sheet.tables
    # Commands are too long for a printed line, and provenance is not part of a table: these notes become comments.
    printed = [note for note in sheet.notes if not note.startswith(PROVENANCE) and "`" not in note]
    unprinted = comments(note for note in sheet.notes if note not in printed)
    notes = [r"\par\smallskip\raggedright\footnotesize", *map(escaped, printed)] if printed else []
    title = f"{escaped(sheet.title)}."
    below = [_table(f"{title} {escaped(table.caption)}", table, [], apart=True) for table in further]
    return [unprinted + _table(title, first, notes, apart=sheet.long), *below]


def _table(caption: str, table: Table, notes: list[str], *, apart: bool = False) -> str:
    """Returns the environments of one table.

    A table that is too wide in every size continues below, or with `apart` in another environment.
    """
    sizes = [r"\footnotesize", r"\scriptsize"] if _inline(table) else [r"\small"]
    table = _laid_out(table)
    beside = _beside(table)
    fits = [size for size in sizes if len(spans(table, LINE[size] - beside)) == 1]
    size = fits[0] if fits else sizes[-1]
    tabulars = [_tabular(table, first, last) for first, last in spans(table, LINE[size] - beside)]
    if not apart:
        return float_of(caption, size, tabulars, notes)
    titles = [caption, *[f"{caption} Continued."] * (len(tabulars) - 1)]
    below = [notes, *[[]] * (len(tabulars) - 1)]
    return "\n".join(float_of(t, size, [one], n) for t, one, n in zip(titles, tabulars, below, strict=True))


def _beside(table: Table) -> int:
    """Returns the width of the labels in letters. A label takes two lines where cells have two."""
    high = any(cell.below for _, cells in table.lines for cell in cells)
    return max(len(part) for label, _ in table.lines for part in (label.split("\n") if high else [label]))


def _inline(table: Table) -> bool:
    return any(cell.inline for _, cells in table.lines for cell in cells)


def _laid_out(table: Table) -> Table:
    """Returns the table with each cell in one line, where its cells have such a form."""
    inline, lines = _inline(table), []
    for label, cells in table.lines:
        shown = []
        for cell in cells:
            text, below = (cell.inline or cell.text, "") if inline else (cell.text, cell.below)
            shown.append(replace(cell, text=text.replace("±", "± "), below=below))
        lines.append((label, shown))
    return Table(table.heads, lines)


def _tabular(table: Table, first: int, last: int) -> str:
    """Returns columns `first` to `last`, with space between lines of two lines and between methods."""
    shown = [(label, cells[first:last]) for label, cells in table.lines if any(c.above for c in cells[first:last])]
    high = any(cell.below for _, cells in shown for cell in cells)
    body: list[str] = []
    for (before, _), (label, cells) in pairwise([("", []), *shown]):
        name, _, ratio = label.partition("\n")
        apart = high or (ratio and name != before.partition("\n")[0])
        body += [r"\addlinespace"] * bool(body and apart) + _line(name, ratio, cells)
    heads = _heads(table.heads[:1] + table.heads[1:][first:last])
    start = rf"\begin{{tabular}}{{@{{}}l{'r' * (last - first)}@{{}}}}"
    return "\n".join([start, r"\toprule", *heads, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def _heads(heads: list[str]) -> list[str]:
    """Returns the head as one or two lines; the lower line is full."""
    parts = [head.rpartition("\n") for head in heads]
    above = [escaped(upper) for upper, _, _ in parts]
    return [*([row(above)] if any(above) else []), row(escaped(lower) for _, _, lower in parts)]


def _line(name: str, ratio: str, cells: list[Cell]) -> list[str]:
    if not any(cell.below for cell in cells):
        return [row([escaped(f"{name} {ratio}".rstrip()), *map(_cell, cells)])]
    return [row([escaped(name), *map(_cell, cells)]), row(map(_small, [ratio, *(cell.below for cell in cells)]))]


def _small(text: str) -> str:
    times = re.sub(r"(?<=\d)x$", r"$\\times$", escaped(text))
    return rf"\footnotesize {times}" if text else ""


def _cell(cell: Cell) -> str:
    value = escaped(cell.text)
    value = rf"\textbf{{{value}}}" if cell.best else rf"\underline{{{value}}}" if cell.second else value
    return f"{value} ({escaped(cell.runs)})" if cell.runs else value
