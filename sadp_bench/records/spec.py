"""The spec of a run: every choice that can change its numbers, resolved, and the key made from these choices."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import nearest
from sadp_bench.records.fields import (
    FIELD_KINDS,
    FLOATS,
    PREFIXES,
    Kind,
    canonical_augment,
    check_values,
    option,
    shown,
)
from sadp_bench.records.former import (
    FORMER_OPTIONS,
    KEY_NAMES,
    LATER,
    OF_AXES,
    RETIRED,
    budget_option,
    former_names,
    former_options,
    in_key,
    with_budget_field,
    without_retired,
)

Made = TypeVar("Made")


@functools.cache
def _kinds() -> dict[str, Kind]:
    """Returns the types of each field of `Spec`, and their name in messages."""
    return {of.name: FIELD_KINDS[str(of.type)] for of in dataclasses.fields(Spec)}


def check_fields(values: Mapping[str, Any]) -> None:
    """Raises BadInput for the first value that a field of `Spec` does not allow. Absent fields with a default pass."""
    check_values(values, _kinds())


class _Remembering:
    """Keeps values that were computed from an object, which never changes. Copies and unpickled objects begin anew."""

    __slots__ = ("_made",)
    _made: dict[Any, Any]


def _remembered(make: Callable[[Any], Made]) -> Callable[[Any], Made]:
    """Returns a method that computes its value once for each object, because reports use the values often."""

    @functools.wraps(make)
    def value(self: Any) -> Made:
        try:
            made = self._made
        except AttributeError:
            made = {}
            object.__setattr__(self, "_made", made)
        if make not in made:
            made[make] = make(self)
        value: Made = made[make]
        return value

    return value


@dataclass(frozen=True, slots=True)
class Spec(_Remembering):
    """One run, fully resolved: no field is "auto". Fields have the names of the options of `sadp-bench run`.

    Attributes:
        ratio: The pruning ratio as a budget: the share of example visits saved over the run.
        method_options: The method's settings in `--set`, with defaults filled in. The tables of options of backbone,
            sparsity and data set are alike.
        processes: Processes that share each batch (torchrun). With batch norm their number changes the results.
        backprop: The time axis: the steps, or blocks, through which gradients flow. k is the number of steps of `sltt-k`.
        sparsity: The weight axis: the connections that exist, with density, early_time and sparsity_options.
        kernel: The code that computes norm, pool, neuron and convolutions of spikes. "native" is the C core on a CPU, and on
            CUDA Triton kernels without the convolutions. It differs from "python" by rounding.
        mse_weight: The weight of the squared distance in the losses `step-mse` and `step-mse-onehot`.
        budget: How the budget of visits is spread over the epochs: "constant", "falling" or "rising".
        lr_clock: Whether the learning rate follows the share of the epochs or of the planned visits that are done.
        label_smoothing: The share of the cross-entropy's target that is uniform over the classes.
        warmup_epochs: Epochs in which the learning rate rises, a part of `epochs`.
        momentum: SGD's momentum.
        nesterov: Whether SGD's momentum is Nesterov's.
        clip_norm: Largest norm of an update's gradient; 0: no limit.
        ema: Decay of the weights' moving average, which is evaluated in their place; 0: no average.
    """

    method: str
    ratio: float
    dataset: str
    backbone: str
    epochs: int
    batch_size: int
    timesteps: int
    optimizer: str
    learning_rate: float
    schedule: str
    weight_decay: float
    augment: str
    loss: str
    precision: str
    threads: int
    device: str
    seed: int
    train_examples: int
    protocol: str
    evaluate_on: str
    evaluate_every: int
    method_options: dict[str, Any] = field(default_factory=dict)
    backbone_options: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    backprop: str = "bptt"
    k: int = 0
    sparsity: str = "dense"
    density: float = 1.0
    early_time: bool = False
    sparsity_options: dict[str, Any] = field(default_factory=dict)
    kernel: str = "python"
    mse_weight: float = 0.05
    lr_clock: str = "epochs"
    budget: str = "constant"
    dataset_options: dict[str, Any] = field(default_factory=dict)
    label_smoothing: float = 0.0
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    clip_norm: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self._fields())
        for name in FLOATS:
            # 0, 0.0 and -0.0 are the same run and must have the same key.
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)
        object.__setattr__(self, "augment", canonical_augment(self.augment))
        for table in FORMER_OPTIONS:
            object.__setattr__(self, table, self._completed(table))

    def _owner(self, table: str) -> str:
        """Returns the method, backbone, sparsity or data set to which a table of options belongs."""
        owner: str = getattr(self, table.removesuffix("_options"))
        return owner

    def _completed(self, table: str) -> dict[str, Any]:
        """Returns a table of options with those that older records lack, and `early_rule` only with early time."""
        options = former_options(table, self._owner(table)) | getattr(self, table)
        return {name: value for name, value in options.items() if self.early_time or name != "early_rule"}

    @property
    def key(self) -> str:
        """The first 12 hex digits of the SHA-256 of all fields."""
        return self._key()

    @_remembered
    def _key(self) -> str:
        every = self._fields()
        every |= {table: in_key(table, self._owner(table), every[table]) for table in FORMER_OPTIONS}
        if former := budget_option(self.method):
            every["method_options"] |= {former: every.pop("budget")}
        fields = {name: value for name, value in every.items() if name not in LATER or value != LATER[name]}
        fields["method_options"] |= RETIRED.get(self.method, {})
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def updates_per_epoch(self) -> int:
        """The number of updates of an epoch on all data."""
        return -(-self.train_examples // self.batch_size)

    @_remembered
    def reference(self) -> Spec:
        """Returns the paired full-data run: the same spec with the method `full`, which has no options."""
        return self.of_valid(method="full", ratio=0.0, protocol="epochs", method_options={}, budget=LATER["budget"])

    @_remembered
    def plain(self) -> Spec:
        """Returns the plain run: full data, backpropagation through all steps, and all connections."""
        return self.reference().of_valid(**{name: LATER[name] for name in OF_AXES})

    @_remembered
    def any_ratio(self) -> Spec:
        """Returns the same spec for all runs that differ in the ratio alone."""
        return self.of_valid(ratio=0.0)

    @_remembered
    def any_seed(self) -> Spec:
        """Returns the same spec for all runs that differ in the seed alone."""
        return self.of_valid(seed=0)

    @_remembered
    def any_method(self) -> Spec:
        """Returns the same spec for all runs that differ in method, its options, budget, ratio and seed alone."""
        return self.of_valid(method="", ratio=0.0, seed=0, method_options={}, budget=LATER["budget"])

    def of_valid(self, **changed: Any) -> Spec:
        """Returns this spec with other values that need no check: defaults, or values of another spec on the same axis.

        `dataclasses.replace`, which checks all fields, takes twenty times as long.
        """
        found = object.__new__(Spec)
        for name, value in (self._fields() | changed).items():
            object.__setattr__(found, name, value)
        return found

    def _fields(self) -> dict[str, Any]:
        """Returns the fields, without a copy."""
        return {name: getattr(self, name) for name in _kinds()}

    def words(self) -> list[str]:
        """Returns the arguments of `sadp-bench run` that make exactly this run.

        They contain every choice that a changed default could affect, except the number of processes, which torchrun sets.
        """
        words: list[str] = []
        for name, value in self.flat().items():
            if "." in name:
                words += ["--set", f"{name.removeprefix(PREFIXES['method_options'])}={shown(value)}"]
            elif name in LATER and value == LATER[name] and name != "kernel" or name == "processes":
                continue
            elif isinstance(value, bool):
                words.append(option(name))
            else:
                words += [option(name), shown(value).removesuffix(".0")]
        return words

    def flat(self) -> dict[str, Any]:
        """Returns fields and options in one table.

        The fields come first, in their order. The options follow under the prefix of their owner, such as
        "method.smoothing", "backbone.width", "sparsity.rewind" and "dataset.side".
        """
        fields = self._fields()
        tables = {prefix: fields.pop(table) for table, prefix in PREFIXES.items()}
        return fields | {f"{prefix}{name}": value for prefix, table in tables.items() for name, value in table.items()}

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as the table in a record."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Spec:
        """Returns the spec in a record's table. Raises BadInput where a field is unknown or missing."""
        data, known = with_budget_field(data), set(_kinds())
        for name in data:
            if name not in known:
                raise BadInput(f"unknown field '{name}'{nearest(name, known)}")
        missing = sorted(known - set(data) - set(LATER))
        if missing:
            raise BadInput(f"the spec lacks {', '.join(missing)}")
        tables = {"method_options": without_retired(data["method"], data.get("method_options", {}))}
        for table in KEY_NAMES:
            if former := former_names(table, data):
                tables[table] = {former.get(name, name): value for name, value in data[table].items()}
        return cls(**data | tables)
