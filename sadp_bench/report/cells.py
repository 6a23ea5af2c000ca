"""The records behind each row: what figures of epochs, phases and visits are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sadp_bench.core.errors import BadInput
from sadp_bench.records.metrics import TIMED_TOGETHER
from sadp_bench.records.record import Record
from sadp_bench.records.visit_counts import unpack
from sadp_bench.report.axis_names import spec_of
from sadp_bench.report.tables import Row, percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Cell:
    """A row with its finished runs, by seed."""

    row: Row
    runs: list[Record]

    @property
    def name(self) -> str:
        return row_name(self.row)

    @property
    def timed(self) -> list[Record]:
        """The runs whose seconds count."""
        return [run for run in self.runs if not run.disturbed]

    @property
    def is_full(self) -> bool:
        return bool(self.row["method"] == "full")


def cells(own: Iterable[Row], records: Iterable[Record]) -> list[Cell]:
    """One for each row that has runs; own: rows of these records."""
    by_key = {record.spec.key: record for record in records}
    paired = [Cell(row, _runs(row, by_key)) for row in own]
    return [cell for cell in paired if cell.runs]


def _runs(row: Row, by_key: Mapping[str, Record]) -> list[Record]:
    specs = [spec_of(row, seed) for seed in row["seeds"]]
    if row["method"] == "full":  # under either protocol it is the run of equal epochs
        specs = [spec.reference() if spec.reference().key in by_key else spec for spec in specs]
    return [by_key[spec.key] for spec in specs if spec.key in by_key]


def by_ratio(own: Iterable[Cell]) -> dict[float, list[Cell]]:
    """The pruned cells of each ratio, rising."""
    found: dict[float, list[Cell]] = {}
    for cell in own:
        if not cell.is_full:
            found.setdefault(cell.row["ratio"], []).append(cell)
    return dict(sorted(found.items()))


def timed_together(own: Sequence[Row]) -> tuple[list[Row], str]:
    """The rows whose seconds may be compared, and a sentence that names those left out: disturbed, of other machines or
    versions, or with runs of several.

    What agrees is the environment of full, or, where no pruned row shares that, the one of most pruned rows.
    """
    calm = {row["label"] for row in own if not row["disturbed"]}
    void = dict.fromkeys(row_name(row) if row["label"] in calm else row["label"] for row in own if row["disturbed"])
    told = f"Left out, as their seconds were disturbed: {', '.join(void)}." if void else ""
    own = [row for row in own if not row["disturbed"]]
    places = [[row[f"environment.{name}"] for name in TIMED_TOGETHER] for row in own]
    whole = [all(len(values) == 1 for values in place) for place in places]
    pruned = [place for place, row, one in zip(places, own, whole, strict=True) if one and row["method"] != "full"]
    full = [place for place, row in zip(places, own, strict=True) if row["method"] == "full"]
    wanted = next((place for place in full if place in pruned), max(pruned, key=pruned.count, default=None))
    kept = [row for row, place in zip(own, places, strict=True) if place == wanted]
    strangers = [row_name(row) for row, place in zip(own, places, strict=True) if place != wanted]
    also = f"Left out, as timed in other environments: {', '.join(strangers)}." if strangers else ""
    return kept, " ".join(filter(None, [told, also]))


def row_name(row: Row) -> str:
    """'sadp 50 %', and 'full'."""
    return str(row["label"]) if row["method"] == "full" else f"{row['label']} {percent(row['ratio'])}"


Visits = dict[str, "NDArray[np.uint16]"]


def visits_of(records: Iterable[Record], tell: Callable[[str], None]) -> Visits:
    """By key, how often each example was trained on, of the records that say so; tells of those that can't be read."""
    import numpy as np

    found: Visits = {}
    for record in records:
        spec = record.spec
        if record.visits is None:
            continue
        try:
            if record.num_examples != spec.train_examples:
                raise BadInput(f"the record counts {record.num_examples:,} examples, its spec {spec.train_examples:,}")
            found[spec.key] = np.array(unpack(record.visits, record.num_examples), dtype=np.uint16)
        except BadInput as error:
            tell(f"no visits of {spec.method} {percent(spec.ratio)}, seed {spec.seed}: {error}")
    return found
