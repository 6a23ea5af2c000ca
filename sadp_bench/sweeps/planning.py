"""The plan of a sweep: its runs, those that are done, and the cost of the others. Trains nothing.

The plan contains the full-data reference of every run, once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.record import Failure
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Found, Store, read_all
from sadp_bench.runs import environment, resolve, run, trainer
from sadp_bench.runs.expected_cost import expected_visits, seconds_per_visit, shape
from sadp_bench.runs.preparation import Preparation, epochs_to_make, preparations
from sadp_bench.runs.resolve import Material
from sadp_bench.runs.resources import Resources
from sadp_bench.sweeps.sweep_file import RequestedRun, read_sweep

STARTUP_SECONDS = 5.0  # seconds until a process trains: a guess, for estimates only
MAX_SHARD_DIGITS = 40  # characters of i/n; Python refuses to read numbers of thousands of digits
RECORD_BYTES = 20_000  # bytes on disk, of one record


class Resolver:
    """Resolves the runs of a sweep file to specs, and finds early the errors of runs whose turn comes late.

    Each distinct network is built once, on the CPU, because some settings are only found wrong there.

    Args:
        data: The folder of the data sets.
        threads: Threads of a run that sets none.

    Attributes:
        checkpoint_bytes: Bytes on disk of the largest checkpoints among the runs.
    """

    def __init__(self, data: Path | None, threads: int) -> None:
        self.checkpoint_bytes = 0
        self._data, self._threads = data, threads
        self._opened: dict[Any, Any] = {}
        self._specs: dict[str, Spec] = {}
        self._materials: dict[tuple[Any, ...], Material] = {}
        self._weight_bytes: dict[str, int] = {}  # of each distinct network

    def spec(self, request: RequestedRun) -> Spec:
        """Returns the spec of one run. Raises BadInput with the place in the file."""
        fields = {"threads": self._threads} | request.fields
        seed = fields.pop("seed", 0)
        # Runs that differ in the seed alone are resolved once, because resolving copies the data.
        memory = json.dumps(fields, sort_keys=True)
        try:
            if memory not in self._specs:
                spec, material = resolve.resolve(fields, self._data, self._opened)
                self._materials.setdefault(_data_of(spec), material)
                self._build(spec)
                self._specs[memory] = spec
            return dataclasses.replace(self._specs[memory], seed=seed)
        except BadInput as error:
            raise BadInput(f"{request.where}: {error}") from None

    def material(self, spec: Spec) -> Material:
        """Returns the data of a spec that was resolved here."""
        return self._materials[_data_of(spec)]

    def search_bytes(self, spec: Spec) -> int:
        """Returns the bytes on disk of the search of a run that was resolved here; see `run.search_bytes`."""
        return run.search_bytes(spec, self._weight_bytes[_network_of(spec)])

    def _build(self, spec: Spec) -> None:
        network = _network_of(spec)
        if network not in self._weight_bytes:
            model = resolve.build_model(dataclasses.replace(spec, device="cpu"), self.material(spec), 0)
            self._weight_bytes[network] = resolve.weight_bytes(model)
        needed = run.checkpoint_bytes(spec, self._weight_bytes[network])
        self.checkpoint_bytes = max(self.checkpoint_bytes, needed)


def _data_of(spec: Spec) -> tuple[Any, ...]:
    return spec.dataset, spec.timesteps, spec.train_examples, spec.evaluate_on


def _network_of(spec: Spec) -> str:
    of = (spec.dataset, spec.timesteps, spec.backbone, spec.backbone_options, spec.precision, spec.kernel)
    return json.dumps(of, sort_keys=True)


def with_references(specs: Iterable[Spec]) -> list[Spec]:
    """Returns each run once, and before all of them the references that they share."""
    specs = list(specs)
    references = [spec.reference() for spec in specs]
    return list({spec.key: spec for spec in [*references, *specs]}.values())


def sharers(specs: Iterable[Spec], before: Mapping[str, Preparation]) -> dict[str, str]:
    """Returns a name of the runs that share scores or a search, by key.

    All methods and ratios share a search. Without one, all ratios of a method that scores share its scores. Every other
    run is alone.

    Args:
        specs: The runs.
        before: What each run does before training, by key.
    """

    def name(spec: Spec) -> Spec:
        if before[spec.key].search:
            return spec.reference()
        return spec.any_ratio() if before[spec.key].scoring else spec

    return {spec.key: name(spec).key for spec in specs}


def parse_shard(text: str | None) -> tuple[int, int]:
    """Returns (2, 3) for '2/3'. Raises BadInput for text that names no part."""
    if text is None:
        return 1, 1
    number, slash, total = text.partition("/")
    few_digits = len(text) <= MAX_SHARD_DIGITS
    if slash and few_digits and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total):
        return int(number), int(total)
    raise BadInput(f"--shard is i/n with i from 1 to n, such as 1/3, not '{text}'")


def shard_of(specs: list[Spec], group: Mapping[str, str], shard: tuple[int, int]) -> list[Spec]:
    """Returns the runs of shard i of n. The n shards together are all runs, none twice; a group is never divided."""
    number, total = shard
    groups = list(dict.fromkeys(group[spec.key] for spec in specs))
    mine = set(groups[number - 1 :: total])
    return [spec for spec in specs if group[spec.key] in mine]


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of a sweep.

    Attributes:
        runs: The runs of this shard, references first.
        done: Keys of the runs that have a record.
        failed: Failures that an earlier sweep recorded, by key.
        before: What each run does before training, by key.
        seconds: Expected seconds of each run that is not done, by key.
        needed_bytes: Bytes on disk for records, checkpoints and searches.
    """

    runs: list[Spec]
    done: frozenset[str]
    failed: dict[str, Failure]
    before: dict[str, Preparation]
    seconds: dict[str, float] = field(default_factory=dict)
    needed_bytes: int = 0

    @property
    def to_do(self) -> list[Spec]:
        """The runs without a record, in the plan's order."""
        return [spec for spec in self.runs if spec.key not in self.done]

    def expected_seconds(self, jobs: int) -> float:
        """Returns the seconds of the whole sweep with `jobs` runs at a time."""
        return max(sum(self.seconds.values()) / jobs, max(self.seconds.values(), default=0.0))


def make_plan(
    path: Path,
    store: Store,
    *,
    jobs: int = 1,
    shard: tuple[int, int] = (1, 1),
    data: Path | None = None,
    allow_imports: bool = False,
    message: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Reads a sweep file, resolves its runs and estimates their cost. Writes nothing.

    Args:
        path: The sweep file.
        store: The records that are there.
        jobs: Runs that share this machine; each has its share of the cores.
        shard: (i, n), the part of the runs to plan.
        data: The folder of the data sets.
        allow_imports: Whether the file may name `package.module:Class`.
        message: Shows one line to the user.

    Raises:
        BadInput: For all that can be known to fail before training.
    """
    cores = environment.available_threads()
    resolver = Resolver(data, max(1, cores // jobs))
    runs = with_references([resolver.spec(request) for request in read_sweep(path, allow_imports=allow_imports)])
    before = preparations(runs)
    runs = shard_of(runs, sharers(runs, before), shard)
    there = read_all([store.folder]) if store.folder.is_dir() else Found([], [], [])
    done = frozenset(spec.key for spec in runs if store.find(spec) is not None)
    plan = Plan(runs, done, {failure.spec.key: failure for failure in there.failures}, before)
    if not plan.to_do:
        return plan
    most = max(spec.threads for spec in plan.to_do)
    if jobs * most > cores:
        message(f"{jobs} x {most} threads on {cores} cores will slow one another down: take fewer jobs, or threads")
    known = seconds_per_visit(record for _, record in there.records)
    seconds = _expected(plan, known, resolver, store, message)
    searches = {store.search_path(spec): resolver.search_bytes(spec) for spec in plan.to_do}
    kept_bytes = sum(size for path, size in searches.items() if not path.exists())
    needed_bytes = len(seconds) * RECORD_BYTES + jobs * resolver.checkpoint_bytes + kept_bytes
    return dataclasses.replace(plan, seconds=seconds, needed_bytes=needed_bytes)


def _expected(
    plan: Plan,
    known: Mapping[str, float],
    resolver: Resolver,
    store: Store,
    message: Callable[[str], None],
) -> dict[str, float]:
    """Returns the expected seconds of each run that is not done, by key.

    The cost of a visit is that in the records of the run's shape. For a shape without records the first steps of one run
    are rehearsed.
    """

    def visits(spec: Spec, epochs: float) -> float:
        return expected_visits(spec, len(resolver.material(spec).held), epochs)

    unknown = {shape(spec): spec for spec in reversed(plan.to_do) if shape(spec) not in known}
    if unknown:
        message(f"estimating the time of {len(plan.to_do)} runs from a few steps of {len(unknown)} of them")
    rehearsed = {
        of: trainer.expected([spec], Resources(spec, resolver.material(spec)))[0]
        / visits(spec, sum(plan.before[spec.key]))
        for of, spec in unknown.items()
    }
    rates = {**known, **rehearsed}
    epochs = epochs_to_make(plan.to_do, plan.before, store)
    return {spec.key: STARTUP_SECONDS + rates[shape(spec)] * visits(spec, epochs[spec.key]) for spec in plan.to_do}


def states(plan: Plan, store: Store) -> dict[str, str]:
    """Returns by key "done", "being trained" (by another sweep, now), "failed before" or "to do"."""

    def state(spec: Spec) -> str:
        if spec.key in plan.done:
            return "done"
        if any(Lock(store.path(spec, suffix)).is_held() for suffix in (".lock", ".claim")):
            return "being trained"
        return "failed before" if spec.key in plan.failed else "to do"

    return {spec.key: state(spec) for spec in plan.runs}
