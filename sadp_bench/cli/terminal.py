"""What stdout can show: its width, its characters, its colours. It imports no Rich: help and lists must feel instant."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

LEAST, MOST = 40, 120  # columns; longer lines are hard to read
BOLD, DIM, RED, GREEN, CYAN = 1, 2, 31, 32, 36  # codes of the terminal


def columns() -> int:
    """Returns the width of text for a reader, by the terminal or $COLUMNS; 80 where there is neither."""
    return min(MOST, max(LEAST, shutil.get_terminal_size().columns))


def styled(text: str, code: int) -> str:
    """Returns the text in a style, where stdout is a terminal whose user allows it (https://no-color.org)."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not text else f"\x1b[{code}m{text}\x1b[0m"


def shows(text: str) -> bool:
    """Returns whether stdout has these characters."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def heading(title: str, width: int) -> str:
    """Returns a panel's first line, 'Output ─────', as wide as the text below it."""
    rule = ("─" if shows("─") else "-") * (width - len(title) - 1)
    return f"{styled(title, BOLD)} {styled(rule, DIM)}"


def hanging(text: str, first: str, indent: int, width: int) -> list[str]:
    """Returns the lines of a text behind `first`, each further one with an indent.

    Args:
        text: The text.
        first: Before its first line. Where it is wider than the indent, it has a line of its own.
        indent: Columns.
        width: Columns of a whole line.
    """
    alone = [first.rstrip()] if len(first) > indent else []
    start = " " * indent if alone else first.ljust(indent)
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return alone + (lines or ([] if alone else [first.rstrip()]))
