"""Records of finished runs and of failures: raw numbers, read from files with every field checked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from sadp_bench.core.errors import BadInput
from sadp_bench.core.phases import PHASES
from sadp_bench.core.storable import not_storable
from sadp_bench.records.spec import Spec

SCHEMA = 1
DISTURBED = "disturbed"  # key of `environment` that `store.read_all` adds to a record; no file contains it
MAX_VALUE = 1e100  # largest count or duration; sums and quotients of two such values are finite
MIN_SECONDS = 1e-9  # seconds of training, at least a nanosecond


@dataclass(frozen=True, slots=True)
class Record:
    """One finished run. `metrics` derives all other numbers from it.

    Attributes:
        spec: The run's spec.
        environment: Versions, commit, device, threads, kernel; no host or user name (see `runs.environment.describe`).
        seconds: Seconds of each phase. prepare, select and train are charged, evaluate is not (see `core.clock`). All
            parts of an interrupted run count; epochs that were trained twice count once.
        num_examples: Examples of the training set, N.
        examples_seen: Example visits of training.
        prepare_examples: Example visits for scores and for a search of connections, charged as time.
        epochs: A row for each epoch, with epoch, kept, mean_weight, seconds and these fields. Older records lack
            weighted_loss, mean_learning_rate, data_seconds and live_products.
            `test_accuracy`: where the epoch was evaluated, on the examples that `spec.evaluate_on` names.
            `train_loss`: the unweighted mean of the loss over the visits. It compares no methods, because each method
            visits other examples.
            `weighted_loss`: the mean of weight x loss over the visits. With unbiased weights it estimates the mean loss
            over all data during the epoch.
            `learning_rate`: the epoch's last; `mean_learning_rate`: the mean over the visits.
            `data_seconds`: the part of train in which the steps waited for stored inputs, with their decoding.
            `score_visits` and `score_seconds` (a part of select): where scores were made before the epoch.
            `live_products`: of a sparse network, the products with live connections in a forward pass, per example.
        test_accuracy: Share in [0, 1] after the last epoch, of the examples that `spec.evaluate_on` names.
        test_examples: Examples of each evaluation.
        firing_rate: Spikes per neuron and time step of each spiking layer, over the evaluated examples, in evaluation mode.
        num_parameters: Parameters of the network, without auxiliary heads, which exist in training alone.
        peak_memory_bytes: Peak memory of the GPU, or of the process on a CPU, an upper bound; 0: not known.
        data_sha256: Hash of the training and evaluation inputs and labels.
        finished: Date and time, ISO 8601.
        interruptions: How often the run was begun or resumed again before it finished.
        scores_from: Key of the run whose scores this run used and was charged for; None where it used no other run's.
        visits: How often training showed each example, as `visit_counts.pack` writes it; None in older records.
        class_visits: Mean visits by class; empty in older records.
        train_memory_bytes: Bytes that training steps took beyond those in use before them (see `runs.peak_memory`). They
            are measured on a copy of the network without a method's signals. None: not known, as in older records.
        operations: Operations of one inference: accumulates, multiply_accumulates, energy_joules (see
            `capture.synaptic_ops`), and the same three by the rules rate_* and effective_*. Neurons and norms have
            neuron_updates, normalised and other_energy_joules (see `capture.element_counts`). A sparse network also has
            dense_products, those of a forward pass with all connections. Older records contain the first three.
        density: Share of the connections that exist in the end.
        ticket: Facts of the connections (`--sparsity`). A search adds its seconds (part of the phase prepare) and visits
            (part of prepare_examples). Where another run made the search, `from` is the key of that run. `pq` adds the
            shares by layer and rewiring.
        cpu_seconds: CPU seconds of the run's process in each phase (see `core.clock`). A phase whose CPU seconds are
            unknown is absent; older records have no phase.
        gradient_cosine: The cosine of SLTT's gradient with BPTT's on a batch of `examples`, in a run by `sltt` or `sltt-k`.
            `first` and `last` are those after the first and the last epoch. `least` and `least_layer` are the lowest cosine
            of a layer's weight after the last epoch, and its layer. None where a gradient is 0. See
            `training.gradient_cosine`. Empty in all other records.
        accuracy_by_step: Accuracy of the trained network after its first 1, 2, .. T time steps; empty in older records.
        class_accuracy: Accuracy of the trained network on each class that has evaluated examples, by its name; empty in
            older records.
        fitted_loss: Mean loss of the trained network on `fitted_examples` training images, in evaluation mode and without
            augmentation (see `training.evaluation.fitted`). None where a number of that pass was not finite, and in older
            records.
        fitted_accuracy: Share of these images that the trained network classifies correctly; None likewise.
        fitted_examples: Number of these images: all training images, or a fixed, class-balanced 10,000; 0 without a loss.
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
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    accuracy_by_step: list[float] = field(default_factory=list)
    gradient_cosine: dict[str, Any] = field(default_factory=dict)
    class_accuracy: dict[str, float] = field(default_factory=dict)
    fitted_loss: float | None = None
    fitted_accuracy: float | None = None
    fitted_examples: int = 0

    @property
    def disturbed(self) -> str | None:
        """Why a note beside the record excludes its seconds (see `store.read_all`); None where they count."""
        return self.environment.get(DISTURBED)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the record's file."""
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "spec"}
        return {"schema": SCHEMA, "key": self.spec.key, "spec": self.spec.to_json(), **rest}

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """Returns the record in a file's content. Raises BadInput for another schema or key, or a wrong field."""
        names, required = _fields()
        spec = _spec_of(data, required)
        _check(data, "record", RECORD_CHECKS)
        return cls(spec=spec, **{name: data[name] for name in names if name in data and name != "spec"})


@dataclass(frozen=True, slots=True)
class Failure:
    """One run that ended without a record.

    Attributes:
        spec: The run's spec.
        reason: One line.
        when: Date and time, ISO 8601.
        epoch: The epoch in which training diverged, from 0; None: it did not diverge.
        learning_rate: The learning rate at which training diverged; None: not known, or it did not diverge.
        last_lines: The last lines that the run's process printed.
        attempts: How often the run was tried.
    """

    spec: Spec
    reason: str
    when: str
    epoch: int | None = None
    learning_rate: float | None = None
    last_lines: list[str] = field(default_factory=list)
    attempts: int = 1

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the failure's file."""
        return {"schema": SCHEMA, "key": self.spec.key, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Any) -> Failure:
        """Returns the failure in a file's content. Raises BadInput for another schema or key, or a wrong field."""
        names = {f.name for f in dataclasses.fields(cls)}
        spec = _spec_of(data, names)
        _check(data, "failure", FAILURE_CHECKS)
        return cls(spec=spec, **{name: data[name] for name in names - {"spec"}})


@functools.cache
def _fields() -> tuple[tuple[str, ...], frozenset[str]]:
    """Returns all fields of a record, and those that its file must contain."""
    fields = dataclasses.fields(Record)
    required = (f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING)
    return tuple(f.name for f in fields), frozenset(required)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Returns whether a value of a record's row is a number. Rows may contain anything."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_amount(value: Any) -> bool:
    return is_number(value) and 0 <= value <= MAX_VALUE


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_amount(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_amounts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_amount, value.values()))


def _is_seconds(value: Any) -> bool:
    return _is_amounts(value) and set(PHASES) <= set(value) and value["train"] >= MIN_SECONDS


def _is_epochs(value: Any) -> bool:
    rows = value if isinstance(value, list) else []
    return bool(rows) and all(
        isinstance(row, dict)
        and _is_amount(row.get("kept"))
        and _has_amounts(row)
        and _is_share(row.get("test_accuracy", 0))
        for row in rows
    )


def _has_amounts(table: dict[str, Any]) -> bool:
    """Returns whether all numbers of a table are amounts. The table may contain other values too."""
    return all(_is_amount(value) for value in table.values() if is_number(value))


def _is_share(value: Any) -> bool:
    return _is_amount(value) and value <= 1


def _is_shares(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_share, value))


def _is_share_table(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_share, value.values()))


def _is_rates(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_amount, value))


def is_cosines(value: Any) -> bool:
    """Returns whether a value is the content of `gradient_cosine`: cosines or nothing, a layer, a count."""
    if not isinstance(value, dict) or not isinstance(value.get("least_layer"), str | None):
        return False
    numbers = [value[name] for name in ("first", "last", "least") if value.get(name) is not None]
    return all(is_number(number) and -1 <= number <= 1 for number in numbers) and _is_count(value.get("examples", 0))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


Checks = dict[str, tuple[Callable[[Any], bool], str]]  # field -> the check, and a description of valid values
AMOUNT, COUNT, TEXT = (_is_amount, "an amount"), (_is_count, "a count"), (_is_text, "a text")
SOME = (lambda value: _is_count(value) and value >= 1, "a count of at least 1")
SHARE = (_is_share, "a share in [0, 1]")
AMOUNTS = (_is_amounts, "a table of amounts")
TABLE = (lambda value: isinstance(value, dict), "a table")
FACTS = (lambda value: isinstance(value, dict) and _has_amounts(value), "a table without a negative number")
LIST = (lambda value: isinstance(value, list), "a list")
AMOUNT_OR_NONE, TEXT_OR_NONE = (_or_none(_is_amount), "an amount or null"), (_or_none(_is_text), "a text or null")
SHARE_OR_NONE = (_or_none(_is_share), "a share in [0, 1] or null")
RECORD_CHECKS: Checks = {
    "environment": TABLE,
    "seconds": (_is_seconds, f"a duration for each of {', '.join(PHASES)}, and above 0 for train"),
    "num_examples": SOME,
    "examples_seen": SOME,
    "prepare_examples": COUNT,
    "epochs": (_is_epochs, "a list of rows, each with the examples kept, and amounts"),
    "test_accuracy": SHARE,
    "test_examples": COUNT,
    "firing_rate": (_is_rates, "a list of amounts"),
    "num_parameters": COUNT,
    "peak_memory_bytes": COUNT,
    "data_sha256": TEXT,
    "finished": TEXT,
    "interruptions": COUNT,
    "scores_from": TEXT_OR_NONE,
    "visits": TEXT_OR_NONE,
    "class_visits": AMOUNTS,
    "train_memory_bytes": AMOUNT_OR_NONE,
    "operations": AMOUNTS,
    "density": AMOUNT,
    "ticket": FACTS,
    "cpu_seconds": AMOUNTS,
    "accuracy_by_step": (_is_shares, "a list of shares in [0, 1]"),
    "gradient_cosine": (is_cosines, "a table of cosines from -1 to 1"),
    "class_accuracy": (_is_share_table, "a table of shares in [0, 1]"),
    "fitted_loss": AMOUNT_OR_NONE,
    "fitted_accuracy": SHARE_OR_NONE,
    "fitted_examples": COUNT,
}
FAILURE_CHECKS: Checks = {
    "reason": TEXT,
    "when": TEXT,
    "epoch": AMOUNT_OR_NONE,
    "learning_rate": AMOUNT_OR_NONE,
    "last_lines": LIST,
    "attempts": AMOUNT,
}


def _check(data: dict[str, Any], kind: str, checks: Checks) -> None:
    for name, (passes, wanted) in checks.items():
        if name in data and not passes(data[name]):
            raise BadInput(f"the {kind}'s {name} is {str(data[name])[:60]}, and must be {wanted}: damaged or edited?")


def _spec_of(data: Any, wanted: Set[str]) -> Spec:
    """Returns the spec in a record's or failure's file, after a check of schema, fields and key."""
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


def check_leaves(value: Any) -> None:
    """Raises BadInput for text with control characters, a number beyond all floats, and deep nesting."""
    if wrong := not_storable(value):
        raise BadInput(f"the record holds {wrong}: damaged, or made by a stranger?")
