"""The tables of a report, one module each. A table is described once and read by every format."""

from typing import Any

from sadp_bench.core.text import percent
from sadp_bench.report.rows import rows

Row = Any

__all__ = ["Row", "percent", "rows"]
