"""The width, characters and colors that stdout can show. Help and lists must appear at once, so nothing imports Rich here."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

LEAST, MOST = 40, 120  # columns; longer lines are hard to read
BOLD, DIM, RED, GREEN, CYAN = 1, 2, 31, 32, 36  # codes of the terminal


def columns() -> int:
    """Returns the width of text: that of the terminal or $COLUMNS, within limits; 80 without either."""
    return min(MOST, max(LEAST, shutil.get_terminal_size().columns))


def styled(text: str, code: int) -> str:
    """Returns the text in a style if stdout is a terminal and the user allows colors (https://no-color.org)."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not text else f"\x1b[{code}m{text}\x1b[0m"


def shows(text: str) -> bool:
    """Returns whether stdout can show these characters."""
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
    """Returns the lines of a text after `first`, with an indent before each further line.

    Args:
        text: The text.
        first: The words before the first line. Where they are wider than the indent, they have a line of their own.
        indent: The indent in columns.
        width: The width of a whole line in columns.
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
