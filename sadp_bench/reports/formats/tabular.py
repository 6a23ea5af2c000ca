"""The parts of a LaTeX table: escaped text, floats, and the number of letters that fit on a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "±": r"$\pm$", "×": r"$\times$", "≥": r"$\geq$",
    "≤": r"$\leq$", "·": r"$\cdot$", "–": "--", "†": r"\dag{}", "²": "$^2$", "µ": r"$\mu$", "ε": r"$\varepsilon$",
    "−": "$-$",
}  # fmt: skip
# Letters on a line of 5.5 in, the text width of NeurIPS, in Computer Modern at 10 pt.
LINE = {r"\small": 83, r"\footnotesize": 96, r"\scriptsize": 107}


def escaped(text: str) -> str:
    """Returns the text with LaTeX's special characters escaped; a hyphen before a number becomes a minus."""
    words = "".join(ESCAPES.get(letter, letter) for letter in text.replace("\n", " "))
    words = re.sub(r"(?<![\w.)])-(?= ?\d)", "$-$", words)
    return re.sub(r"(?<=\d) \\%", r"\\,\\%", words)


def one_line(text: str) -> str:
    """Returns the text without line breaks, for a comment."""
    return " ".join(text.split())


def comments(notes: Iterable[str]) -> str:
    """Returns notes as comments, with each note's command on a line of its own."""
    lines = []
    for note in notes:
        text, command, words = note.partition("; make it: `")
        lines.append(f"% {one_line(text)}{'.' if command else ''}\n")
        lines += [f"% make it: {one_line(words.rstrip('`'))}\n"] if command else []
    return "".join(lines)


def row(cells: Iterable[str]) -> str:
    """Returns the source of a line of cells."""
    return f"{' & '.join(cells)} \\\\"


def float_of(caption: str, size: str, tabulars: Sequence[str], notes: Sequence[str] = (), label: str = "") -> str:
    """Returns a table environment.

    Args:
        caption: The caption, LaTeX source.
        size: The LaTeX command of the letter size.
        tabulars: The tabular environments, one below the other.
        notes: Lines below them.
        label: The label for references in the text; "" for none.
    """
    named = rf"\label{{{label}}}" if label else ""
    head = [r"\begin{table}[htbp]", r"\centering", rf"\caption{{{caption}}}{named}"]
    style = rf"\par\medskip{size}\setlength{{\tabcolsep}}{{4pt}}"
    return "\n".join([*head, style, "\n\\par\\medskip\n".join(tabulars), *notes, r"\end{table}", ""])
