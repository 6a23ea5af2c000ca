"""The report in LaTeX: a table environment for each table, ruled by booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

from sadp_bench.reports.contents import Contents
from sadp_bench.reports.formats.text import HOLM
from sadp_bench.reports.tables.table import Cell, Sheet, Table, spans

HEADER = r"""% Tables of sadp-bench. In the preamble: \usepackage{booktabs}
% pdflatex sets the letters of European languages; other names need xelatex or lualatex.
"""
ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "±": r"$\pm$", "×": r"$\times$", "≥": r"$\geq$", "·": r"$\cdot$",
    "–": "--", "†": r"\dag{}", "²": "$^2$", "µ": r"$\mu$",
}  # fmt: skip
LINE = {r"\small": 75, r"\footnotesize": 87, r"\scriptsize": 97}  # letters on a line of `article`, which is 345 pt wide
RESULTS = (
    r"Accuracy in \%, mean $\pm$ half-width of the 95\,\% $t$-interval, or {[}low, high{]} where 0 or 100\,\% cuts it; below "
    r"it measured speed-up over full / ceiling (what it would be if dropped examples cost nothing), for full its charged "
    "seconds. Best mean in bold, second best underlined."
)
PAIRED_LATEX = (
    r"Mean $\pm$ half-width of the 95\,\% $t$-interval, of speed-ups {[}low, high{]}, made on logarithms. Lossless: the "
    r"interval of the difference to full lies above $-$margin; worse: below it; else undecided; in brackets the smallest "
    r"difference that these seeds can decide, half of the interval's width. Time: charged seconds until "
    r"an evaluation first shows full's final accuracy $-$ 1 point (mean over the seeds that get there), and the share of "
    "what full takes."
)


def latex(contents: Contents) -> str:
    """Returns a table environment for each table; the notes of a sheet stand below its first.

    What belongs to no table is a comment.
    """
    correction = [f"% {_one_line(HOLM)}"] if contents.correction == "holm" else []
    tables = [table for sheet in contents.sheets for table in _tables(sheet)]
    lines = [*correction, *(f"% {_one_line(line)}" for line in contents.closing)]
    return "\n".join([HEADER, *tables, *lines]).rstrip("\n") + "\n"


def escaped(text: str) -> str:
    """Returns the text with LaTeX's special characters escaped; a hyphen before a number becomes a minus."""
    words = "".join(ESCAPES.get(letter, letter) for letter in text.replace("\n", " "))
    words = re.sub(r"(?<![\w.)])-(?= ?\d)", "$-$", words)
    return re.sub(r"(?<=\d) \\%", r"\\,\\%", words)


def _tables(sheet: Sheet) -> list[str]:
    """Returns the table environments of a sheet. The number of runs that most cells share stands in the caption."""
    first, *further = sheet.tables
    runs = sorted({cell.runs for _, cells in first.lines for cell in cells if cell.runs})
    by_ratio = sheet.kind == "ratio" and bool(runs)
    usual = runs[0] if by_ratio and len(runs) == 1 else ""
    parts = [note.partition("; make it: `") for note in sheet.notes]
    notes = [r"\par\smallskip\raggedright\footnotesize", *(escaped(note) + "." * bool(cut) for note, cut, _ in parts)]
    # A command is too long for a line on paper, so it becomes a comment.
    commands = "".join(f"% make it: {_one_line(command.rstrip('`'))}\n" for _, _, command in parts if command)
    title = f"{escaped(sheet.title)}."
    if not by_ratio:
        return [commands + _table(title, first, usual, notes, apart=sheet.long)]
    seeds = f"$n = {usual}$ seed{'s' * (usual != '1')}" if usual else "Number of seeds in brackets"
    others = ", unless in brackets" if usual else ""
    return [
        commands + _table(f"{title} {RESULTS} {seeds}.", first, usual, notes),
        *(
            _table(f"{title} {escaped(table.caption)}. {PAIRED_LATEX} {seeds}{others}.", table, usual, [], apart=True)
            for table in further
        ),
    ]


def _table(caption: str, table: Table, usual: str, notes: list[str], *, apart: bool = False) -> str:
    """Returns the environments of one table.

    A table that is too wide in every size continues below, or with `apart` in another environment.
    """
    sizes = [r"\footnotesize", r"\scriptsize"] if _inline(table) else [r"\small"]
    table = _laid_out(table, usual)
    beside = _beside(table)
    fits = [size for size in sizes if len(spans(table, LINE[size] - beside)) == 1]
    size = fits[0] if fits else sizes[-1]
    tabulars = [_tabular(table, first, last) for first, last in spans(table, LINE[size] - beside)]
    if not apart:
        return _float(caption, size, tabulars, notes)
    titles = [caption, *[f"{caption} Continued."] * (len(tabulars) - 1)]
    below = [notes, *[[]] * (len(tabulars) - 1)]
    return "\n".join(_float(t, size, [one], n) for t, one, n in zip(titles, tabulars, below, strict=True))


def _float(caption: str, size: str, tabulars: list[str], notes: list[str]) -> str:
    head = [r"\begin{table}[htbp]", r"\centering", rf"\caption{{{caption}}}"]
    style = rf"\par\medskip{size}\setlength{{\tabcolsep}}{{4pt}}"
    return "\n".join([*head, style, "\n\\par\\medskip\n".join(tabulars), *notes, r"\end{table}", ""])


def _beside(table: Table) -> int:
    """Returns the letters that the labels take; where cells have two lines, a label fills both."""
    high = any(cell.below for _, cells in table.lines for cell in cells)
    return max(len(part) for label, _ in table.lines for part in (label.split("\n") if high else [label]))


def _inline(table: Table) -> bool:
    return any(cell.inline for _, cells in table.lines for cell in cells)


def _laid_out(table: Table, usual: str) -> Table:
    """Returns the table without the usual number of runs, and in one line where its cells have such a form."""
    inline, lines = _inline(table), []
    for label, cells in table.lines:
        shown = []
        for cell in cells:
            text, below = (cell.inline or cell.text, "") if inline else (cell.text, cell.below)
            runs = "" if cell.runs == usual else cell.runs
            shown.append(replace(cell, text=text.replace("±", "± "), below=below, runs=runs))
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
    return [*([_row(above)] if any(above) else []), _row(escaped(lower) for _, _, lower in parts)]


def _line(name: str, ratio: str, cells: list[Cell]) -> list[str]:
    if not any(cell.below for cell in cells):
        return [_row([escaped(f"{name} {ratio}".rstrip()), *map(_cell, cells)])]
    return [_row([escaped(name), *map(_cell, cells)]), _row(map(_small, [ratio, *(cell.below for cell in cells)]))]


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _small(text: str) -> str:
    times = re.sub(r"(?<=\d)x$", r"$\\times$", escaped(text))
    return rf"\footnotesize {times}" if text else ""


def _cell(cell: Cell) -> str:
    value = escaped(cell.text)
    value = rf"\textbf{{{value}}}" if cell.best else rf"\underline{{{value}}}" if cell.second else value
    return f"{value} ({escaped(cell.runs)})" if cell.runs else value


def _one_line(text: str) -> str:
    return " ".join(text.split())
