"""The rows of every report: one flat, unrounded row for each group of comparable runs, method and ratio."""

from __future__ import annotations

import dataclasses
import json
import shlex
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from sadp_bench.records.metrics import Comparison, nominal_maximum, paired, search_seconds
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec, shown
from sadp_bench.records.statistics import Estimate, estimate, paired_difference, verdict
from sadp_bench.report.axis_names import OPTIONS, flat, is_axis, percent, time_name, weights_name

__all__ = ["percent"]

Row = dict[str, Any]
Run = Comparison | Failure
Accuracies = dict[tuple[int, str], float]  # by seed and data

MARGIN = 0.005  # of the verdict "lossless", a share
# Of a record. Operations and joules are of one inference; density is the share of connections that there are in the end.
COSTS: dict[str, Callable[[Record], float | None]] = {
    "train_memory_bytes": lambda run: run.train_memory_bytes,
    "search_seconds": search_seconds,
    "accumulates": lambda run: run.operations.get("accumulates"),
    "multiply_accumulates": lambda run: run.operations.get("multiply_accumulates"),
    "energy_joules": lambda run: run.operations.get("energy_joules"),
    "density": lambda run: run.density,
}


def _of_record(value: Callable[[Record], float | None]) -> Callable[[Comparison], float | None]:
    return lambda pair: value(pair.record)


# A row carries mean, sample standard deviation and 95 % t-interval over seeds of each. Ratios and accuracies are shares.
STATISTICS: dict[str, Callable[[Comparison], float | None]] = {
    "accuracy": lambda pair: pair.record.test_accuracy,
    "accuracy_difference": lambda pair: pair.accuracy_difference,
    "seconds": lambda pair: pair.seconds,
    "realised_ratio": lambda pair: pair.realised_ratio,
    "speedup": lambda pair: pair.speedup,
    "ceiling": lambda pair: pair.ceiling,
    "efficiency": lambda pair: pair.efficiency,
    "training_speedup": lambda pair: pair.training_speedup,
    "training_efficiency": lambda pair: pair.training_efficiency,
    "seconds_to_accuracy": lambda pair: pair.seconds_to_accuracy,
    "share_to_accuracy": lambda pair: pair.share_to_accuracy,
    **{name: _of_record(value) for name, value in COSTS.items()},
}
ENVIRONMENT = (
    "device processor threads jobs kernel python torch torchvision spikingjelly numpy sadp_bench commit dirty".split()
)
IN_EVERY_TITLE = "dataset backbone train_examples epochs timesteps precision protocol evaluate_on".split()
FIRST_METHODS = ("full", "fewer-epochs", "random")


def command(spec: Spec) -> str:
    """The shell command that makes exactly this run."""
    if spec.processes == 1:
        return shlex.join(["sadp-bench", "run", *spec.words()])
    return shlex.join(["torchrun", "--nproc-per-node", str(spec.processes), "-m", "sadp_bench", "run", *spec.words()])


def rows(records: Iterable[Record], failures: Iterable[Failure] = (), *, margin: float = MARGIN) -> list[Row]:
    """One row for each (group, method, ratio), in reading order.

    A group is all of a spec but method, ratio, seed and method_options: runs that differ in anything else never
    share a row. Under the protocol `updates` a group also shows its reference, which is a run of equal epochs.
    Failed runs are counted and told in their row, and in none of its numbers; where all have failed, n is 0.
    The verdict is that of accuracy_difference, against full; random_difference is to the method `random` of the same
    group, ratio, seed and data, and None where that ran with several settings (n_random_settings).
    Missing numbers are None; lists (seeds, failures, commands, environment values) stay lists.
    """
    runs: list[Run] = [*paired(records), *failures]
    groups = _groups(runs)
    headings = titles([settings for settings, _ in groups])
    table = []
    for title, (settings, members) in zip(headings, groups, strict=True):
        names = labels([run.spec for run in members])
        cells: dict[tuple[str, float], list[Run]] = {}
        for run in members:
            cells.setdefault((names[run.spec.key], run.spec.ratio), []).append(run)
        made = []
        for (label, ratio), cell in cells.items():
            randoms = [runs for at, runs in cells.items() if at[1] == ratio and runs[0].spec.method == "random"]
            made.append(_row(title, settings, label, ratio, cell, margin) | _against_random(cell, randoms))
        table += sorted(made, key=lambda row: (method_order(row["method"]), row["label"], row["ratio"]))
    return table


def method_order(method: str) -> tuple[int, str]:
    """full, fewer-epochs, random; the rest by name; sadp last."""
    if method in FIRST_METHODS:
        return FIRST_METHODS.index(method), ""
    return (len(FIRST_METHODS) + (method == "sadp"), method)


def _row(title: str, settings: dict[str, Any], label: str, ratio: float, runs: list[Run], margin: float) -> Row:
    runs = sorted(runs, key=lambda run: run.spec.seed)
    cell = [run for run in runs if isinstance(run, Comparison)]
    failures = [run for run in runs if isinstance(run, Failure)]
    spec = runs[0].spec
    row: Row = {"group": title, **settings, "method": spec.method, "label": label, "ratio": ratio}
    row |= {f"{OPTIONS['method']}{name}": value for name, value in spec.method_options.items()}
    row |= {
        "n": len(cell),
        "n_paired": sum(pair.accuracy_difference is not None for pair in cell),
        "n_timed": sum(pair.speedup is not None for pair in cell),
        "n_seconds": sum(pair.seconds is not None for pair in cell),
        "n_reached": sum(pair.seconds_to_accuracy is not None for pair in cell),
        "interruptions": sum(pair.record.interruptions for pair in cell),
        "n_failed": len(failures),
        "seeds": [pair.spec.seed for pair in cell],
        "accuracies": [pair.record.test_accuracy for pair in cell],
        "failures": [failed(failure) for failure in failures],
        "nominal_maximum": nominal_maximum(spec),
    }
    for name, value in STATISTICS.items():
        row |= columns(name, estimate(value(pair) for pair in cell))
    row["margin"] = margin
    against_full = (row["accuracy_difference_low"], row["accuracy_difference_high"])
    row["verdict"] = None if spec.method == "full" else verdict(*against_full, margin)
    row["missing_references"] = [command(pair.spec.reference()) for pair in cell if pair.reference is None]
    row["disturbed"] = bool(cell) and all(pair.record.disturbed for pair in cell)
    row["mismatches"] = sorted({phrase for pair in cell for phrase in pair.mismatch})
    row["data_sha256"] = sorted({pair.record.data_sha256 for pair in cell})
    for name in ENVIRONMENT:
        values = [pair.record.environment.get(name) for pair in cell]
        row[f"environment.{name}"] = sorted({"unknown" if value is None else shown(value) for value in values})
    return row


def columns(name: str, found: Estimate | None) -> Row:
    numbers = (found.mean, found.spread, found.low, found.high) if found else (None,) * 4
    return dict(zip((f"{name}_mean", f"{name}_sd", f"{name}_low", f"{name}_high"), numbers, strict=True))


def _against_random(runs: list[Run], randoms: list[list[Run]]) -> Row:
    """randoms: the runs of the method `random` at the same ratio, a list for each of its settings."""
    found, settings = None, list(filter(None, map(_accuracies, randoms)))
    if runs[0].spec.method != "random" and len(settings) == 1:
        found = paired_difference(_accuracies(runs), settings[0])
    counts = {"n_random": found.n if found else 0, "n_random_settings": len(settings)}
    return columns("random_difference", found) | counts


def _accuracies(runs: list[Run]) -> Accuracies:
    """In the order of the seeds, so that no sum depends on that of the records."""
    done = sorted((run for run in runs if isinstance(run, Comparison)), key=lambda run: run.spec.seed)
    return {(run.spec.seed, run.record.data_sha256): run.record.test_accuracy for run in done}


def shared_means(rows: Iterable[Row]) -> list[float]:
    """Each row's mean accuracy over the seeds that all of them have, so that none is better by its seeds; where they share
    none, over its own."""
    rows = list(rows)
    shared = set.intersection(*(set(row["seeds"]) for row in rows)) if rows else set()
    return [
        statistics.fmean(
            accuracy
            for seed, accuracy in zip(row["seeds"], row["accuracies"], strict=True)
            if seed in shared or not shared
        )
        for row in rows
    ]


def failed(failure: Failure) -> str:
    """'seed 3: training diverged ...'."""
    return f"seed {failure.spec.seed}: {failure.reason}"


def _groups(runs: list[Run]) -> list[tuple[dict[str, Any], list[Run]]]:
    """(settings, members) of each group, ordered by its settings."""
    by_key = {run.spec.key: run for run in runs}
    settings: dict[str, dict[str, Any]] = {}
    members: dict[str, dict[str, Run]] = {}
    for run in runs:
        spec = run.spec
        alike = dataclasses.replace(spec, method="", ratio=0.0, seed=0, method_options={})
        settings[alike.key] = _settings(alike)
        group = members.setdefault(alike.key, {})
        reference = spec.reference().key
        # `full` is the same run under both protocols: named by its reference's key, it counts once a seed.
        group.setdefault(reference if spec.method == "full" else spec.key, run)
        if reference in by_key:
            group[reference] = by_key[reference]
    # References that another group shows whole need no table of their own.
    keys = [key for key, own in members.items() if not any(set(own) < set(other) for other in members.values())]
    keys.sort(key=lambda key: json.dumps([sortable(value) for value in settings[key].values()]))
    return [(settings[key], list(members[key].values())) for key in keys]


def _settings(spec: Spec) -> dict[str, Any]:
    """A group's settings, flat."""
    return {name: value for name, value in flat(spec).items() if name not in ("method", "ratio", "seed")}


def sortable(value: Any) -> Any:
    return f"{value:020.9f}" if isinstance(value, int | float) else value


def labels(specs: list[Spec]) -> dict[str, str]:
    """By key: the method's name, with those of its settings that differ among the method's runs in one group."""
    settings: dict[str, list[dict[str, Any]]] = {}
    for spec in specs:
        settings.setdefault(spec.method, []).append(spec.method_options)
    found = {}
    for spec in specs:
        differing = [
            f"{name}={shown(value)}"
            for name, value in sorted(spec.method_options.items())
            if any(name not in other or shown(other[name]) != shown(value) for other in settings[spec.method])
        ]
        found[spec.key] = f"{spec.method} ({', '.join(differing)})" if differing else spec.method
    return found


def titles(groups: list[dict[str, Any]]) -> list[str]:
    """What a reader must know of each group, and what else differs among those of its data set and backbone."""
    found = []
    for settings in groups:
        rivals = [other for other in groups if all(other[name] == settings[name] for name in ("dataset", "backbone"))]
        more = [
            f"{name.replace('_', '-')}={shown(value)}"
            for name, value in settings.items()
            if name not in IN_EVERY_TITLE
            and not is_axis(name)
            and any(shown(other.get(name)) != shown(value) for other in rivals)
        ]
        found.append(" · ".join([*_short_title(settings), *more, *_axes_told(settings, rivals)]))
    return found


def _axes_told(settings: dict[str, Any], rivals: list[dict[str, Any]]) -> list[str]:
    """What it is on the axes of time and weights, where that differs. Settings without axes are those of all of them."""
    if "backprop" not in settings:
        return []
    names = (time_name, lambda of: weights_name(of, rivals))
    return [name(settings) for name in names if len({name(rival) for rival in rivals}) > 1]


def _short_title(settings: dict[str, Any]) -> list[str]:
    epochs = settings["epochs"]
    return [
        settings["dataset"],
        settings["backbone"],
        f"{settings['train_examples']:,} examples",
        f"{epochs} epoch{'s' if epochs != 1 else ''}",
        *([f"T={settings['timesteps']}"] if "timesteps" in settings else []),
        settings["precision"],
        *(["equal updates"] if settings["protocol"] == "updates" else []),
        *(["validation accuracy"] if settings["evaluate_on"] == "validation" else []),
    ]
