"""The trials of a sweep's search: for each run, the runs on validation images that choose its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import count
from sadp_bench.records.naming import run_name
from sadp_bench.records.spec import Spec
from sadp_bench.records.trials import without_search
from sadp_bench.sweeps.search import Search
from sadp_bench.sweeps.sweep_file import RequestedRun


class TrialSpecs:
    """The runs of a sweep and of their references, each with its trials.

    Args:
        search: The points and seeds of the trials.
        where: The file and table, for messages.
        requests: The sweep's runs.
        resolve: Returns the spec of a request.

    Attributes:
        names: The searched settings.
        runs: All runs, references first, with the default values of the searched settings.
    """

    def __init__(
        self, search: Search, where: str, requests: Iterable[RequestedRun], resolve: Callable[[RequestedRun], Spec]
    ) -> None:
        self.names = tuple(search.ranges)
        self._search, self._where, self._points = search, where, search.points()
        changed: dict[str, Any] = {"evaluate_on": "validation"} | ({"epochs": search.epochs} if search.epochs else {})
        references, pairs = {}, {}
        for request in requests:
            run = resolve(request)
            trial = resolve(RequestedRun(f"{request.where}, as a trial on validation images", request.fields | changed))
            references[run.reference().key] = (run.reference(), trial.reference())
            pairs[run.key] = (run, trial)
        self._pairs = references | pairs
        self.runs = [run for run, _ in self._pairs.values()]

    def trials(self, run: Spec) -> list[Spec]:
        """Returns the trials that choose a run's settings. Each trial evaluates once, at its end."""
        _, trial = self._pairs[run.key]
        changes = [{**point, "seed": seed} for point in self._points for seed in self._search.seeds]
        return [trial.of_valid(evaluate_every=trial.epochs, **change) for change in changes]

    def of(self, runs: Sequence[Spec], there: Iterable[Spec], folder: Path) -> list[Spec]:
        """Returns the trials of some runs, each once.

        Args:
            runs: The runs.
            there: The trials that have a record.
            folder: The folder of these records, for messages.

        Raises:
            BadInput: The trials of a choice differ in length or data, so their accuracies cannot be compared.
        """
        lengths: dict[str, tuple[int, int]] = {}
        found: dict[str, Spec] = {}
        for run in runs:
            for trial in self.trials(run):
                found[trial.key] = trial
                length = (trial.epochs, trial.train_examples)
                if lengths.setdefault(without_search(trial).key, length) != length:
                    raise BadInput(
                        f"{self._where}: the runs of {run_name(run)} have trials of {_length(lengths, trial)} and of "
                        f"{_shown(length)}; write one number of epochs into [search] and one train_examples, or write a file "
                        "for each length"
                    )
        for trial in there:
            length = (trial.epochs, trial.train_examples)
            if lengths.get(without_search(trial).key, length) != length:
                raise BadInput(
                    f"{folder} has trials of {run_name(trial)} of {_shown(length)}, and {self._where} describes those of "
                    f"{_length(lengths, trial)}; take another --out"
                )
        return list(found.values())


def _length(lengths: dict[str, tuple[int, int]], trial: Spec) -> str:
    return _shown(lengths[without_search(trial).key])


def _shown(length: tuple[int, int]) -> str:
    return f"{count(length[0], 'epoch')} on {length[1]:,} examples"
