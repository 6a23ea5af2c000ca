"""Records in; tables and plots out. Pure functions of records: nothing here trains, and nothing imports torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable
from sadp_bench.records.record import Failure, Record
from sadp_bench.report import formats, latex
from sadp_bench.report.further import further
from sadp_bench.report.ranks import rank_sheet, why_no_ranks
from sadp_bench.report.sheets import sheets
from sadp_bench.report.tables import Row, percent, rows

FORMATS = ("text", "markdown", "latex", "csv", "json", "html")


def render(
    records: Iterable[Record],
    problems: Sequence[str] = (),
    format: str = "text",
    *,
    failures: Iterable[Failure] = (),
    margin_points: float = 0.5,
    width: int = 80,
    styled: bool = False,
    images: Callable[[Record], Any] | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """The report as one string that ends in a newline.

    remarks: what whoever keeps the records says of them (`store.read_notes`); told by all but csv.
    problems: the files left out (`store.Found.problems`), which text, Markdown and LaTeX count.
    failures: the runs that ended without a record; told, and in no number.
    margin_points: of accuracy; a run that surely loses no more is "lossless".
    width: of the terminal in columns, and styled: whether to emit ANSI codes (text only).
    images: those that a record was trained on, for the pictures of the page (HTML only), see `pictures.at_hand`.
    Raises BadInput where there is nothing to report.
    """
    if format not in FORMATS:
        raise BadInput(f"--format is one of {', '.join(FORMATS)}, not '{format}'")
    if not 0 < margin_points < 100:
        raise BadInput(f"--margin is a number of points above 0 and below 100, not {margin_points:g}")
    records, failures = list(records), list(failures)
    table = rows(records, failures, margin=margin_points / 100)
    if not any(row["n"] for row in table):
        raise BadInput(_nothing(table, problems))
    if format == "csv":
        return formats.csv_text(table)
    if format == "json":
        return formats.json_text(table, further(records).to_json() | {"remarks": list(remarks)})
    if format == "html":
        from sadp_bench.report.page import page

        return page(records, table, problems, failures, images, remarks)
    ranks, found = rank_sheet(table), further(records)
    groups = [list(rows) for _, rows in itertools.groupby(table, key=lambda row: row["group"])]
    by_ratio = [row for rows in groups if not found.tells(rows) for row in rows]
    shown = [*sheets(by_ratio), *found.sheets(), *([ranks] if ranks else [])]
    left_out = f"Left out, as unreadable or a run's second record: {len(problems)} of the files." if problems else None
    lines = [line for line in (*remarks, why_no_ranks(table) if ranks is None else None, left_out) if line]
    if format == "latex":
        return latex.latex(shown, lines)
    if format == "markdown":
        return formats.markdown(shown, lines, by_ratio=bool(by_ratio))
    return formats.text(shown, lines, width=width, styled=styled, by_ratio=bool(by_ratio))


def stale(path: Path, text: str) -> str | None:
    """Why a file is not exactly this text, in one line; None where it is."""
    name = printable(str(path))
    try:
        there = path.read_bytes()
    except FileNotFoundError:
        return f"{name} is not there; make it: the same command without --check"
    except (OSError, ValueError) as error:
        raise BadInput(f"can't read {name}: {getattr(error, 'strerror', None) or error}") from None
    if there == text.encode():
        return None
    pairs = itertools.zip_longest(there.split(b"\n"), text.encode().split(b"\n"))
    line = next(number for number, (old, new) in enumerate(pairs, start=1) if old != new)
    return f"{name} is out of date, from line {line} on; make it anew: the same command without --check"


def _nothing(table: Sequence[Row], problems: Sequence[str]) -> str:
    """Why there is no table, in one line."""
    left_out = f" that can be read (left out: {len(problems)})" if problems else ""
    told = [f"{row['label']} {percent(row['ratio'])}, {why}" for row in table for why in row["failures"]]
    if told:
        return f"no records here{left_out}, as every run failed ({len(told)}): {'; '.join(told)}"
    return (
        f"no records here{left_out}; make some: `sadp-bench run --method full --ratio 0`, "
        "then `sadp-bench run --method sadp --ratio 0.3`"
    )
