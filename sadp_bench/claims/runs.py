"""The runs that a claim's metrics read. The claim's file selects them, and its settings find them among records.

A record is found by the settings of its run, without those that depend on the machine. So records of any machine count.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sadp_bench.claims.claim_file import FULL, Claim, Metric, Selector
from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import listed
from sadp_bench.records.naming import differing, run_names
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.runs.exporting import shared_scores
from sadp_bench.runs.resolve import RunRequest
from sadp_bench.sweeps.sweep_file import RequestedRun, read_search, read_sweep

# Fields that the machine or its data determine where a file does not name them, and a value that any machine allows.
CHOSEN_HERE: dict[str, Any] = {"device": "cpu", "precision": "fp32", "kernel": "python", "threads": 1}
OPEN = CHOSEN_HERE | {"processes": 1, "train_examples": 1}
AUTO = "auto"
MOST_NAMED = 12  # runs that a message names


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A run of a claim file, as far as the file determines it.

    Attributes:
        spec: The run; its open fields have the values in `OPEN`.
        opened: The open fields: those that the file does not determine, or that a search chooses.
    """

    spec: Spec
    opened: frozenset[str]

    @property
    def key(self) -> str:
        """The key of the spec, by which the run is found."""
        return self.spec.key

    def reference(self) -> Wanted:
        """Returns the run's full-data reference."""
        return Wanted(self.spec.reference(), self.opened)


def closed(spec: Spec, opened: Iterable[str]) -> str:
    """Returns the key of a spec whose open fields have the values in `OPEN`."""
    return spec.of_valid(**{name: OPEN.get(name, 0.0) for name in opened}).key


Wants = tuple[Wanted, ...]  # a run, or a run and the run to compare it with


def wants(claim: Claim, *, allow_imports: bool = False) -> dict[Metric, list[Wants]]:
    """Returns the runs that each testable metric reads, in the order of the seeds.

    Args:
        claim: The claim.
        allow_imports: Whether its file may name `package.module:Class`.

    Raises:
        BadInput: A metric selects no runs, or runs that can't be paired.
    """
    if not claim.testable:
        return {}
    requests, search = read_sweep(claim.path, allow_imports=allow_imports), read_search(claim.path)
    searched = frozenset() if search is None else frozenset(search.ranges)
    every = [(request, _wanted(request, searched)) for request in requests]
    return {
        metric: _of_metric(f"{claim.path}, [[metric]] {claim.metrics.index(metric) + 1}", metric, every)
        for metric in claim.testable
    }


def _wanted(request: RequestedRun, searched: frozenset[str]) -> Wanted:
    given = {name: value for name, value in request.fields.items() if value != AUTO}
    try:
        resolved = RunRequest.of(given | CHOSEN_HERE)
    except BadInput as error:
        raise BadInput(f"{request.where}: {error}") from None
    named = {name: given[name] for name in OPEN if name in given}
    spec = resolved.spec(OPEN["train_examples"]).of_valid(**OPEN | named)
    return Wanted(spec, frozenset(OPEN) - frozenset(named) | searched)


def _of_metric(where: str, metric: Metric, every: Sequence[tuple[RequestedRun, Wanted]]) -> list[Wants]:
    of = _selected(f"{where}, of", metric.of, every)
    if metric.against is None:
        return [(run,) for run in of]
    if isinstance(metric.against, str):
        assert metric.against == FULL
        return [(run, run.reference()) for run in of]
    against = _selected(f"{where}, against", metric.against, every)
    if len(of) != len(against):
        raise BadInput(f"{where} compares {len(of)} runs with {len(against)}: name as many seeds of both")
    return list(zip(of, against, strict=True))


def _selected(where: str, selector: Selector, every: Sequence[tuple[RequestedRun, Wanted]]) -> list[Wanted]:
    """Returns the runs that a selector allows, one for each seed, in the order of the seeds."""
    found = [wanted for request, wanted in every if _allows(selector, request)]
    shown = ", ".join(f"{key} = {_shown(values)}" for key, values in selector.items())
    if not found:
        raise BadInput(f"{where}: no run of the file has {shown}")
    by_seed = {wanted.spec.seed: wanted for wanted in found}
    if len(by_seed) < len({wanted.spec.key for wanted in found}):
        raise BadInput(f"{where}: several runs of a seed have {shown}; name more of their keys")
    return [by_seed[seed] for seed in sorted(by_seed)]


def _allows(selector: Selector, request: RequestedRun) -> bool:
    has = request.fields | {f"set.{name}": value for name, value in request.fields["set"].items()}
    return all(key in has and has[key] in values for key, values in selector.items())


def _shown(values: Sequence[Any]) -> str:
    return " or ".join(map(str, values))


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        path: The record's file.
        record: The record.
    """

    path: Path
    record: Record

    @property
    def scores_path(self) -> Path:
        """The file of the run's scores."""
        return Store(self.path.parent).scores_path(self.record.spec)

    def scores(self) -> Any:
        """Returns the method's scores, [N], float64. Raises BadInput where the file has no scores of this run."""
        import torch

        return torch.from_numpy(shared_scores(self.path, self.record))


def found_runs(
    wanted: Iterable[Wanted], scored: Container[str], records: Iterable[tuple[Path, Record]], where: Path
) -> dict[str, Run]:
    """Returns the finished run of each wanted one, by its key.

    Args:
        wanted: The runs.
        scored: Keys of the runs whose scores are read.
        records: Records with their paths.
        where: The folder of the records, for messages.

    Raises:
        BadInput: Runs are missing, or have several records; the message names them.
    """
    runs, records = {run.key: run for run in wanted}, list(records)
    names = run_names(run.spec for run in runs.values())
    members = {opened: _by_closed(records, opened) for opened in {run.opened for run in runs.values()}}
    found, missing = {}, []
    for key, run in runs.items():
        own = members[run.opened].get(closed(run.spec, run.opened), [])
        if len(own) > 1:
            names_of = sorted(differing([member.record.spec.flat() for member in own]))
            raise BadInput(
                f"{where} has {len(own)} records of {names[key]}, which differ in {listed(names_of)}: name a folder with "
                "one of them"
            )
        if not own:
            missing.append(names[key])
        elif key in scored and not own[0].scores_path.exists():
            missing.append(f"the scores of {names[key]}")
        else:
            found[key] = own[0]
    if missing:
        more = [f"{len(missing) - MOST_NAMED} more"] if len(missing) > MOST_NAMED else []
        shown = "; ".join([*missing[:MOST_NAMED], *more])
        raise BadInput(f"{where} lacks {len(missing)} of {len(runs)} runs of the claim: {shown}")
    return found


def _by_closed(records: Iterable[tuple[Path, Record]], opened: Iterable[str]) -> dict[str, list[Run]]:
    """Returns the runs of records in groups that differ only in the open fields, by the key of `closed`."""
    members: dict[str, list[Run]] = {}
    for path, record in records:
        members.setdefault(closed(record.spec, opened), []).append(Run(path, record))
    return members
