"""The rows of the table of the three axes: what data, time and weights save together, and each alone."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sadp_bench.records.metrics import (
    PLAIN_AXES,
    AxesComparison,
    against_plain,
    ceiling,
    changed_axes,
    charged_seconds,
    is_plain,
    theoretical_speedup,
    time_factor,
    weights_factor,
)
from sadp_bench.records.record import Record, is_number
from sadp_bench.records.spec import CHOICES, Spec, shown
from sadp_bench.records.statistics import estimate
from sadp_bench.report.axis_names import flat, is_axis, percent, time_name, weights_name
from sadp_bench.report.tables import COSTS, ENVIRONMENT, Row, columns, command, labels, method_order, sortable, titles

# As in `tables`: mean, sample standard deviation and 95 % t-interval over seeds of each.
STATISTICS: dict[str, Callable[[AxesComparison], float | None]] = {
    "accuracy": lambda pair: pair.record.test_accuracy,
    "seconds": lambda pair: None if pair.record.disturbed else charged_seconds(pair.record),
    "speedup": lambda pair: pair.speedup,
    "speedup_without_search": lambda pair: pair.speedup_without_search,
    "ceiling": lambda pair: ceiling(pair.record),
    "time_factor": lambda pair: time_factor(pair.spec),
    "weights_factor": lambda pair: weights_factor(pair.record),
    "theoretical_speedup": lambda pair: theoretical_speedup(pair.record),
    "product": lambda pair: pair.product,
    "kept_share": lambda pair: pair.kept_share,
    "firing_rate": lambda pair: _firing_rate(pair.record),
}


@dataclass(frozen=True, slots=True)
class Point:
    """The runs of one choice on all three axes, by seed. row: what it is; its name holds the choice."""

    row: Row
    runs: list[AxesComparison]

    @property
    def spec(self) -> Spec:
        return self.runs[0].spec


def axes_rows(own: Iterable[Point]) -> list[Row]:
    """One for each point: flat and unrounded, as `tables.rows` are.

    speedup, speedup_without_search, product and kept_share are measured against the plain run (full data, bptt, dense) of
    the same seed and environment. theoretical_speedup, and ceiling, time_factor and weights_factor, whose product it is,
    are counted (see `metrics`). missing_references and missing_singles: the commands that make what is missing for them.
    """
    return [_row(point) for point in own]


def points(records: Iterable[Record]) -> list[Point]:
    """In reading order: group by group, the plain run first, then what changes one axis, two, three.

    A group is all of a spec but seed, data axis (method, its options, ratio), time axis and weight axis. Groups in which
    every run is on bptt and dense have no points.
    """
    groups = _groups(sorted(against_plain(records), key=lambda pair: (pair.spec.seed, pair.spec.key)))
    made = []
    for title, (settings, members) in zip(titles([settings for settings, _ in groups]), groups, strict=True):
        names = labels([pair.spec for pair in members])
        rivals = [flat(pair.spec) for pair in members]
        found: dict[str, Point] = {}
        for pair in members:
            row = _identity(title, settings, pair.spec, names[pair.spec.key], rivals)
            found.setdefault(row["name"], Point(row, [])).runs.append(pair)
        made += sorted(found.values(), key=_in_turn)
    return made


def _groups(pairs: list[AxesComparison]) -> list[tuple[Row, list[AxesComparison]]]:
    """(settings, members) of each, ordered by its settings."""
    by_key = {pair.spec.key: pair for pair in pairs}
    settings: dict[str, Row] = {}
    members: dict[str, dict[str, AxesComparison]] = {}
    for pair in pairs:
        spec = pair.spec
        alike = dataclasses.replace(spec, method="", ratio=0.0, seed=0, method_options={}, **PLAIN_AXES)
        settings[alike.key] = {
            name: value
            for name, value in flat(alike).items()
            if not is_axis(name) and name not in ("method", "ratio", "seed")
        }
        group = members.setdefault(alike.key, {})
        # `full` is the same run under both protocols.
        group.setdefault(spec.reference().key if spec.method == "full" else spec.key, pair)
        group |= {one.key: by_key[one.key] for one in (spec.plain(), *changed_axes(spec)) if one.key in by_key}
    wanted = [key for key, own in members.items() if not all(is_plain(pair.spec) for pair in own.values())]
    wanted.sort(key=lambda key: json.dumps([sortable(value) for value in settings[key].values()]))
    return [(settings[key], list(members[key].values())) for key in wanted]


def _identity(title: str, settings: Row, spec: Spec, label: str, rivals: list[Row]) -> Row:
    own = flat(spec)
    data = label if spec.method == "full" else f"{label} {percent(spec.ratio)}"
    time, weights = time_name(own), weights_name(own, rivals)
    row: Row = {"group": title, **settings, "name": f"{data} · {time} · {weights}", "data": data, "time": time}
    row |= {"weights": weights, "method": spec.method, "label": label, "ratio": spec.ratio}
    row |= {f"method.{name}": value for name, value in spec.method_options.items()}
    return row | {name: value for name, value in own.items() if is_axis(name)}


def _in_turn(point: Point) -> tuple[object, ...]:
    spec, row = point.spec, point.row
    return (
        len(changed_axes(spec)), method_order(spec.method), row["label"], spec.ratio,
        CHOICES["backprop"].index(spec.backprop), spec.k,
        CHOICES["sparsity"].index(spec.sparsity), -spec.density, spec.early_time, row["weights"],
    )  # fmt: skip


def _row(point: Point) -> Row:
    runs = point.runs
    row = point.row | {
        "axes": len(changed_axes(point.spec)),
        "n": len(runs),
        "n_timed": sum(pair.speedup is not None for pair in runs),
        "n_product": sum(pair.kept_share is not None for pair in runs),
        "seeds": [pair.spec.seed for pair in runs],
    }
    for name, value in STATISTICS.items():
        row |= columns(name, estimate(value(pair) for pair in runs))
    for name, cost in COSTS.items():
        row |= columns(name, estimate(cost(pair.record) for pair in runs))
    row["missing_references"] = [command(pair.spec.plain()) for pair in runs if pair.plain is None]
    row["missing_singles"] = [command(spec) for pair in runs if pair.plain for spec in pair.missing]
    row["mismatches"] = sorted({phrase for pair in runs for phrase in pair.mismatch})
    return row | told_of([pair.record for pair in runs])


def told_of(runs: Iterable[Record]) -> Row:
    """What data these runs saw, and where they were made."""
    runs = list(runs)
    environments: list[Mapping[str, object]] = [run.environment for run in runs]
    told: Row = {"data_sha256": sorted({run.data_sha256 for run in runs})}
    for name in ENVIRONMENT:
        values = [environment.get(name) for environment in environments]
        told[f"environment.{name}"] = sorted({"unknown" if value is None else shown(value) for value in values})
    return told


def _firing_rate(record: Record) -> float | None:
    """The mean over the layers."""
    rates = [rate for rate in record.firing_rate if is_number(rate)]
    return statistics.fmean(rates) if rates else None
