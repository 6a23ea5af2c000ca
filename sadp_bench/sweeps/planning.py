"""From a sweep file to a plan: which runs there are, which are done, what the others will cost. Nothing here trains.

The full-data reference of every run is added, once.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Found, Store, read_all
from sadp_bench.runs import environment, resolve, run, trainer
from sadp_bench.runs.resolve import Material
from sadp_bench.runs.trainer import EVALUATION_COST
from sadp_bench.sweeps.sweep_file import Asked, read

# What a step's time does not depend on, or hardly: runs that differ in these alone have one shape.
NO_PART_OF_SHAPE = (
    "method ratio seed protocol epochs train_examples learning_rate schedule weight_decay evaluate_on evaluate_every"
).split()
STARTUP_SECONDS = 5.0  # of a process, until it trains: a guess for the estimate only
RECORD_BYTES = 20_000


class Resolver:
    """Turns what was asked for into specs, and finds now what would fail only when its turn comes.

    Each distinct network is built once, on the CPU: some settings are only found wrong there.
    checkpoint_bytes: what the run with the largest checkpoints needs for them.
    """

    def __init__(self, data: Path | None, threads: int) -> None:
        self.checkpoint_bytes = 0
        self._data, self._threads = data, threads
        self._opened: dict[Any, Any] = {}
        self._specs: dict[str, Spec] = {}
        self._materials: dict[tuple[Any, ...], Material] = {}
        self._networks: set[str] = set()

    def spec(self, asked: Asked) -> Spec:
        """Raises BadInput with the place in the file."""
        fields = {"threads": self._threads} | asked.fields
        seed = fields.pop("seed", 0)
        # The seed decides nothing but itself, and resolving copies the data.
        memory = json.dumps(fields, sort_keys=True)
        try:
            if memory not in self._specs:
                spec, material = resolve.resolve(fields, self._data, self._opened)
                self._materials.setdefault(_data_of(spec), material)
                self._build(spec)
                self._specs[memory] = spec
            return dataclasses.replace(self._specs[memory], seed=seed)
        except BadInput as error:
            raise BadInput(f"{asked.where}: {error}") from None

    def material(self, spec: Spec) -> Material:
        return self._materials[_data_of(spec)]

    def _build(self, spec: Spec) -> None:
        of = (spec.dataset, spec.timesteps, spec.backbone, spec.backbone_options, spec.precision, spec.optimizer)
        network = json.dumps(of, sort_keys=True)
        if network not in self._networks:
            needed = run.checkpoint_bytes(dataclasses.replace(spec, device="cpu"), self.material(spec))
            self.checkpoint_bytes = max(self.checkpoint_bytes, needed)
            self._networks.add(network)


def _data_of(spec: Spec) -> tuple[Any, ...]:
    return spec.dataset, spec.timesteps, spec.train_examples, spec.evaluate_on


def with_references(specs: Iterable[Spec]) -> list[Spec]:
    """Each run once, and before all of them the references that they share."""
    specs = list(specs)
    references = [spec.reference() for spec in specs]
    return list({spec.key: spec for spec in [*references, *specs]}.values())


def scoring_epochs(specs: Iterable[Spec]) -> dict[str, float]:
    """By key, the epochs' worth of visits that a run's method makes before training, if its scores aren't there yet."""
    found, of_any_seed = {}, dict[str, float]()
    for spec in specs:
        alike = spec.any_seed().key
        if alike not in of_any_seed:
            of_any_seed[alike] = resolve.make_pruner(spec).scoring_epochs(spec.epochs)
        found[spec.key] = of_any_seed[alike]
    return found


def sharers(specs: Iterable[Spec], scoring: Mapping[str, float]) -> dict[str, str]:
    """By key, what names the runs that share its scores: for methods that score, all ratios; otherwise the run alone."""
    return {spec.key: spec.any_ratio().key if scoring[spec.key] else spec.key for spec in specs}


def parse_shard(text: str | None) -> tuple[int, int]:
    """'2/3' -> (2, 3)."""
    if text is None:
        return 1, 1
    number, slash, total = text.partition("/")
    if slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total):
        return int(number), int(total)
    raise BadInput(f"--shard is i/n with i from 1 to n, such as 1/3, not '{text}'")


def shard_of(specs: list[Spec], group: Mapping[str, str], shard: tuple[int, int]) -> list[Spec]:
    """One of n parts that together are all runs, none twice; runs that share scores stay together."""
    number, total = shard
    groups = list(dict.fromkeys(group[spec.key] for spec in specs))
    mine = set(groups[number - 1 :: total])
    return [spec for spec in specs if group[spec.key] in mine]


def shape(spec: Spec) -> str:
    """What a step's time depends on."""
    settings = {name: value for name, value in spec.any_method().flat().items() if name not in NO_PART_OF_SHAPE}
    return json.dumps(settings, sort_keys=True)


def visits(spec: Spec, num_held: int, scoring: float = 0.0) -> float:
    """Examples that a run will see. scoring: epochs' worth of those that it sees before training. num_held: examples that
    it is evaluated on, which cost less."""
    share = 1.0 if spec.protocol == "updates" else 1 - spec.ratio
    evaluations = math.ceil(spec.epochs / spec.evaluate_every) + 1  # and one for the firing rates
    return spec.train_examples * (spec.epochs * share + scoring) + EVALUATION_COST * num_held * evaluations


def seconds_per_visit(records: Iterable[Record]) -> dict[str, float]:
    """By shape: the median over the records. One that used another run's scores holds their seconds and their visits."""
    found: dict[str, list[float]] = {}
    for record in records:
        evaluations = sum("test_accuracy" in row for row in record.epochs) + 1
        seen = record.examples_seen + record.prepare_examples + EVALUATION_COST * record.test_examples * evaluations
        found.setdefault(shape(record.spec), []).append(sum(record.seconds.values()) / seen)
    return {of: statistics.median(values) for of, values in found.items()}


def scorers(specs: Iterable[Spec], group: Mapping[str, str], has_scores: Callable[[Spec], bool]) -> set[str]:
    """The keys of the runs that will have to make their scores: the first of each group whose scores aren't there."""
    first: dict[str, Spec] = {}
    for spec in specs:
        first.setdefault(group[spec.key], spec)
    return {spec.key for spec in first.values() if not has_scores(spec)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep has to do.

    runs: this shard's, references first. done: the keys of those with a record. failed: why others have none, as far as an
    earlier sweep left word. group: by key, what names the runs that share its scores. seconds: by key, the time expected
    of each that is to do. needed_bytes: of disk, for records and checkpoints.
    """

    runs: list[Spec]
    done: frozenset[str]
    failed: dict[str, Failure]
    group: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)
    needed_bytes: int = 0

    @property
    def to_do(self) -> list[Spec]:
        return [spec for spec in self.runs if spec.key not in self.done]

    def expected_seconds(self, jobs: int) -> float:
        """Of the whole sweep, with so many runs at a time."""
        return max(sum(self.seconds.values()) / jobs, max(self.seconds.values(), default=0.0))


def make_plan(
    path: Path,
    store: Store,
    *,
    jobs: int = 1,
    shard: tuple[int, int] = (1, 1),
    data: Path | None = None,
    allow_imports: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Reads, resolves and estimates. Writes nothing. Raises BadInput for all that can be known to fail before training."""
    cores = environment.available_threads()
    resolver = Resolver(data, max(1, cores // jobs))
    runs = with_references([resolver.spec(asked) for asked in read(path, allow_imports=allow_imports)])
    scoring = scoring_epochs(runs)
    group = sharers(runs, scoring)
    runs = shard_of(runs, group, shard)
    there = read_all([store.folder]) if store.folder.is_dir() else Found([], [], [])
    done = frozenset(spec.key for spec in runs if store.find(spec) is not None)
    plan = Plan(runs, done, {failure.spec.key: failure for failure in there.failures}, group)
    if not plan.to_do:
        return plan
    most = max(spec.threads for spec in plan.to_do)
    if jobs * most > cores:
        say(f"{jobs} x {most} threads on {cores} cores will slow one another down: take fewer jobs, or threads")
    known = seconds_per_visit(record for _, record in there.records)
    seconds = _expected(plan, known, scoring, resolver, store, say)
    needed_bytes = len(seconds) * RECORD_BYTES + jobs * resolver.checkpoint_bytes
    return dataclasses.replace(plan, seconds=seconds, needed_bytes=needed_bytes)


def _expected(
    plan: Plan,
    known: Mapping[str, float],
    scoring: Mapping[str, float],
    resolver: Resolver,
    store: Store,
    say: Callable[[str], None],
) -> dict[str, float]:
    """By key, the seconds of each run that is to do. Of a shape without records the first run's first steps are rehearsed."""

    def visits_of(spec: Spec, scores: bool) -> float:
        return visits(spec, len(resolver.material(spec).held), scoring[spec.key] if scores else 0.0)

    unknown = {shape(spec): spec for spec in reversed(plan.to_do) if shape(spec) not in known}
    if unknown:
        say(f"estimating the time of {len(plan.to_do)} runs from a few steps of {len(unknown)} of them")
    rehearsed = {
        of: trainer.expected([spec], resolver.material(spec))[0] / visits_of(spec, True) for of, spec in unknown.items()
    }
    seconds_of = {**known, **rehearsed}
    own = scorers(plan.to_do, plan.group, lambda spec: store.scores_path(spec).exists())
    return {
        spec.key: STARTUP_SECONDS + seconds_of[shape(spec)] * visits_of(spec, spec.key in own) for spec in plan.to_do
    }


def states(plan: Plan, store: Store) -> dict[str, str]:
    """By key: "done", "being trained" (by another sweep, now), "failed before" or "to do"."""

    def state(spec: Spec) -> str:
        if spec.key in plan.done:
            return "done"
        if any(Lock(store.path(spec, suffix)).is_held() for suffix in (".lock", ".claim")):
            return "being trained"
        return "failed before" if spec.key in plan.failed else "to do"

    return {spec.key: state(spec) for spec in plan.runs}
