"""Rows as figures of epochs, phases and visits need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import percent
from sadp_bench.records.metrics import TIMED_TOGETHER
from sadp_bench.records.record import Record
from sadp_bench.records.visit_counts import unpack
from sadp_bench.report.rows import RatioRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Cell = RatioRow


def cells(own: Iterable[RatioRow], records: Iterable[Record]) -> list[RatioRow]:
    """Returns the rows that have runs."""
    return [row for row in own if row.n]


def by_ratio(own: Iterable[RatioRow]) -> dict[float, list[RatioRow]]:
    """Returns the pruned rows of each ratio, rising."""
    found: dict[float, list[RatioRow]] = {}
    for row in own:
        if not row.is_full:
            found.setdefault(row.ratio, []).append(row)
    return dict(sorted(found.items()))


def timed_together(rows: Sequence[RatioRow]) -> tuple[list[RatioRow], str]:
    """Returns the rows whose seconds may be compared, and a sentence that names those left out.

    Left out are rows that were disturbed, and those of other machines or versions or with runs of several. The
    environment is that of full, or, where no pruned row shares it, that of most pruned rows.
    """
    calm = {row.label for row in rows if not row.disturbed}
    disturbed = dict.fromkeys(row_name(row) if row.label in calm else row.label for row in rows if row.disturbed)
    told = f"Left out, as their seconds were disturbed: {', '.join(disturbed)}." if disturbed else ""
    rows = [row for row in rows if not row.disturbed]
    places = [[row.environment(name) for name in TIMED_TOGETHER] for row in rows]
    whole = [all(len(values) == 1 for values in place) for place in places]
    pruned = [place for place, row, alike in zip(places, rows, whole, strict=True) if alike and not row.is_full]
    full = [place for place, row in zip(places, rows, strict=True) if row.is_full]
    wanted = next((place for place in full if place in pruned), max(pruned, key=pruned.count, default=None))
    kept = [row for row, place in zip(rows, places, strict=True) if place == wanted]
    others = [row_name(row) for row, place in zip(rows, places, strict=True) if place != wanted]
    also = f"Left out, as timed in other environments: {', '.join(others)}." if others else ""
    return kept, " ".join(filter(None, [told, also]))


def row_name(row: RatioRow) -> str:
    """Returns 'sadp 50 %', and 'full'."""
    return row.label if row.is_full else row.name


Visits = dict[str, "NDArray[np.uint16]"]


def visits_of(records: Iterable[Record], tell: Callable[[str], None]) -> Visits:
    """Returns how often each example was trained on, by key, of the records that contain it.

    Args:
        records: The records.
        tell: Is called with the reason why a record's visits are left out.
    """
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
