"""What a finished run leaves behind: raw numbers only. What follows from them is in `metrics`."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from sadp_bench.core.errors import BadInput
from sadp_bench.core.phases import PHASES
from sadp_bench.records.spec import Spec

SCHEMA = 1
DISTURBED = "disturbed"  # in `environment`, of records that were read; never written
MAX_DEPTH = 10  # levels of lists and tables
MAX_VALUE = 1e100  # of a count or a duration: what follows from two such numbers is finite


@dataclass(frozen=True, slots=True)
class Record:
    """One finished run.

    environment: versions, commit, device, threads, kernel; no host or user name (see `environment.describe`).
    seconds: by phase; prepare, select and train are charged, evaluate is not (see `clock`).
    num_examples: N, the training set's size. examples_seen: visits made in training. prepare_examples: visits made
    for scoring and for a ticket's search, charged as time.
    epochs: one row each: epoch, kept, mean_weight, train_loss, learning_rate, seconds, test_accuracy where it was
    evaluated (on what `spec.evaluate_on` names), and surveyed, the visits that a method asked for before it selected.
    test_accuracy: share in [0, 1], the last epoch's; on the held-out part of the training set where
    `spec.evaluate_on` is "validation".
    firing_rate: by spiking layer, spikes per neuron and time step over the evaluated examples, in evaluation mode.
    peak_memory_bytes: the device's on a GPU, the process's on a CPU (so an upper bound there; 0 where the
    system does not tell).
    data_sha256: of the training and evaluation inputs and labels used.
    interruptions: how often the run was begun or resumed again before it finished. Seconds are of all parts together;
    what was trained after the last checkpoint before an interruption, and so again, counts once.
    scores_from: the key of the run whose scoring this one used and was charged for; None where it made its own or has none.
    visits: how often training showed each example, as `visits.pack` writes it, and class_visits: the mean by class; None
    and empty in records of an earlier version.
    train_memory_bytes: the most that training steps took beyond what was in use before them (see `memory`; of a copy of the
    network before training, without what a method watches); None where the system does not tell, as in records of an
    earlier version.
    operations: of one inference, see `operations`: accumulates, multiply_accumulates, energy_joules (an estimate).
    density: the share of the connections that exist in the end. ticket: what the search for them tells (`--sparsity`), with
    its seconds and visits, which are part of `prepare` and prepare_examples.
    """

    spec: Spec
    environment: dict[str, Any]
    seconds: dict[str, float]
    num_examples: int
    examples_seen: int
    prepare_examples: int
    epochs: list[dict[str, Any]]
    test_accuracy: float
    test_examples: int
    firing_rate: list[float]
    num_parameters: int
    peak_memory_bytes: int
    data_sha256: str
    finished: str
    interruptions: int = 0
    scores_from: str | None = None
    visits: str | None = None
    class_visits: dict[str, float] = field(default_factory=dict)
    train_memory_bytes: int | None = None
    operations: dict[str, Any] = field(default_factory=dict)
    density: float = 1.0
    ticket: dict[str, Any] = field(default_factory=dict)

    @property
    def disturbed(self) -> str | None:
        """Why its seconds say nothing, as a note beside it tells (`store.read_all`); None where they count."""
        return self.environment.get(DISTURBED)

    def to_json(self) -> dict[str, Any]:
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "spec"}
        return {"schema": SCHEMA, "key": self.spec.key, "spec": self.spec.to_json(), **rest}

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """Raises BadInput where the data is no record of this schema or does not fit its key."""
        fields = dataclasses.fields(cls)
        names = {f.name for f in fields}
        spec = _spec_of(data, {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING})
        _check_types(data)
        return cls(spec=spec, **{name: data[name] for name in (names & set(data)) - {"spec"}})


@dataclass(frozen=True, slots=True)
class Failure:
    """One run that ended without a record.

    reason: one line. epoch (from 0) and learning_rate: where training diverged. last_lines: the last that its process
    printed. attempts: how often it was tried.
    """

    spec: Spec
    reason: str
    when: str
    epoch: int | None = None
    learning_rate: float | None = None
    last_lines: list[str] = field(default_factory=list)
    attempts: int = 1

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "key": self.spec.key, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Any) -> Failure:
        """Raises BadInput where the data is no failure of this schema or does not fit its key."""
        names = {f.name for f in dataclasses.fields(cls)}
        spec = _spec_of(data, names)
        if not isinstance(data["reason"], str) or not isinstance(data["last_lines"], list):
            raise BadInput("the failure's reason or last lines are of a wrong type")
        for name in ("epoch", "learning_rate", "attempts"):
            if not (_is_amount(data[name]) or data[name] is None and name != "attempts"):
                raise BadInput(f"the failure's {name} is no number: {data[name]}")
        return cls(spec=spec, **{name: data[name] for name in names - {"spec"}})


def _spec_of(data: Any, wanted: set[str]) -> Spec:
    """Of a record's or failure's file, whose schema, fields and key are checked."""
    if not isinstance(data, dict) or "schema" not in data:
        raise BadInput("not a record of sadp-bench")
    check_leaves(data)
    if data["schema"] != SCHEMA:
        raise BadInput(f"a record of schema {data['schema']}; this version reads schema {SCHEMA}")
    missing = sorted((wanted | {"key", "spec"}) - set(data))
    if missing:
        raise BadInput(f"the record lacks {', '.join(missing)}")
    try:
        spec = Spec.from_json(data["spec"])
    except (TypeError, AttributeError):
        raise BadInput("the record's spec has values of a wrong type") from None
    if spec.key != data["key"]:
        raise BadInput(f"the record's key {data['key']} does not fit its spec ({spec.key}): edited by hand?")
    return spec


def check_leaves(value: Any, depth: int = 0) -> None:
    """Nothing in it can steer a terminal, every number is one that a float can hold, and it is no bottomless pit."""
    if depth > MAX_DEPTH:
        raise BadInput("the record is nested too deep: made by a stranger?")
    if isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            check_leaves(part, depth + 1)
    if isinstance(value, str) and not value.isprintable():
        raise BadInput("the record holds control characters: made by a stranger?")
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        raise BadInput("the record holds a number that is not finite: damaged?")


def _check_types(data: dict[str, Any]) -> None:
    wanted: dict[str, tuple[type, ...]] = {
        "environment": (dict,),
        "seconds": (dict,),
        "epochs": (list,),
        "num_examples": (int,),
        "examples_seen": (int,),
        "prepare_examples": (int,),
        "test_accuracy": (int, float),
        "data_sha256": (str,),
        "firing_rate": (list,),
    }
    if type(data.get("interruptions", 0)) is not int or not isinstance(data.get("scores_from"), str | None):
        raise BadInput("the record's interruptions or scores_from are of a wrong type")
    by_class = data.get("class_visits", {})
    if not (
        isinstance(data.get("visits"), str | None)
        and isinstance(by_class, dict)
        and all(map(_is_amount, by_class.values()))
    ):
        raise BadInput("the record's visits or class_visits are of a wrong type")
    counted, ticket, memory = data.get("operations", {}), data.get("ticket", {}), data.get("train_memory_bytes")
    if not (
        isinstance(counted, dict)
        and all(map(_is_amount, counted.values()))
        and isinstance(ticket, dict)
        and (memory is None or _is_amount(memory))
        and _is_amount(data.get("density", 1.0))
    ):
        raise BadInput("the record's operations, ticket, density or train_memory_bytes are of a wrong type")
    for name, kinds in wanted.items():
        if not isinstance(data[name], kinds):
            raise BadInput(f"the record's {name} is of a wrong type: {type(data[name]).__name__}")
    seconds = data["seconds"]
    if not (set(PHASES) <= set(seconds) and all(map(_is_amount, seconds.values())) and seconds["train"] > 0):
        raise BadInput(f"the record's seconds lack one of {', '.join(PHASES)}, or are no durations")
    if not (_is_amount(data["test_accuracy"]) and data["test_accuracy"] <= 1):
        raise BadInput(f"the record's test_accuracy is no share in [0, 1]: {data['test_accuracy']}")
    if not all(isinstance(row, dict) and _is_amount(row.get("kept")) for row in data["epochs"]) or not data["epochs"]:
        raise BadInput("the record's epochs do not say how many examples were kept")
    if not all(1 <= data[name] <= MAX_VALUE for name in ("examples_seen", "num_examples")):
        raise BadInput("the record counts no examples")


def is_number(value: Any) -> TypeGuard[int | float]:
    """What a row of a record holds may be anything."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_amount(value: Any) -> bool:
    """A count or a duration."""
    return is_number(value) and 0 <= value <= MAX_VALUE
