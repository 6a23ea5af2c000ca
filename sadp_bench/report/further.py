"""What a report shows beside the tables by ratio, where its records hold more than bptt and dense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sadp_bench.records.record import Record
from sadp_bench.report.axes import axes_rows, points
from sadp_bench.report.axes_sheets import axes_sheets
from sadp_bench.report.axis_names import spec_of
from sadp_bench.report.claims import claim_rows, claim_sheets
from sadp_bench.report.memory import memory_rows, memory_sheets
from sadp_bench.report.search import search_rows, search_sheets
from sadp_bench.report.sheets import Sheet
from sadp_bench.report.tables import Row


@dataclass(frozen=True, slots=True)
class Further:
    """The rows of each table, flat and unrounded; all empty where every run is on bptt and dense."""

    axes: list[Row]
    memory: list[Row]
    search: list[Row]
    claims: list[Row]

    def __bool__(self) -> bool:
        return bool(self.axes)

    def tells(self, group: Sequence[Row]) -> bool:
        """Whether the table of the axes holds all that there is of a group of `tables.rows`: full data alone."""
        keys = {spec_of(row, seed).key for row in self.axes for seed in row["seeds"]}
        return all(
            row["method"] == "full" and not row["n_failed"] and spec_of(row, seed).reference().key in keys
            for row in group
            for seed in row["seeds"] or [0]
        )

    def sheets(self) -> list[Sheet]:
        return [
            *axes_sheets(self.axes),
            *memory_sheets(self.memory),
            *search_sheets(self.search),
            *claim_sheets(self.claims),
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def further(records: Iterable[Record]) -> Further:
    records = list(records)
    own = points(records)
    return Further(axes_rows(own), memory_rows(records), search_rows(own), claim_rows(own) if own else [])
