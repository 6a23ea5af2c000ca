"""What the gate puts side by side, and what it found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec, shown

# Kinds of a comparison, by what it takes to hold.
ANYWHERE = "anywhere"  # exact, whatever the machine
HERE = "here"  # exact where the environments agree
BAND = "band"  # within a band made of the reference's own spread
SPEED = "speed"  # never more than a warning

PASSED, FAILED, SKIPPED, WARNING = "passed", "failed", "skipped", "warning"

MINUS_FULL = "accuracy minus full data's"  # the name of a comparison

# What must agree before a CPU's numbers can be the same to the last bit. The precision is part of the spec.
EXACT_TOGETHER = ("device", "processor", "threads", "kernel", "bf16", "torch", "spikingjelly")


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one comparison, over all seeds of a run.

    run: method and ratio. kind: one of the four above. outcome: passed, failed, skipped or warning. text: one line, what was
    found. reference, now, allowed: numbers or short texts, None where there is none to name.
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
class Pair:
    """A run of the reference beside the same run made now. differing: what keeps the two from being exactly alike."""

    reference: Record
    now: Record
    differing: tuple[str, ...]

    @property
    def seed(self) -> int:
        return self.reference.spec.seed


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The pairs that differ in the seed alone, by rising seed."""

    label: str
    pairs: list[Pair]

    @property
    def spec(self) -> Spec:
        return self.pairs[0].reference.spec

    @property
    def references(self) -> list[Record]:
        return [pair.reference for pair in self.pairs]

    @property
    def nows(self) -> list[Record]:
        return [pair.now for pair in self.pairs]

    @property
    def setting(self) -> str:
        """What names the groups that differ in method and ratio alone: their seeds spread alike."""
        return dataclasses.replace(self.spec, method="", ratio=0.0, seed=0, method_options={}).key


def differing(reference: Record, now: Record) -> tuple[str, ...]:
    """Why two records of one spec can't be held to be exactly alike, a phrase each; none: they can."""
    phrases = [
        f"{name} {reference.environment.get(name)} → {now.environment.get(name)}"
        for name in EXACT_TOGETHER
        if reference.environment.get(name) != now.environment.get(name)
    ]
    if not phrases and reference.environment.get("device") != "cpu":
        phrases.append("a GPU adds in no fixed order")
    return tuple(phrases)


def group(references: Iterable[Record], nows: Mapping[str, Record]) -> list[Group]:
    """Every reference whose key is among `nows`, paired and grouped: full data first, then in the records' order."""
    references = list(references)
    members: dict[str, list[Pair]] = {}
    for record in sorted(references, key=lambda record: (record.spec.method != "full", record.spec.seed)):
        if (now := nows.get(record.spec.key)) is not None:
            pair = Pair(record, now, differing(record, now))
            members.setdefault(any_seed(record.spec).key, []).append(pair)
    names = labels(record.spec for record in references)
    return [Group(names[key], pairs) for key, pairs in members.items()]


def any_seed(spec: Spec) -> Spec:
    """What the runs have in common that differ in the seed alone."""
    return dataclasses.replace(spec, seed=0)


def labels(specs: Iterable[Spec]) -> dict[str, str]:
    """By key of any seed: method and ratio, and, of those that share them, the choices that differ."""
    flat = {any_seed(spec).key: _flat(spec) for spec in specs}
    found = {}
    for key, own in flat.items():
        alike = [other for other in flat.values() if all(other[name] == own[name] for name in ("method", "ratio"))]
        more = [f"{name}={own[name]}" for name in own if len({json.dumps(o.get(name)) for o in alike}) > 1]
        found[key] = " ".join([own["method"], own["ratio"], *more])
    return found


def _flat(spec: Spec) -> dict[str, str]:
    fields = spec.to_json() | {"seed": 0}
    options = [fields.pop(f"{owner}_options") for owner in ("method", "backbone", "sparsity")]
    return {
        name: f"{v:g}" if isinstance(v, float) else shown(v) for part in (fields, *options) for name, v in part.items()
    }
