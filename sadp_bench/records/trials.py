"""The search of a sweep: trials, which are runs on validation images, and the settings that they choose. Without torch.

A choice holds for all runs of a method and ratio, which differ only in seed and searched settings. The trials of a
folder's runs lie in its subfolder `search`. All choices derive from their records.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sadp_bench.records.metrics import forward_only, score_visits
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import FAILED

SEARCHABLE = ("learning_rate", "weight_decay")
FOLDER = "search"  # folder of the trials, in the folder of the runs
SEARCHED = "searched"  # shown in place of a searched setting's value, among the settings that a table's runs share
KEY_IN_NAME = re.compile(rf"-([0-9a-f]{{12}})(?:\.json|{re.escape(FAILED)})$")

Values = tuple[float, ...]  # values of SEARCHABLE, in its order


def without_search(spec: Spec) -> Spec:
    """Returns the same spec for all runs and trials of a choice.

    Trials differ from runs in the evaluated images, and so in the number of training examples. They may have fewer epochs.
    """
    settings = dict.fromkeys(SEARCHABLE, 0.0)
    return spec.of_valid(seed=0, evaluate_on="test", evaluate_every=1, epochs=1, train_examples=1, **settings)


def values_of(spec: Spec) -> Values:
    """Returns a run's values of `SEARCHABLE`."""
    return tuple(getattr(spec, name) for name in SEARCHABLE)


@dataclass(frozen=True, slots=True)
class Point:
    """The trials of one point of a search.

    Attributes:
        values: Values of `SEARCHABLE`.
        accuracies: Accuracies on validation images, by seed.
        diverged: Seeds whose training diverged.
        visits: Example visits of the trials that have a record, with visits for scores and of a forward pass alone.
    """

    values: Values
    accuracies: dict[int, float]
    diverged: tuple[int, ...]
    visits: int

    @property
    def mean(self) -> float | None:
        """Mean accuracy; None without a finished trial."""
        return statistics.fmean(self.accuracies.values()) if self.accuracies else None


@dataclass(frozen=True, slots=True)
class Choice:
    """A search's trials of one method and ratio, and the best point.

    Attributes:
        spec: The spec of one of the trials.
        names: The settings that differ among the points.
        points: The points, in the order of their values.
        seeds: All seeds of the trials.
        best: The point with the highest mean among those with an accuracy for every seed. Among equal means it is the
            point with the lowest values. None where no point has all seeds.
    """

    spec: Spec
    names: tuple[str, ...]
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    best: Point | None

    def apply(self, spec: Spec) -> Spec:
        """Returns a run with the best point's values; unchanged without a best point."""
        return spec.of_valid(**dict(zip(SEARCHABLE, self.best.values, strict=True))) if self.best else spec

    @property
    def chosen(self) -> dict[str, float]:
        """The best point's values, by name."""
        values = dict(zip(SEARCHABLE, self.best.values, strict=True)) if self.best else {}
        return {name: value for name, value in values.items() if name in self.names}

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest value that was tried, by name."""
        tried = {name: [point.values[SEARCHABLE.index(name)] for point in self.points] for name in self.names}
        return {name: (min(values), max(values)) for name, values in tried.items()}

    @property
    def edges(self) -> dict[str, str]:
        """The settings whose best value is the "lowest" or the "highest" of those tried."""
        ends = self.ranges
        found = {name: ends[name].index(value) for name, value in self.chosen.items() if value in ends[name]}
        return {name: ("lowest", "highest")[place] for name, place in found.items()}

    @property
    def visits(self) -> int:
        """Example visits of all trials that have a record."""
        return sum(point.visits for point in self.points)

    def to_json(self) -> dict[str, Any]:
        """Returns all trials, and their choice."""
        trials = [
            {
                **{name: point.values[SEARCHABLE.index(name)] for name in self.names},
                "accuracies": [point.accuracies.get(seed) for seed in self.seeds],
                "mean": point.mean,
                "diverged": list(point.diverged),
            }
            for point in self.points
        ]
        of = {name: getattr(self.spec, name) for name in ("method", "ratio", "budget", "method_options", "epochs")}
        found = {"seeds": list(self.seeds), "chosen": self.chosen, "edges": self.edges, "visits": self.visits}
        return {**of, **found, "trials": trials}


def choices(trials: Iterable[Record], failures: Iterable[Failure] = ()) -> dict[str, Choice]:
    """Returns the choices of trials, by the key of `without_search`. Failures count where training diverged."""
    diverged = [failure for failure in failures if failure.epoch is not None]
    members: dict[str, list[Record | Failure]] = {}
    every: list[Record | Failure] = [*trials, *diverged]
    for trial in every:
        members.setdefault(without_search(trial.spec).key, []).append(trial)
    return {key: _choice(own) for key, own in members.items()}


def _choice(trials: Sequence[Record | Failure]) -> Choice:
    by_values: dict[Values, list[Record | Failure]] = {}
    for trial in trials:
        by_values.setdefault(values_of(trial.spec), []).append(trial)
    points = tuple(_point(values, own) for values, own in sorted(by_values.items()))
    seeds = tuple(sorted({trial.spec.seed for trial in trials}))
    whole = [(point.mean or 0.0, point) for point in points if set(point.accuracies) == set(seeds)]
    best = max(whole, key=lambda pair: pair[0])[1] if whole else None  # `max` returns the first of equals
    differing = [len({values[place] for values in by_values}) > 1 for place in range(len(SEARCHABLE))]
    names = tuple(name for name, differs in zip(SEARCHABLE, differing, strict=True) if differs)
    return Choice(trials[0].spec, names, points, seeds, best)


def _point(values: Values, trials: Sequence[Record | Failure]) -> Point:
    records = sorted((trial for trial in trials if isinstance(trial, Record)), key=lambda record: record.spec.seed)
    done = {record.spec.seed: record.test_accuracy for record in records}
    diverged = {trial.spec.seed for trial in trials} - set(done)
    alone = sum(round(forward_only(record) + score_visits(record)) for record in records)
    visits = alone + sum(record.examples_seen + record.prepare_examples for record in records)
    return Point(values, done, tuple(sorted(diverged)), visits)


class Search(NamedTuple):
    """The search of one folder: the keys of the folder's runs, and the choices of its trials."""

    keys: frozenset[str]
    choices: Mapping[str, Choice]


class Searches:
    """The searches behind the runs of a report.

    Args:
        searches: The search of each folder.
    """

    def __init__(self, searches: Sequence[Search] = ()) -> None:
        self._searches = searches

    def choice(self, spec: Spec) -> Choice | None:
        """Returns the choice that gave a run its settings; None: no search chose them."""
        found = self._found(spec)
        return None if found is None else found[1]

    def reference(self, spec: Spec) -> Spec:
        """Returns a run's full-data reference, which has the settings that the same search chose for it."""
        found, reference = self._found(spec), spec.reference()
        of_full = None if found is None else found[0].choices.get(without_search(reference).key)
        return reference if of_full is None else of_full.apply(reference)

    def _found(self, spec: Spec) -> tuple[Search, Choice] | None:
        for search in self._searches:
            if spec.key in search.keys:
                choice = search.choices.get(without_search(spec).key)
                if choice is not None and choice.best is not None and choice.best.values == values_of(spec):
                    return search, choice
        return None


class Sorted(NamedTuple):
    """Records and failures of runs, without trials, and the searches that the trials make up."""

    records: list[Record]
    failures: list[Failure]
    searches: Searches


def sorted_out(records: Sequence[tuple[Path, Record]], failures: Sequence[Failure], folders: Iterable[Path]) -> Sorted:
    """Separates trials from runs.

    A trial is evaluated on validation images, and its record lies in a folder `search` below one of the folders. A folder
    `search` that is itself one of the folders contains ordinary runs. Without any other run, trials are ordinary runs too.

    Args:
        records: Records with their paths.
        failures: Failures of runs and trials.
        folders: The folders that were read.
    """
    named = {Path(folder).resolve() for folder in folders}
    trials: dict[Path, list[Record]] = {}
    runs = []
    for path, record in records:
        at = path.parent
        if at.name == FOLDER and record.spec.evaluate_on == "validation" and at.resolve() not in named:
            trials.setdefault(at, []).append(record)
        else:
            runs.append(record)
    if not runs:
        return Sorted([record for _, record in records], list(failures), Searches())
    found, lost = [], set[str]()
    for at, own in trials.items():
        beside = {failure.spec.key: failure for failure in failures if failure.spec.key in _keys(at)}
        lost |= set(beside)
        found.append(Search(_keys(at.parent), choices(own, beside.values())))
    return Sorted(runs, [failure for failure in failures if failure.spec.key not in lost], Searches(found))


def _keys(folder: Path) -> frozenset[str]:
    """Returns the keys in the names of a folder's records and failures."""
    return frozenset(found[1] for path in folder.iterdir() if (found := KEY_IN_NAME.search(path.name)))
