"""Rows for programs: a pandas frame, CSV and JSON, unrounded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sadp_bench.reports.contents import Contents
from sadp_bench.reports.rows import Row

if TYPE_CHECKING:
    import pandas

FORMULA = tuple(
    "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
)  # first characters of formulas in spreadsheets; the last four are wide


def frame(rows: Iterable[Row]) -> pandas.DataFrame:
    """Returns a frame with a line for each row and the union of their columns. Missing numbers are NaN, lists stay lists."""
    import pandas

    return pandas.DataFrame([row.columns() for row in rows])


def csv(contents: Contents) -> str:
    """Returns the rows by ratio as CSV. A missing number is an empty field, and the values of a list are joined by `; `.

    A text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    import pandas

    tables = [{inert(name): inert(_joined(value)) for name, value in row.columns().items()} for row in contents.rows]
    names = dict.fromkeys(name for table in tables for name in table)
    # As objects, because pandas would write a whole number beside a missing one as a decimal.
    columns = {name: pandas.Series([table.get(name) for table in tables], dtype=object) for name in names}
    return str(pandas.DataFrame(columns).to_csv(index=False, lineterminator="\n"))


def inert(value: Any) -> Any:
    """Returns a cell that no spreadsheet runs: a text that begins like a formula has an apostrophe before it.

    Source: OWASP, "CSV Injection". A number keeps its minus, even as text.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
        return value
    except ValueError:
        return f"'{value}"


def _joined(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value


def json_text(contents: Contents) -> str:
    """Returns one object with the rows of each table and the remarks. A missing number is null."""
    data = {**contents.columns(), "remarks": list(contents.remarks)}
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
