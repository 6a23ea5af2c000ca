"""Runs that train on the scores of other runs of a sweep: `from` in a sweep file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store, read
from sadp_bench.runs import exporting
from sadp_bench.runs.building import make_pruner
from sadp_bench.sweeps.resolver import Resolver
from sadp_bench.sweeps.sweep_file import RequestedRun

AFTER = "after its scores"  # state of a run whose scores do not exist yet


@dataclass(frozen=True, slots=True)
class Sourced:
    """The runs of a sweep. Runs that make scores for others come first.

    Attributes:
        specs: The runs. A run whose scores do not exist yet lacks their hash, so its key is provisional.
        sources: Keys of the runs that keep their scores.
        of: The key of the run that makes the scores, by the key of the run that trains on them.
        waiting: The states of runs whose scores do not exist yet, by key.
    """

    specs: list[Spec] = field(default_factory=list)
    sources: frozenset[str] = frozenset()
    of: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)


def sourced(requests: Iterable[RequestedRun], resolver: Resolver, store: Store) -> Sourced:
    """Returns the specs of requests, with the runs that make their scores.

    Raises:
        BadInput: A run that should make scores cannot make any, or has a record without scores.
    """
    makers: dict[str, Spec] = {}
    specs: list[Spec] = []
    of: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for request in requests:
        if request.source is None:
            specs.append(resolver.spec(request))
            continue
        if isinstance(request.source, Path):
            specs.append(resolver.spec(_with_file(request, _scores_of_record(request.where, request.source))))
            continue
        maker = _maker(request.source, resolver, store)
        makers[maker.key] = maker
        kept = store.path(maker, exporting.SCORES)
        if kept.exists():
            spec = resolver.spec(_with_file(request, kept))
        else:
            spec = _without_scores(request, resolver, maker)
            waiting[spec.key] = AFTER
        of[spec.key] = maker.key
        specs.append(spec)
    return Sourced([*makers.values(), *specs], frozenset(makers), of, waiting)


def joined(group: Mapping[str, str], of: Mapping[str, str]) -> dict[str, str]:
    """Returns the groups of runs for shards, with two groups joined where a run of one trains on scores of the other.

    Args:
        group: The name of each run's group, by the run's key.
        of: See `Sourced`.
    """
    found = dict(group)
    for taker, maker in of.items():
        old, new = found[taker], found[maker]
        found |= {key: new for key, name in found.items() if name == old}
    return found


def _with_file(request: RequestedRun, file: Path) -> RequestedRun:
    settings = {**request.fields["set"], "file": str(file)}
    return RequestedRun(request.where, {**request.fields, "set": settings})


def _maker(request: RequestedRun, resolver: Resolver, store: Store) -> Spec:
    maker = resolver.spec(request)
    try:
        exporting.check_scores_kept(maker, make_pruner(maker))
        is_done = store.find(maker) is not None
    except BadInput as error:
        raise BadInput(f"{request.where}: {error}") from None
    if is_done and not exporting.has_scores(maker, store):
        raise BadInput(
            f"{request.where}: {store.path(maker)} kept no scores; remove it, and the sweep trains this run anew with scores"
        )
    return maker


def _scores_of_record(where: str, path: Path) -> Path:
    """Returns the scores beside a record. Raises BadInput where there are none."""
    try:
        read(path)
    except BadInput as error:
        raise BadInput(f"{where}: from = '{path}': {error}") from None
    kept = path.with_suffix(exporting.SCORES)
    if not kept.exists():
        raise BadInput(
            f"{where}: from = '{path}' kept no scores ({kept.name}); train it with --save-scores, or export them: sadp-bench "
            f"export {path} --scores {kept}"
        )
    return kept


def _without_scores(request: RequestedRun, resolver: Resolver, maker: Spec) -> Spec:
    """Returns a run whose scores do not exist yet. In place of their hash it has the key of the run that makes them."""
    settings: dict[str, Any] = request.fields["set"]
    of_others = {name: value for name, value in settings.items() if "." in name}
    fields = {**request.fields, "method": "random", "set": {**of_others, "fresh": False}}
    spec = resolver.spec(RequestedRun(request.where, fields))
    own = {"file": "", "sha256": f"of run {maker.key}", **{k: v for k, v in settings.items() if "." not in k}}
    found = spec.of_valid(method="subset", method_options=own)
    try:
        make_pruner(found)
        return dataclasses.replace(found)  # checks all fields, which `of_valid` does not
    except BadInput as error:
        raise BadInput(f"{request.where}: {error}") from None
