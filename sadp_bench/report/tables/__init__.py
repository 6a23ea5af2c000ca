"""The tables of a report, one module each. A table is described once and read by every format."""

from sadp_bench.core.text import percent
from sadp_bench.report.rows import RatioRow as Row
from sadp_bench.report.rows import rows

__all__ = ["Row", "percent", "rows"]
