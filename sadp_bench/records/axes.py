"""Numbers of runs on the three axes (data, time, weights), derived from raw records.

Each run is compared with the plain run (full data, bptt, dense) of its seed:

theoretical speed-up = ceiling * time factor * weights factor     counted, not measured: saved multiplications alone
time factor          = 3 / (1 + 2 K / T)                          sltt-k: forward costs 1, backward 2; otherwise 1 (no heads)
weights factor       = products of all connections / live ones    by layer; dense hardware rewards cut channels alone
product              = product of the measured speed-ups of the runs that change a single axis
kept share           = speed-up / product                         1.0 = the axes multiply
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sadp_bench.records.comparison import paired, speedup_by_cpu, timing_mismatch
from sadp_bench.records.former import LATER
from sadp_bench.records.metrics import ceiling, charged_seconds, search_seconds
from sadp_bench.records.record import Record, is_number
from sadp_bench.records.spec import Spec

MAX_FACTOR = 1e12  # largest weights factor; no network has as many connections
ENOUGH_COSINE = 0.8  # cosine of SLTT's gradient with BPTT's; the paper's neuron has about 0.98
TIME_AXIS = ("backprop", "k")
WEIGHT_AXIS = ("sparsity", "density", "early_time", "sparsity_options")
PLAIN_AXES = {name: LATER[name] for name in (*TIME_AXIS, *WEIGHT_AXIS)}


def is_plain(spec: Spec) -> bool:
    """Returns whether time and weights are the defaults."""
    return all(getattr(spec, name) == value for name, value in PLAIN_AXES.items())


def time_factor(spec: Spec) -> float:
    """Returns the time axis's factor of the theoretical speed-up.

    `sltt` and local learning save only memory. The products of local learning's heads, a few per cent, are not counted.
    """
    return 3 / (1 + 2 * spec.k / spec.timesteps) if spec.backprop == "sltt-k" else 1.0


def weak_cosine(record: Record) -> float | None:
    """Returns the least cosine of SLTT's gradient with BPTT's, first or last, where it is below `ENOUGH_COSINE`."""
    known = [value for name in ("first", "last") if (value := record.gradient_cosine.get(name)) is not None]
    least = min(known, default=1.0)
    return least if least < ENOUGH_COSINE else None


def cosine_places(found: Mapping[str, Any]) -> str:
    """Returns 'least 0.170 in body.3, after the first epoch 0.512' for a record's `gradient_cosine`."""
    least = f"least {cosine_text(found.get('least'))} in {found['least_layer']}, " if found.get("least_layer") else ""
    return f"{least}after the first epoch {cosine_text(found.get('first'))}"


def cosine_text(value: float | None) -> str:
    """Returns '0.512'; '–' where a gradient is 0, which has no direction."""
    return "–" if value is None else f"{value:.3f}"


def weights_factor(record: Record) -> float | None:
    """Returns the weight axis's factor of the theoretical speed-up: products of all connections over those of live ones.

    The products of live connections are the mean over the visits of training, because they may change. It is None without
    a live connection, and for sparse records of an earlier version. Those have only the density, a share of weights, and
    layers differ in the products that they make with each weight.
    """
    if record.density == 1:
        return 1.0
    dense = record.operations.get("dense_products")
    rows = [(row["kept"], row.get("live_products")) for row in record.epochs]
    if not is_number(dense) or not all(is_number(live) for _, live in rows):
        return None
    live, whole = sum(kept * live for kept, live in rows), dense * sum(kept for kept, _ in rows)
    return whole / live if 0 < whole <= MAX_FACTOR * live else None


def theoretical_speedup(record: Record) -> float | None:
    """Returns ceiling * time factor * weights factor; None where the weights factor is None."""
    weights = weights_factor(record)
    return None if weights is None else ceiling(record) * time_factor(record.spec) * weights


def changed_axes(spec: Spec) -> list[Spec]:
    """Returns the runs that share one axis (data, time or weights) with this run and the others with the plain run."""
    plain = spec.plain()
    data = spec.reference() if spec.method == "full" else spec
    singles = [data.of_valid(**PLAIN_AXES)]
    if not is_plain(spec):
        singles += [plain.of_valid(**{name: getattr(spec, name) for name in axis}) for axis in (TIME_AXIS, WEIGHT_AXIS)]
    return [single for single in singles if single.key != plain.key]


@dataclass(frozen=True, slots=True)
class AxesComparison:
    """A run beside its paired plain run. Numbers are unrounded, and None where the records do not give them.

    Attributes:
        record: The run's record.
        plain: The record of the plain run.
        speedup: Speed-up against the plain run.
        cpu_speedup: Speed-up by CPU seconds.
        speedup_without_search: Speed-up without the seconds of a search for connections; None without a search.
        product: Product of the speed-ups of the single-axis runs, for combinations of two or more axes.
        missing: Single-axis runs that the product lacks.
        mismatch: Reasons why there is no speed-up, a phrase each.
    """

    record: Record
    plain: Record | None
    speedup: float | None
    cpu_speedup: float | None
    speedup_without_search: float | None
    product: float | None
    missing: tuple[Spec, ...]
    mismatch: tuple[str, ...]

    @property
    def spec(self) -> Spec:
        """The run's spec."""
        return self.record.spec

    @property
    def kept_share(self) -> float | None:
        """Returns speedup / product, for combinations of two or more axes."""
        return self.speedup / self.product if self.speedup is not None and self.product is not None else None


def against_plain(records: Iterable[Record]) -> list[AxesComparison]:
    """Returns every record beside its plain run, where the records have one."""
    by_key = {record.spec.key: record for record in records}
    known = {pair.spec.key: pair.record for pair in paired(by_key.values())}  # marked where they are disturbed
    return [_against_plain(record, known, by_key) for record in known.values()]


def _against_plain(record: Record, by_key: Mapping[str, Record], unmarked: Mapping[str, Record]) -> AxesComparison:
    plain = by_key.get(record.spec.plain().key)
    mismatch = tuple(timing_mismatch(record, plain)) if plain else ()
    speedup = without_search = product = None
    axes = changed_axes(record.spec)
    wanted = axes if len(axes) > 1 else []
    missing = tuple(single for single in wanted if single.key not in by_key)
    if plain and not mismatch:
        spent, searching = charged_seconds(record), search_seconds(record)
        speedup = charged_seconds(plain) / spent
        without_search = None if searching is None else charged_seconds(plain) / (spent - searching)
        if wanted and not missing:
            product = _product([by_key[single.key] for single in wanted], plain)
    cpu_speedup = speedup_by_cpu(unmarked[record.spec.key], unmarked.get(record.spec.plain().key))
    return AxesComparison(record, plain, speedup, cpu_speedup, without_search, product, missing, mismatch)


def _product(singles: Sequence[Record], plain: Record) -> float | None:
    """Returns the product of the speed-ups; None where a run's seconds can't be compared, or the product is no float."""
    if any(timing_mismatch(single, plain) for single in singles):
        return None
    product = math.prod(charged_seconds(plain) / charged_seconds(single) for single in singles)
    return product if 0 < product < math.inf else None
