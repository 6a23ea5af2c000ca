"""Records in; tables and plots out. Pure functions of records: nothing here trains, and nothing imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sadp_bench.errors import BadInput
from sadp_bench.record import Failure, Record
from sadp_bench.report import formats
from sadp_bench.report.tables import Row, rows

FORMATS = ("text", "markdown", "csv", "json")


def render(
    records: Iterable[Record],
    problems: Sequence[str] = (),
    format: str = "text",
    *,
    failures: Iterable[Failure] = (),
    width: int = 80,
    styled: bool = False,
) -> str:
    """The report as one string that ends in a newline.

    problems: the files left out (`store.Found.problems`), which text and Markdown count.
    failures: the runs that ended without a record; told, and in no number.
    width: of the terminal in columns, and styled: whether to emit ANSI codes (text only).
    Raises BadInput where there is nothing to report.
    """
    if format not in FORMATS:
        raise BadInput(f"--format is one of {', '.join(FORMATS)}, not '{format}'")
    table = rows(records, failures)
    if not any(row["n"] for row in table):
        raise BadInput(_nothing(table, problems))
    if format == "csv":
        return formats.csv_text(table)
    if format == "json":
        return formats.json_text(table)
    sheets = formats.sheets(table)
    left_out = f"Left out, because unreadable: {len(problems)} of the files." if problems else ""
    if format == "markdown":
        return formats.markdown(sheets, left_out)
    return formats.text(sheets, left_out, width=width, styled=styled)


def _nothing(table: Sequence[Row], problems: Sequence[str]) -> str:
    """Why there is no table, in one line."""
    left_out = f" that can be read (left out: {len(problems)})" if problems else ""
    told = [f"{row['label']} {formats.percent(row['ratio'])}, {why}" for row in table for why in row["failures"]]
    if told:
        return f"no records here{left_out}, as every run failed ({len(told)}): {'; '.join(told)}"
    return (
        f"no records here{left_out}; make some: `sadp-bench run --method full --ratio 0`, "
        "then `sadp-bench run --method sadp --ratio 0.3`"
    )
