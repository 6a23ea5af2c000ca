"""The pairs of records and groups of pairs that the gate compares, and the findings of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sadp_bench.records.naming import run_names
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec

# Kinds of a comparison.
ANYWHERE = "anywhere"  # exact on every machine
HERE = "here"  # exact in the same environment
BAND = "band"  # within a band from the reference's spread
SPEED_CHECK = "speed"  # causes at most a warning

PASSED, FAILED, SKIPPED, WARNING = "passed", "failed", "skipped", "warning"

MINUS_FULL = "accuracy minus full data's"  # the name of a comparison

# A CPU reproduces a run to the last bit only if these fields of the environment agree. The spec contains the precision.
EXACT_TOGETHER = ("device", "processor", "threads", "kernel", "bf16", "torch", "spikingjelly")


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one comparison over all seeds of a run.

    Attributes:
        run: Method and ratio, and the settings that distinguish the run.
        name: The quantity that was compared.
        kind: ANYWHERE, HERE, BAND or SPEED_CHECK.
        outcome: PASSED, FAILED, SKIPPED or WARNING.
        text: The result in one line.
        reference: The reference's value, a number or a short text; None without such a value.
        now: The value of the new runs; None without such a value.
        allowed: The limit, or both limits; None without such a value.
    """

    run: str
    name: str
    kind: str
    outcome: str
    text: str
    reference: Any = None
    now: Any = None
    allowed: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class RecordPair:
    """The reference's record and the new record of one run.

    Attributes:
        reference: The reference's record.
        now: The new record.
        differing: The differences of the environments that prevent an exact comparison.
    """

    reference: Record
    now: Record
    differing: tuple[str, ...]

    @property
    def seed(self) -> int:
        """The seed of both runs."""
        return self.reference.spec.seed


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The pairs that differ only in the seed, in rising order of the seed."""

    label: str
    pairs: list[RecordPair]

    @property
    def spec(self) -> Spec:
        """The spec of the first seed."""
        return self.pairs[0].reference.spec

    @property
    def references(self) -> list[Record]:
        """The reference's records."""
        return [pair.reference for pair in self.pairs]

    @property
    def nows(self) -> list[Record]:
        """The new records."""
        return [pair.now for pair in self.pairs]

    @property
    def setting(self) -> str:
        """A key that is equal for groups that differ only in method and ratio. Their seeds have a common spread."""
        return self.spec.any_method().key


def differing_environments(reference: Record, now: Record) -> tuple[str, ...]:
    """Returns the reasons why two records of one spec may differ in some bits, a phrase each."""
    phrases = [
        f"{name} {reference.environment.get(name)} → {now.environment.get(name)}"
        for name in EXACT_TOGETHER
        if reference.environment.get(name) != now.environment.get(name)
    ]
    if not phrases and reference.environment.get("device") != "cpu":
        phrases.append("a GPU adds in no fixed order")
    return tuple(phrases)


def group(references: Iterable[Record], nows: Mapping[str, Record]) -> list[Group]:
    """Returns the groups of references with a new record: full data first, then in the order of the records.

    Args:
        references: The reference's records.
        nows: The new records by key.
    """
    references = list(references)
    members: dict[str, list[RecordPair]] = {}
    for record in sorted(references, key=lambda record: (record.spec.method != "full", record.spec.seed)):
        if (now := nows.get(record.spec.key)) is not None:
            pair = RecordPair(record, now, differing_environments(record, now))
            members.setdefault(record.spec.any_seed().key, []).append(pair)
    names = labels(references)
    return [Group(names[key], pairs) for key, pairs in members.items()]


def labels(records: Iterable[Record]) -> dict[str, str]:
    """Returns the label of each run, by the key of `Spec.any_seed`: method, ratio, and choices that set it apart."""
    return run_names(record.spec.any_seed() for record in records)
