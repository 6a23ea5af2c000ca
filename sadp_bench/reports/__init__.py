"""Reports: tables and plots from records. Nothing here trains, and the tables import no PyTorch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import read_bytes
from sadp_bench.core.text import printable
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.trials import Searches
from sadp_bench.reports.contents import Contents
from sadp_bench.reports.grouping import NO_SEARCHES
from sadp_bench.reports.paper import Paper

if TYPE_CHECKING:
    import pandas

REPORT_BYTES = 1 << 30  # bytes of a report; a page contains its pictures
FORMATS = ("text", "markdown", "latex", "csv", "json", "html")
COMPARED = ("text", "markdown", "latex")  # formats of the table of one method against every other
SUMMARISED = ("text", "markdown")  # formats of verdicts and findings alone


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
    searches: Searches = NO_SEARCHES,
    correction: str = "none",
    compare: str = "",
    summary: bool = False,
    again: str = "",
    doing: Callable[[str], None] = lambda what: None,
    paper: Paper | None = None,
) -> str:
    """Returns the report as one string that ends in a newline.

    Args:
        records: The finished runs.
        problems: The files left out (`store.Found.problems`).
        format: One of FORMATS.
        failures: The runs that ended without a record. They are counted, and enter no mean.
        margin_points: Points of accuracy that a lossless method may lose.
        width: Columns of the terminal (text only).
        styled: Whether to emit ANSI codes (text only).
        images: Opens the training images of a record's run, for the page's pictures (HTML only).
        remarks: Remarks about the folders of the records (`store.read_notes`); every format but CSV shows them.
        searches: The searches that settings of the runs come from (`trials.sorted_out`).
        correction: The correction of the verdicts for their number, "none" or "holm" (`corrections.corrected`).
        compare: A method whose comparisons with every other replace the usual tables; "" for the usual tables.
        summary: Whether to show verdicts and findings alone.
        again: The command that makes this report (HTML only).
        doing: Is called with a line about each slow step.
        paper: An author's choices (LaTeX only).

    Raises:
        BadInput: There is nothing to report, or an argument is out of range.
    """
    if format not in FORMATS:
        raise BadInput(f"--format is one of {', '.join(FORMATS)}, not '{format}'")
    if not 0 < margin_points < 100:
        raise BadInput(f"--margin is a number of points above 0 and below 100, not {margin_points:g}")
    if compare and format not in COMPARED:
        raise BadInput(f"--compare is for --format {', '.join(COMPARED)}, not {format}")
    if summary and (format not in SUMMARISED or compare):
        raise BadInput(f"--summary is for --format {' and '.join(SUMMARISED)}, without --compare")
    if paper is not None and format != "latex":
        raise BadInput(
            f"--caption, --label, --names, --methods, --cells and --spread are for --format latex, not {format}"
        )
    doing("computing the tables")
    contents = Contents(
        list(records),
        list(failures),
        problems,
        remarks,
        margin_points / 100,
        searches,
        correction,
        compare,
        summary,
        again,
    )
    if not any(row.n for row in contents.rows):
        raise BadInput(_nothing(contents))
    if format in ("csv", "json"):
        from sadp_bench.reports.formats import data

        return data.csv(contents) if format == "csv" else data.json_text(contents)
    if format == "html":
        from sadp_bench.reports.formats.html import page

        return page(contents, images, doing)
    if format == "latex":
        from sadp_bench.reports.formats.latex import latex

        return latex(contents, paper or Paper())
    from sadp_bench.reports.formats import text

    return text.markdown(contents) if format == "markdown" else text.text(contents, width, styled)


def frame(records: Iterable[Record], failures: Iterable[Failure] = ()) -> pandas.DataFrame:
    """Returns the table by method and ratio as a pandas frame, unrounded: the columns of `--format csv`.

    Args:
        records: The finished runs.
        failures: The runs that ended without a record.
    """
    from sadp_bench.reports.formats import data

    return data.frame(Contents(list(records), list(failures)).rows)


def stale(path: Path, text: str) -> str | None:
    """Returns how a file differs from this text, in one line; None where it is equal."""
    name = printable(str(path))
    if not os.path.lexists(path):
        return f"{name} does not exist; make it: the same command without --check"
    found = read_bytes(path, REPORT_BYTES)
    if found == text.encode():
        return None
    pairs = itertools.zip_longest(found.split(b"\n"), text.encode().split(b"\n"))
    line = next(number for number, (old, new) in enumerate(pairs, start=1) if old != new)
    return f"{name} is out of date, from line {line} on; make it anew: the same command without --check"


def _nothing(contents: Contents) -> str:
    """Returns why there is no table, in one line."""
    left_out = f" that can be read (left out: {len(contents.problems)})" if contents.problems else ""
    failed = [f"{row.name}, {reason}" for row in contents.rows for reason in row.failures]
    if failed:
        return f"no records here{left_out}, as every run failed ({len(failed)}): {'; '.join(failed)}"
    return (
        f"no records here{left_out}; make some: `sadp-bench run --method full --ratio 0`, "
        "then `sadp-bench run --method sadp --ratio 0.3`"
    )
