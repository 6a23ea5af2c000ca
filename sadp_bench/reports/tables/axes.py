"""The tables of the three axes: the savings of data, time and weights, together and alone."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sadp_bench.core.text import percent
from sadp_bench.records.axes import (
    PLAIN_AXES,
    AxesComparison,
    against_plain,
    changed_axes,
    is_plain,
    theoretical_speedup,
    time_factor,
    weights_factor,
)
from sadp_bench.records.fields import CHOICES
from sadp_bench.records.metrics import ceiling, charged_seconds
from sadp_bench.records.naming import Settings, method_labels
from sadp_bench.records.record import Record, is_number
from sadp_bench.records.spec import Spec
from sadp_bench.records.statistics import Estimate, Quantity
from sadp_bench.reports.naming import (
    command,
    is_axis,
    is_method_option,
    method_order,
    settings_order,
    time_name,
    titles,
    weights_name,
    without,
)
from sadp_bench.reports.rows import Row, costs, over_seeds
from sadp_bench.reports.tables.notes import (
    by_cpu,
    disturbed,
    measured_on,
    mismatched,
    missing,
    named,
    other_data,
    split_of,
    warnings,
)
from sadp_bench.reports.tables.table import MIB, Column, Sheet, interval_notes, table

SHORT = 6  # rows that fit on a printed page beside others
TIMED = (
    "Speed-up, measured: charged seconds of the plain run (full · bptt · dense) over the run's, by seed. Without search: the "
    "run's seconds do not include the search for connections.",
    "Speed-up, theoretical: counted, not measured. It is a product of three factors: the ceiling of the visits; "
    "3 / (1 + 2 K / T) for sltt-k; and products of all connections over those of the live ones, layer by layer. sltt saves "
    "memory, not operations. Dense hardware does not reward sparse weights.",
    "Product: the product of the measured speed-ups of the runs that change one axis alone. Kept: the speed-up of the "
    "combination as a share of it.",
)
UNCOUNTED = (
    "No theoretical speed-up for older runs of sparse weights, which did not count products layer by layer: their share of "
    "weights differs from their share of operations."
)
COUNTED = (
    "Connections: those that exist in the end. Training memory: the peak of training steps above the memory in use before "
    "them. Operations of one inference: accumulates of spikes, and multiply-accumulates.",
    "Energy of one inference is a 45 nm estimate: 0.9 pJ an accumulate, 4.6 pJ a multiply-accumulate, no memory access. By "
    "firing rate: rate × T × operations, the field's formula, which also multiplies sums of spikes. NeuroBench: each input "
    "other than 0 counts once. Neurons, norms: a multiply-accumulate for each update and normalised number, in no other "
    "column.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class AxesRow(Row):
    """The runs of one choice on all three axes, beside the plain runs (full data, bptt, dense) of their seeds.

    Attributes:
        data: The choice on the data axis, such as "sadp 50 %".
        time: The choice on the time axis.
        weights: The choice on the weight axis.
        label: The method, with those of its options that differ within the group.
        axes: Number of axes that differ from the plain run.
        missing_singles: The commands for runs of one axis alone that are missing for a product.
        speedup: Measured over the plain run, as are `speedup_without_search`, `product` and `kept_share`.
        cpu_speedup: The speed-up by CPU seconds, for runs on a CPU.
        theoretical_speedup: The product of `ceiling`, `time_factor` and `weights_factor` (see `records.axes`).
        firing_rate: The mean over the layers.
    """

    COUNTED: ClassVar[dict[str, str]] = {"n_timed": "speedup", "n_cpu": "cpu_speedup", "n_product": "kept_share"}

    data: str
    time: str
    weights: str
    label: str
    axes: int
    missing_singles: tuple[str, ...]
    accuracy: Estimate
    seconds: Estimate
    speedup: Estimate
    cpu_speedup: Estimate
    speedup_without_search: Estimate
    ceiling: Estimate
    time_factor: Estimate
    weights_factor: Estimate
    theoretical_speedup: Estimate
    product: Estimate
    kept_share: Estimate
    firing_rate: Estimate
    train_memory_bytes: Estimate
    search_seconds: Estimate
    accumulates: Estimate
    multiply_accumulates: Estimate
    energy_joules: Estimate
    rate_energy_joules: Estimate
    effective_energy_joules: Estimate
    other_energy_joules: Estimate
    density: Estimate


def _firing_rate(record: Record) -> float | None:
    rates = [rate for rate in record.firing_rate if is_number(rate)]
    return statistics.fmean(rates) if rates else None


# The estimates of `AxesRow`, each from a run and its plain run.
AXES_STATISTICS: dict[str, tuple[Quantity, Callable[[AxesComparison], float | None]]] = {
    "accuracy": (Quantity.SHARE, lambda pair: pair.record.test_accuracy),
    "seconds": (Quantity.AMOUNT, lambda pair: None if pair.record.disturbed else charged_seconds(pair.record)),
    "speedup": (Quantity.RATIO, lambda pair: pair.speedup),
    "cpu_speedup": (Quantity.RATIO, lambda pair: pair.cpu_speedup),
    "speedup_without_search": (Quantity.RATIO, lambda pair: pair.speedup_without_search),
    "ceiling": (Quantity.RATIO, lambda pair: ceiling(pair.record)),
    "time_factor": (Quantity.RATIO, lambda pair: time_factor(pair.spec)),
    "weights_factor": (Quantity.RATIO, lambda pair: weights_factor(pair.record)),
    "theoretical_speedup": (Quantity.RATIO, lambda pair: theoretical_speedup(pair.record)),
    "product": (Quantity.RATIO, lambda pair: pair.product),
    "kept_share": (Quantity.RATIO, lambda pair: pair.kept_share),
    "firing_rate": (Quantity.AMOUNT, lambda pair: _firing_rate(pair.record)),
}


def axes_rows(records: Iterable[Record]) -> list[AxesRow]:
    """Returns a row for each choice: group by group, the plain run first, then choices that change one, two and three axes.

    The runs of a group differ only in seed, data axis (method, its options, ratio), time axis and weight axis. A group in
    which every run is on bptt and dense has no rows.
    """
    records = list(records)
    if all(is_plain(record.spec) for record in records):
        return []
    groups = _groups(sorted(against_plain(records), key=lambda pair: (pair.spec.seed, pair.spec.key)))
    found = []
    for title, (settings, pairs) in zip(titles([settings for settings, _ in groups]), groups, strict=True):
        labels = method_labels(pair.spec for pair in pairs)
        rivals = [pair.spec.flat() for pair in pairs]
        choices: dict[tuple[str, str, str], list[AxesComparison]] = {}
        for pair in pairs:
            spec, label = pair.spec, labels[pair.spec.key]
            data = label if spec.method == "full" else f"{label} {percent(spec.ratio)}"
            choices.setdefault((data, time_name(spec.flat()), weights_name(spec.flat(), rivals)), []).append(pair)
        rows = [_row(title, settings, *names, labels, own) for names, own in choices.items()]
        found += sorted(rows, key=lambda row: _order(row, row.runs[0].spec))
    return found


def _groups(pairs: Sequence[AxesComparison]) -> list[tuple[Settings, list[AxesComparison]]]:
    """Returns settings and members of each group, ordered by its settings."""
    by_key = {pair.spec.key: pair for pair in pairs}
    settings: dict[str, Settings] = {}
    members: dict[str, dict[str, AxesComparison]] = {}
    for pair in pairs:
        spec = pair.spec
        alike = spec.any_method().of_valid(**PLAIN_AXES)
        if alike.key not in settings:
            flat = without(alike.flat(), "method", "ratio", "seed")
            settings[alike.key] = {name: value for name, value in flat.items() if not is_axis(name)}
        group = members.setdefault(alike.key, {})
        # `full` is the same run under both protocols.
        group.setdefault(spec.reference().key if spec.method == "full" else spec.key, pair)
        group |= {s.key: by_key[s.key] for s in (spec.plain(), *changed_axes(spec)) if s.key in by_key}
    keys = [key for key, group in members.items() if not all(is_plain(pair.spec) for pair in group.values())]
    keys.sort(key=lambda key: settings_order(settings[key]))
    return [(settings[key], list(members[key].values())) for key in keys]


def _row(
    title: str,
    settings: Settings,
    data: str,
    time: str,
    weights: str,
    labels: dict[str, str],
    pairs: Sequence[AxesComparison],
) -> AxesRow:
    spec, runs = pairs[0].spec, tuple(pair.record for pair in pairs)
    choice = {
        name: value
        for name, value in spec.flat().items()
        if name in ("method", "ratio") or is_method_option(name) or is_axis(name)
    }
    return AxesRow(
        group=title,
        settings={**settings, **choice},
        name=f"{data} · {time} · {weights}",
        runs=runs,
        missing_references=tuple(command(pair.spec.plain()) for pair in pairs if pair.plain is None),
        missing_singles=tuple(command(single) for pair in pairs if pair.plain for single in pair.missing),
        mismatches=tuple(sorted({phrase for pair in pairs for phrase in pair.mismatch})),
        data=data,
        time=time,
        weights=weights,
        label=labels[spec.key],
        axes=len(changed_axes(spec)),
        **{name: over_seeds(map(value, pairs), quantity) for name, (quantity, value) in AXES_STATISTICS.items()},
        **costs(runs),
    )


def _order(row: AxesRow, spec: Spec) -> tuple[object, ...]:
    return (
        row.axes, method_order(spec.method), row.label, spec.ratio,
        CHOICES["backprop"].index(spec.backprop), spec.k,
        CHOICES["sparsity"].index(spec.sparsity), -spec.density, spec.early_time, row.weights,
    )  # fmt: skip


def axes_label(row: Any) -> str:
    """Returns a row's name in two lines: data; time and weights."""
    return f"{row.data} ·\n{row.time} · {row.weights}"


TIMED_COLUMNS = (
    Column("run"),
    Column("accuracy", "accuracy", "%", 2, 100, runs="below"),
    Column("charged", "seconds", "s", 1, timed=True),
    Column("search", "search_seconds", "s", 1, timed=True, rare=True),
    Column("speed-up", "speedup", "measured", interval="ends", runs="fewer", timed=True),
    Column("speed-up", "cpu_speedup", "by CPU", interval="ends", optional=True),
    Column("without", "speedup_without_search", "search", interval="ends", timed=True, rare=True),
    Column("speed-up", "theoretical_speedup", "theoretical", interval=""),
    Column("product", "product", interval="ends", timed=True, rare=True),
    Column("kept", "kept_share", "%", 0, 100, interval="ends", runs="fewer", timed=True, rare=True),
)


def _counted_columns(rows: Sequence[AxesRow]) -> tuple[Column, ...]:
    """Returns the columns of memory and operations. Energy is in nJ, or in µJ where one row has a µJ or more."""
    most = max((row.energy_joules.mean for row in rows if row.energy_joules.n), default=0.0)
    scale, unit = (1e6, "µJ") if most >= 1e-6 else (1e9, "nJ")
    return (
        Column("run"),
        Column("connections", "density", "%", 1, 100, interval=""),
        Column("training", "train_memory_bytes", "memory, MiB", 1, MIB, runs="below"),
        Column("accumulates", "accumulates", "millions", 3, 1e-6),
        Column("multiply-acc.", "multiply_accumulates", "millions", 3, 1e-6),
        Column("energy", "energy_joules", f"{unit}, estimate", 2, scale),
        Column("energy", "rate_energy_joules", "by firing rate", 2, scale, optional=True),
        Column("energy", "effective_energy_joules", "NeuroBench", 2, scale, optional=True),
        Column("energy", "other_energy_joules", "neurons, norms", 2, scale, optional=True),
        Column("firing", "firing_rate", "rate", 3),
    )


def axes_sheets(rows: Sequence[AxesRow]) -> list[Sheet]:
    """Returns two sheets for each group: accuracy and time, then memory and operations.

    The first of each kind explains its terms.
    """
    found: list[Sheet] = []
    for title, group in itertools.groupby(rows, key=lambda row: row.group):
        own = list(group)
        notes = [*_notes(own), *(() if found else TIMED), *interval_notes(own, "accuracy")]
        costs = [*(() if found else COUNTED), *interval_notes(own, "train_memory_bytes", "accumulates")]
        for name, columns, lines in (
            ("Data, time and weights", TIMED_COLUMNS, notes),
            ("Memory and operations", _counted_columns(own), costs),
        ):
            tables = [table(columns, own, axes_label)]
            found.append(Sheet("axes", title, f"{name}: {title}", tables, lines, long=len(own) > SHORT))
    return found


def _notes(rows: Sequence[AxesRow]) -> list[str]:
    return [
        measured_on(rows),
        *warnings(rows),
        *other_data(rows),
        *split_of(rows[0].settings),
        *missing(rows),
        *mismatched(rows),
        *disturbed(rows),
        *by_cpu(row.cpu_speedup for row in rows),
        *([UNCOUNTED] if any(weights_factor(run) is None for row in rows for run in row.runs) else []),
        *(
            f"No product for a seed of {names}, because a run of one axis alone is missing; make it: `{line}`"
            for line, names in named(rows, "missing_singles").items()
        ),
    ]
