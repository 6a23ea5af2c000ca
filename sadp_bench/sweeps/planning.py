"""The plan of a sweep: its runs, those that are done, and the cost of the others. Planning trains nothing.

The plan contains each full-data reference once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sadp_bench.core import cores
from sadp_bench.core.errors import BadInput
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.record import Failure
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Found, Store, read_all
from sadp_bench.records.trials import FOLDER, Choice, choices, without_search
from sadp_bench.runs import trainer
from sadp_bench.runs.expected_cost import expected_visits, seconds_per_visit, shape
from sadp_bench.runs.preparation import Preparation, epochs_to_make, preparations
from sadp_bench.runs.resources import Resources
from sadp_bench.sweeps.resolver import Resolver
from sadp_bench.sweeps.sourcing import joined, sourced
from sadp_bench.sweeps.sweep_file import Source, named, read_search, read_sweep
from sadp_bench.sweeps.trial_specs import TrialSpecs
from sadp_bench.sweeps.warm import CAN_FORK

STARTUP_SECONDS = 5.0  # seconds until a new process trains; a guess, for estimates only
WARM_SECONDS = 1.0  # seconds until a process that is forked from a warm one trains; a guess, too
MAX_SHARD_DIGITS = 40  # characters of i/n; Python does not convert numbers of thousands of digits
RECORD_BYTES = 20_000  # bytes on disk of one record


def with_references(specs: Iterable[Spec]) -> list[Spec]:
    """Returns each run once, after the references of all runs."""
    specs = list(specs)
    references = [spec.reference() for spec in specs]
    return list({spec.key: spec for spec in [*references, *specs]}.values())


def sharers(
    specs: Iterable[Spec], before: Mapping[str, Preparation], alike: Callable[[Spec], Spec] = lambda spec: spec
) -> dict[str, str]:
    """Returns the group of each run, by key. The runs of a group share scores or a search.

    All methods and ratios share a search for connections. Without one, all ratios of a method that scores share its
    scores. Every other run has a group of its own.

    Args:
        specs: The runs.
        before: What each run does before training, by key.
        alike: Returns the same spec for runs that must be in one group for another reason.
    """

    def name(spec: Spec) -> Spec:
        if before[spec.key].search:
            return spec.reference()
        return spec.any_ratio() if before[spec.key].scoring else spec

    return {spec.key: alike(name(spec)).key for spec in specs}


def start_seconds(spec: Spec) -> float:
    """Returns the seconds until a run's process trains; see `executors.Local`."""
    return WARM_SECONDS if CAN_FORK and spec.device == "cpu" else STARTUP_SECONDS


def parse_shard(text: str | None) -> tuple[int, int]:
    """Returns (2, 3) for '2/3'. Raises BadInput for other text."""
    if text is None:
        return 1, 1
    number, slash, total = text.partition("/")
    few_digits = len(text) <= MAX_SHARD_DIGITS
    if slash and few_digits and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total):
        return int(number), int(total)
    raise BadInput(f"--shard is i/n with i from 1 to n, such as 1/3, not '{text}'")


def shard_of(specs: list[Spec], group: Mapping[str, str], shard: tuple[int, int]) -> list[Spec]:
    """Returns the runs of shard i of n. Each run is in exactly one shard, and each group is in one shard as a whole."""
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
        skipped: The states of runs that are not trained now, by key: settings or scores are missing, or a trial diverged.
        search: The search that chooses the runs' settings; None without one.
        sources: Keys of the runs that keep their scores, for other runs.
    """

    runs: list[Spec]
    done: frozenset[str]
    failed: dict[str, Failure]
    before: dict[str, Preparation]
    seconds: dict[str, float] = field(default_factory=dict)
    needed_bytes: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    search: SearchPlan | None = None
    sources: frozenset[str] = frozenset()

    @property
    def to_do(self) -> list[Spec]:
        """The runs to train, in the plan's order: those without a record that are not skipped."""
        return [spec for spec in self.runs if spec.key not in self.done and spec.key not in self.skipped]

    @property
    def trainable(self) -> Plan:
        """The plan without the runs that are skipped."""
        runs = [spec for spec in self.runs if spec.key not in self.skipped]
        seconds = {key: seconds for key, seconds in self.seconds.items() if key not in self.skipped}
        return dataclasses.replace(self, runs=runs, seconds=seconds, skipped={})

    @property
    def is_to_do(self) -> bool:
        """Whether any run or trial is still to train."""
        return bool(self.to_do) or self.search is not None and bool(self.search.plan.to_do)

    @property
    def whole_bytes(self) -> int:
        """Bytes on disk for runs and trials."""
        return self.needed_bytes + (0 if self.search is None else self.search.plan.needed_bytes)

    def expected_seconds(self, jobs: int) -> float:
        """Returns the seconds of all runs of this plan with `jobs` at a time, without its search."""
        return max(sum(self.seconds.values()) / jobs, max(self.seconds.values(), default=0.0))

    def whole_seconds(self, jobs: int) -> float:
        """Returns the seconds of the whole sweep: its search, then its runs."""
        return self.expected_seconds(jobs) + (0.0 if self.search is None else self.search.plan.expected_seconds(jobs))


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The search of a sweep.

    Attributes:
        plan: The plan of its trials.
        store: The trials' records.
        choices: The choices of the finished trials, by the key of `trials.without_search`.
        shown: Keys of the choices that the sweep's runs use.
        names: The searched settings.
    """

    plan: Plan
    store: Store
    choices: dict[str, Choice]
    shown: tuple[str, ...]
    names: tuple[str, ...]

    def is_over(self, trials: Iterable[Spec]) -> bool:
        """Returns whether each of these trials is done or diverged."""
        return all(spec.key in self.plan.done or spec.key in self.plan.skipped for spec in trials)


def make_plan(
    source: Source,
    store: Store,
    *,
    jobs: int = 1,
    shard: tuple[int, int] = (1, 1),
    data: Path | None = None,
    allow_imports: bool = False,
    message: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Reads a sweep, resolves its runs and estimates their cost. Writes nothing.

    Args:
        source: The sweep file, or its tables.
        store: The existing records.
        jobs: The number of runs that share this machine. Each has its share of the cores.
        shard: (i, n), the part of the runs to plan.
        data: The folder of the data sets.
        allow_imports: Whether the file may name `package.module:Class`.
        message: Shows one line to the user.

    Raises:
        BadInput: For every error that can be found before training.
    """
    resolver = Resolver(data, max(1, cores.available_threads() // jobs))
    requests, search = read_sweep(source, allow_imports=allow_imports), read_search(source)
    there = read_all([store.folder]) if store.folder.is_dir() else Found([], [], [])
    maker = Maker(resolver, jobs, there, message)
    if search is None:
        found = sourced(requests, resolver, store)
        runs = with_references(found.specs)
        before = preparations(runs)
        mine = shard_of(runs, joined(sharers(runs, before), found.of), shard)
        waiting = {spec.key: found.waiting[spec.key] for spec in mine if spec.key in found.waiting}
        return dataclasses.replace(maker.plan(mine, before, store, waiting), sources=found.sources)
    trials = TrialSpecs(search, f"{named(source)}, [search]", requests, resolver.spec)
    before = preparations(trials.runs)
    runs = shard_of(trials.runs, sharers(trials.runs, before, without_search), shard)
    searching = _search_plan(trials, runs, store, maker)
    specs, skipped = [], {}
    for spec in runs:
        choice = searching.choices.get(without_search(spec).key)
        is_decided = choice is not None and choice.best is not None and searching.is_over(trials.trials(spec))
        specs.append(choice.apply(spec) if is_decided and choice is not None else spec)
        if not is_decided:
            skipped[spec.key] = "after the search"
    before = {new.key: before[old.key] for old, new in zip(runs, specs, strict=True)}
    return dataclasses.replace(maker.plan(specs, before, store, skipped), search=searching)


def _search_plan(trials: TrialSpecs, runs: Sequence[Spec], store: Store, maker: Maker) -> SearchPlan:
    """Returns the search that chooses the settings of some runs."""
    store = Store(store.folder / FOLDER)
    there = read_all([store.folder]) if store.folder.is_dir() else Found([], [], [])
    specs = trials.of(runs, [record.spec for _, record in there.records], store.folder)
    diverged = {failure.spec.key: "diverged" for failure in there.failures if failure.epoch is not None}
    skipped = {spec.key: diverged[spec.key] for spec in specs if spec.key in diverged}
    plan = maker.plan(specs, preparations(specs), store, skipped)
    shown = tuple(dict.fromkeys(without_search(spec).key for spec in runs))
    return SearchPlan(
        plan, store, choices([record for _, record in there.records], there.failures), shown, trials.names
    )


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes plans: finds the runs that are done, and estimates the cost of the others.

    Attributes:
        resolver: The resolver of these runs.
        jobs: The number of runs that share this machine.
        there: All records and failures of the sweep's folder.
        message: Shows one line to the user.
    """

    resolver: Resolver
    jobs: int
    there: Found
    message: Callable[[str], None]

    def plan(
        self, runs: list[Spec], before: dict[str, Preparation], store: Store, skipped: Mapping[str, str] | None = None
    ) -> Plan:
        """Returns the plan of some runs. It estimates skipped runs too, except those that failed."""
        skipped = dict(skipped or {})
        done = frozenset(spec.key for spec in runs if spec.key not in skipped and store.find(spec) is not None)
        failed = {failure.spec.key: failure for failure in self.there.failures}
        plan = Plan(runs, done, failed, before, skipped=skipped)
        coming = [spec for spec in runs if spec.key not in done and (spec.key not in skipped or spec.key not in failed)]
        if not coming:
            return plan
        number, most = cores.available_threads(), max(spec.threads for spec in coming)
        if self.jobs * most > number:
            self.message(
                f"{self.jobs} x {most} threads on {number} cores will slow one another down: take fewer jobs or threads"
            )
        seconds = self._expected(coming, before, store)
        searches = {store.search_path(spec): self.resolver.search_bytes(spec) for spec in coming}
        kept_bytes = sum(size for path, size in searches.items() if not path.exists())
        needed_bytes = len(seconds) * RECORD_BYTES + self.jobs * self.resolver.checkpoint_bytes + kept_bytes
        return dataclasses.replace(plan, seconds=seconds, needed_bytes=needed_bytes)

    def _expected(self, specs: list[Spec], before: Mapping[str, Preparation], store: Store) -> dict[str, float]:
        """Returns the expected seconds of each run, by key.

        The cost of a visit comes from the records of runs of the same shape. For a shape without records, the first steps of
        one run are rehearsed.
        """

        def visits(spec: Spec, epochs: float) -> float:
            return expected_visits(spec, len(self.resolver.material(spec).held), epochs)

        known = seconds_per_visit(record for _, record in self.there.records) | self.resolver.rehearsed
        unknown = {shape(spec): spec for spec in reversed(specs) if shape(spec) not in known}
        if unknown:
            self.message(f"estimating the time of {len(specs)} runs from a few steps of {len(unknown)} of them")
        for of, spec in unknown.items():
            seconds = trainer.expected([spec], Resources(spec, self.resolver.material(spec)))[0]
            self.resolver.rehearsed[of] = seconds / visits(spec, sum(before[spec.key]))
        rates = known | self.resolver.rehearsed
        epochs = epochs_to_make(specs, before, store)
        return {spec.key: start_seconds(spec) + rates[shape(spec)] * visits(spec, epochs[spec.key]) for spec in specs}


def states(plan: Plan, store: Store) -> dict[str, str]:
    """Returns the state of each run, by key.

    A state is "done", "being trained" (by another sweep, now), "failed before", "to do", or why the run is skipped.
    """

    def state(spec: Spec) -> str:
        if spec.key in plan.done:
            return "done"
        if spec.key in plan.skipped:
            return plan.skipped[spec.key]
        if any(Lock(store.path(spec, suffix)).is_held() for suffix in (".lock", ".claim")):
            return "being trained"
        return "failed before" if spec.key in plan.failed else "to do"

    return {spec.key: state(spec) for spec in plan.runs}
