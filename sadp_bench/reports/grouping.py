"""Groups of comparable runs, and a row for each of their methods and ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sadp_bench.core.text import percent
from sadp_bench.records.comparison import Comparison, paired
from sadp_bench.records.metrics import UNPRUNED, nominal_maximum, worst_class_accuracy
from sadp_bench.records.naming import Settings, method_labels
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.statistics import Quantity, paired_difference, to_rival, verdict
from sadp_bench.records.trials import SEARCHED, Choice, Searches
from sadp_bench.reports.naming import (
    command,
    is_method_option,
    method_order,
    settings_order,
    titles,
    without,
)
from sadp_bench.reports.outcomes import RIVALS, by_seed, outcomes, plain, rival
from sadp_bench.reports.rows import MARGIN, NOT_MEASURED, RatioRow, costs, over_seeds

Run = Comparison | Failure
NO_SEARCHES = Searches()
# The estimates of `RatioRow`, each from a run and its reference.
STATISTICS: dict[str, tuple[Quantity, Callable[[Comparison], float | None]]] = {
    "accuracy": (Quantity.SHARE, lambda pair: pair.record.test_accuracy),
    "accuracy_difference": (Quantity.DIFFERENCE, lambda pair: pair.accuracy_difference),
    "seconds": (Quantity.AMOUNT, lambda pair: pair.seconds),
    "realised_ratio": (Quantity.SHARE, lambda pair: pair.realised_ratio),
    "speedup": (Quantity.RATIO, lambda pair: pair.speedup),
    "cpu_speedup": (Quantity.RATIO, lambda pair: pair.cpu_speedup),
    "ceiling": (Quantity.RATIO, lambda pair: pair.ceiling),
    "efficiency": (Quantity.RATIO, lambda pair: pair.efficiency),
    "training_speedup": (Quantity.RATIO, lambda pair: pair.training_speedup),
    "training_efficiency": (Quantity.RATIO, lambda pair: pair.training_efficiency),
    "seconds_to_accuracy": (Quantity.AMOUNT, lambda pair: pair.seconds_to_accuracy),
    "share_to_accuracy": (Quantity.RATIO, lambda pair: pair.share_to_accuracy),
    "worst_class_accuracy": (Quantity.SHARE, lambda pair: worst_class_accuracy(pair.record)),
    "worst_class_difference": (Quantity.DIFFERENCE, lambda pair: pair.worst_class_difference),
    "fitted_loss": (Quantity.AMOUNT, lambda pair: pair.record.fitted_loss),
    "fitted_accuracy": (Quantity.SHARE, lambda pair: pair.record.fitted_accuracy),
    "gradient_mass": (Quantity.RATIO, lambda pair: pair.gradient_mass),
}


def rows(
    records: Iterable[Record],
    failures: Iterable[Failure] = (),
    *,
    margin: float = MARGIN,
    searches: Searches = NO_SEARCHES,
) -> list[RatioRow]:
    """Returns a row for each group, method and ratio, in reading order.

    The runs of a group differ only in method, ratio, seed, budget and method_options, and in settings that a search chose
    for each method and ratio. With the protocol `updates` a group also contains its reference, which is a run of equal
    epochs. A row that has only failed runs has n = 0.

    Args:
        records: The finished runs.
        failures: The runs that ended without a record.
        margin: The share of accuracy that a lossless method may lose.
        searches: The searches that settings of the runs come from.
    """
    runs: list[Run] = [*paired(records, searches.reference), *failures]
    groups = _groups(runs, searches)
    table = []
    for title, (settings, members) in zip(titles([settings for settings, _ in groups]), groups, strict=True):
        labels = method_labels(run.spec for run in members)
        cells: dict[tuple[str, float], list[Run]] = {}
        for run in sorted(members, key=lambda run: run.spec.seed):
            cells.setdefault((labels[run.spec.key], run.spec.ratio), []).append(run)
        found = []
        for (label, ratio), cell in cells.items():
            at_ratio = [runs for (_, other), runs in cells.items() if other == ratio]
            found.append(_row(title, settings, label, cell, at_ratio, margin, searches))
        table += sorted(found, key=lambda row: (method_order(row.method), row.label, row.ratio))
    return table


def _row(
    title: str,
    settings: Settings,
    label: str,
    runs: Sequence[Run],
    at_ratio: Sequence[Sequence[Run]],
    margin: float,
    searches: Searches,
) -> RatioRow:
    """Returns the row of these runs.

    Args:
        title: The group's title.
        settings: The group's settings.
        label: The method's name in this group.
        runs: The row's runs, in the order of their seeds.
        at_ratio: The runs at the same ratio, a list for each method and its settings.
        margin: The share of accuracy that a lossless method may lose.
        searches: The searches that settings of the runs come from.
    """
    spec, pairs = runs[0].spec, [run for run in runs if isinstance(run, Comparison)]
    prunes = spec.method not in UNPRUNED
    chosen = {"method", "ratio", *(name for name, value in settings.items() if value == SEARCHED)}
    own = {name: value for name, value in spec.flat().items() if name in chosen or is_method_option(name)}
    estimates = {name: over_seeds(map(value, pairs), quantity) for name, (quantity, value) in STATISTICS.items()}
    difference = estimates["accuracy_difference"]
    own_runs, others = _finished(runs), [done for other in at_ratio if (done := _finished(other))]
    by_rival = {name: [done for done in others if done[0].spec.method == name] for name in RIVALS}
    rivals = {name: rival(found) for name, found in by_rival.items()}
    to_random = (
        paired_difference(by_seed(own_runs), by_seed(rivals["random"])) if own_runs != rivals["random"] else None
    )
    return RatioRow(
        group=title,
        settings={**settings, **own},
        name=f"{label} {percent(spec.ratio)}",
        runs=tuple(own_runs),
        missing_references=tuple(command(searches.reference(pair.spec)) for pair in pairs if pair.reference is None),
        mismatches=tuple(sorted({phrase for pair in pairs for phrase in pair.mismatch})),
        label=label,
        failed=tuple(run for run in runs if isinstance(run, Failure)),
        nominal_maximum=nominal_maximum(spec),
        random_difference=to_random or NOT_MEASURED,
        random_verdict=to_rival(to_random.low, to_random.high, margin) if to_random and prunes else None,
        n_random_settings=len(plain(by_rival["random"])),
        margin=margin,
        verdict=verdict(difference.low, difference.high, margin) if prunes else None,
        verdict_p=None,
        random_p=None,
        choice=searches.choice(spec),
        print_label="",
        **estimates,
        **{name: found or NOT_MEASURED for name, found in outcomes(own_runs, rivals).items()},
        **costs(own_runs),
    )


def _finished(runs: Iterable[Run]) -> list[Record]:
    """Returns the records of the finished runs."""
    return [run.record for run in runs if isinstance(run, Comparison)]


def _alike(spec: Spec, choice: Choice | None) -> tuple[str, Settings]:
    """Returns the key and the settings of a run's group. Settings that a search chose enter by name, without values."""
    alike, names = spec.any_method(), () if choice is None else choice.names
    shared = without(alike.flat(), "method", "ratio", "seed", "budget")
    key = alike.of_valid(**dict.fromkeys(names, 0.0)).key
    return f"{key} {' '.join(names)}", {**shared, **dict.fromkeys(names, SEARCHED)}


def _groups(runs: Iterable[Run], searches: Searches) -> list[tuple[Settings, list[Run]]]:
    """Returns settings and members of each group, ordered by its settings."""
    runs = list(runs)
    by_key = {run.spec.key: run for run in runs}
    settings: dict[str, Settings] = {}
    members: dict[str, dict[str, Run]] = {}
    for run in runs:
        spec = run.spec
        alike, shared = _alike(spec, searches.choice(spec))
        settings.setdefault(alike, shared)
        group = members.setdefault(alike, {})
        reference = searches.reference(spec).key
        # `full` is the same run under both protocols. With the key of its reference it counts once for each seed.
        group.setdefault(reference if spec.method == "full" else spec.key, run)
        if reference in by_key:
            group[reference] = by_key[reference]
    # A group of references that another group contains completely needs no table.
    keys = [key for key, group in members.items() if not any(set(group) < set(other) for other in members.values())]
    keys.sort(key=lambda key: settings_order(settings[key]))
    return [(settings[key], list(members[key].values())) for key in keys]
