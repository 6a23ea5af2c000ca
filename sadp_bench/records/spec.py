"""The spec of a run: every choice that can change its numbers, resolved, and the key made of them."""

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
from sadp_bench.core.storable import not_storable

CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "constant"),
    "loss": ("mean", "step", "step-mse", "step-mse-onehot"),
    "precision": ("fp32", "bf16", "fp64"),
    "protocol": ("epochs", "updates"),
    "evaluate_on": ("test", "validation"),
    "backprop": ("bptt", "sltt", "sltt-k", "local"),
    "sparsity": ("dense", "imp", "eb", "pq", "random", "channels", "narrow"),
    "kernel": ("python", "native"),
}
AUGMENTATIONS = ("crop", "crop-flip", "cutout")  # parts of `--augment`, in the order of a spec
Made = TypeVar("Made")
STEP_BY_STEP = ("sltt", "sltt-k")  # backpropagation that needs a loss of each step
OF_EACH_STEP = ("step", "step-mse", "step-mse-onehot")  # losses that are a mean over the time steps
COUNTS = ("epochs", "batch_size", "timesteps", "threads", "train_examples", "evaluate_every", "processes")
# Fields that were added later do not enter the key at these values, so that older records keep their keys.
LATER: dict[str, Any] = {
    "processes": 1,
    "backprop": "bptt",
    "k": 0,
    "sparsity": "dense",
    "density": 1.0,
    "early_time": False,
    "sparsity_options": {},
    "kernel": "python",
    "mse_weight": 0.05,
}
# Options that were added later, by table and owner, with the values that older records mean: a spec without the option gets
# that value, and the key leaves it out.
FORMER_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "method_options": {
        "infobatch": {"drop_share": 0.9, "variant": "mean"},
        "random": {"rescale": False},
        "el2n": {"keep": "hardest"},
        "grand": {"keep": "hardest"},
        "forgetting": {"keep": "hardest"},
    },
    "backbone_options": {
        **dict.fromkeys(("cnn", "vgg11"), {"pool": "avg", "pool_at": "after-norm", "dropout": 0.0}),
        "resnet18-sltt": {"dropout": 0.0},
    },
    "sparsity_options": {
        "imp": {"early_rule": "max", "search_ratio": 0.0},
        "eb": {"early_rule": "max", "search_ratio": 0.0},
        "pq": {"shrink": False, "start": 0.5},
    },
}
# Of them, those that chose a rule which was corrected since. Reports name a run by a former rule, and no other by its rule.
FORMER_RULES: dict[str, Any] = {"early_rule": "max", "shrink": False, "drop_share": 0.9}
# By table and owner, names of options in a key, where they differ: an option was renamed, and another took its former name.
# So older records are known by their values (`FORMER_VALUES`, by present name).
KEY_NAMES: dict[str, dict[str, dict[str, str]]] = {
    "backbone_options": dict.fromkeys(("cnn", "vgg11"), {"pool_at": "pool", "pool": "pool_kind"})
}
FORMER_VALUES = {"pool_at": ("before-norm", "after-norm")}
# By method, options that no longer exist, with the only values that records have. Records may contain them at these
# values alone, and every key is made with them, so that older records keep their keys and equal new runs have the same.
RETIRED: dict[str, dict[str, Any]] = {"sadp": {"warmup": 0.0, "refresh": 0, "refresh_share": 0.1}}
# Each table of options with the prefix that its names have in `--set` and wherever they stand beside fields.
PREFIXES = {"method_options": "method.", "backbone_options": "backbone.", "sparsity_options": "sparsity."}
MAX_COUNT = 2**63 - 1  # counts and seeds; larger ones overflow
MAX_EPOCHS = 100_000  # epochs, of which a record has a row each, and must remain small enough to be read
# By count, the most that is allowed; other counts end at MAX_COUNT.
MAXIMA = {
    "threads": 1024,  # a process dies when it tries to start many more
    "jobs": 1024,  # processes
    "concurrent_jobs": 1024,
    "retries": 1000,
    "epochs": MAX_EPOCHS,
    "rounds": 10_000,  # epochs of each arm
    "timesteps": 1_000_000,  # beyond them not even the logits of a batch fit into memory
}
MAX_RATE = 1e38  # learning rate or weight decay; float32 holds no larger one
FIELD_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a name"),
    "bool": ((bool,), "true or false"),
    "dict[str, Any]": ((dict,), "a table"),
}


def option(name: str) -> str:
    """Returns a field's option on the command line."""
    return f"--{name.replace('_', '-')}"


def shown(value: Any) -> str:
    """Returns a setting's value as `--set name=value` takes it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def check_count(name: str, value: int, minimum: int) -> None:
    """Raises BadInput for a count of the command line below its minimum or above its maximum (`MAXIMA`)."""
    maximum = MAXIMA.get(name, MAX_COUNT)
    if not minimum <= value <= maximum:
        limit = f"at least {minimum}" if value < minimum else f"at most {maximum:,}"
        raise BadInput(f"{option(name)} is {limit}, not {value}")


def check_fields(values: Mapping[str, Any]) -> None:
    """Raises BadInput for the first value that a field of `Spec` does not allow. Absent fields with a default pass."""
    for name, (kinds, kind) in _kinds().items():
        if name in values:
            value = values[name]
            if not isinstance(value, kinds) or isinstance(value, bool) and bool not in kinds:
                raise BadInput(f"{option(name)} is {kind}, not {value!r}")
    for name, allowed in CHOICES.items():
        if name in values and values[name] not in allowed:
            raise BadInput(f"{option(name)} is one of {', '.join(allowed)}, not '{values[name]}'")
    canonical_augment(values["augment"])
    if not 0 <= values["ratio"] < 1:
        raise BadInput(f"--ratio is at least 0 and below 1 (the share of visits to save), not {values['ratio']}")
    _check_mse_weight(values.get("mse_weight", LATER["mse_weight"]), values["loss"])
    _check_axes(values["backprop"], values.get("k", 0), values["loss"], values["timesteps"])
    for name in (*COUNTS, "seed", "k"):
        minimum = int(name in COUNTS)
        check_count(name, values.get(name, minimum), minimum)
    if values["protocol"] == "updates" and values["epochs"] > MAX_EPOCHS * (1 - values["ratio"]):
        raise BadInput(
            f"--protocol updates makes more than {MAX_EPOCHS:,} epochs of --epochs {values['epochs']:,} at ratio "
            f"{values['ratio']:g}, and a record has a row of each; lower --epochs"
        )
    for name in ("learning_rate", "weight_decay"):
        if not 0 <= values[name] <= MAX_RATE:
            raise BadInput(f"{option(name)} is a number of at least 0 and at most {MAX_RATE:g}, not {values[name]}")
    for name, value in values.items():
        _check_storable(name, value)
    for table in KEY_NAMES:
        for name, present in _former_names(table, values).items():
            value, prefix = values[table][name], PREFIXES[table]
            raise BadInput(f"{prefix}{name}={value} was renamed: it is --set {prefix}{present}={value}")


def canonical_augment(text: str) -> str:
    """Returns `--augment`, "none" or parts with commas between them, in the order of `AUGMENTATIONS`. Raises BadInput."""
    parts = {part.strip() for part in text.split(",")}
    if text == "none":
        return text
    known = parts <= set(AUGMENTATIONS) and len(parts) == text.count(",") + 1
    if not known or parts >= {"crop", "crop-flip"}:
        raise BadInput(
            f"--augment is none, or of crop, crop-flip and cutout one or two with a comma between them, such as "
            f"crop-flip,cutout, not '{text}' (crop-flip crops too)"
        )
    return ",".join(sorted(parts, key=AUGMENTATIONS.index))


@functools.cache
def _kinds() -> dict[str, tuple[tuple[type, ...], str]]:
    """Returns the types of each field of `Spec`, and their name."""
    return {of.name: FIELD_KINDS[str(of.type)] for of in dataclasses.fields(Spec)}


def _check_storable(field: str, value: Any) -> None:
    """Raises BadInput for a setting that the reader of the run's record would refuse."""
    if not not_storable(value):
        return
    table = value if field in PREFIXES else {field: value}
    for name, part in table.items():
        if wrong := not_storable([name, part]):
            prefix = PREFIXES.get(field, "").removeprefix(PREFIXES["method_options"])
            named = f"--set {prefix}{name}" if field in PREFIXES else option(name)
            raise BadInput(f"{ascii(named)[1:-1]} is {ascii(part)[:80]}, and no record may contain {wrong}")


def _check_mse_weight(weight: float, loss: str) -> None:
    if not 0 <= weight <= 1:
        raise BadInput(f"--mse-weight is a number from 0 to 1, not {weight}")
    if "mse" not in loss and weight != LATER["mse_weight"]:
        raise BadInput(
            f"--mse-weight is that of the squared distance in --loss step-mse or step-mse-onehot; {loss} has none"
        )


def _check_axes(backprop: str, k: int, loss: str, timesteps: int) -> None:
    if backprop in STEP_BY_STEP and loss not in OF_EACH_STEP:
        raise BadInput(
            f"--backprop {backprop} needs a loss of each step, --loss {' or '.join(OF_EACH_STEP)}, not {loss}"
        )
    if backprop == "sltt-k" and not 1 <= k <= timesteps:
        raise BadInput(
            f"--backprop sltt-k needs --k, the number of steps that give gradients: from 1 to --timesteps ({timesteps}), "
            f"not {k}"
        )
    if backprop != "sltt-k" and k:
        raise BadInput(f"--k is the number of steps of --backprop sltt-k; {backprop} has none")


class _Remembering:
    """Keeps values that were computed from an object that never changes. Copies and unpickled objects begin anew."""

    __slots__ = ("_made",)
    _made: dict[Any, Any]


def _remembered(make: Callable[[Any], Made]) -> Callable[[Any], Made]:
    """Returns the method without arguments as one that makes its value once for each object: reports need it often."""

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
    """One run, fully resolved: no field is "auto". Fields are named as the options of `sadp-bench run`.

    Attributes:
        ratio: The pruning ratio as a budget: the share of example visits saved over the run.
        method_options: The method's options of `--set`, defaults filled in; likewise of backbone and sparsity.
        processes: Processes that share each batch (torchrun). With batch norm their number changes the numbers.
        backprop: The time axis, through which steps, or blocks, gradients flow; k is the number of steps of `sltt-k`.
        sparsity: The weight axis, which connections exist; with density, early_time and sparsity_options.
        kernel: What computes norm, pool, neuron and convolutions of spikes: "python", or "native": the C core; on CUDA
            Triton kernels, without the convolutions. They differ by rounding.
        mse_weight: The weight of the squared distance in the losses `step-mse` and `step-mse-onehot`.
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

    def __post_init__(self) -> None:
        check_fields(self._fields())
        for name in ("ratio", "learning_rate", "weight_decay", "density", "mse_weight"):
            # 0, 0.0 and -0.0 are one run and must have one key.
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)
        object.__setattr__(self, "augment", canonical_augment(self.augment))
        for table in FORMER_OPTIONS:
            object.__setattr__(self, table, self._completed(table))

    def _former(self, table: str) -> dict[str, Any]:
        """Returns the options of a table that older records lack, with the values that they mean."""
        owner: str = getattr(self, table.removesuffix("_options"))
        return FORMER_OPTIONS[table].get(owner, {})

    def _completed(self, table: str) -> dict[str, Any]:
        """Returns a table of options with those that older records lack; without early time no rule chooses T'."""
        options = self._former(table) | getattr(self, table)
        return {name: value for name, value in options.items() if self.early_time or name != "early_rule"}

    def _in_key(self, table: str) -> dict[str, Any]:
        """Returns a table of options as the key contains it: without those that older records mean, by former names."""
        former, names = self._former(table), _key_names(table, getattr(self, table.removesuffix("_options")))
        options: dict[str, Any] = getattr(self, table)
        return {
            names.get(name, name): value
            for name, value in options.items()
            if name not in former or value != former[name]
        }

    @property
    def key(self) -> str:
        """The first 12 hex digits of the SHA-256 of all fields."""
        return self._key()

    @_remembered
    def _key(self) -> str:
        every = self._fields() | {table: self._in_key(table) for table in FORMER_OPTIONS}
        fields = {name: value for name, value in every.items() if name not in LATER or value != LATER[name]}
        fields["method_options"] |= RETIRED.get(self.method, {})
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @_remembered
    def reference(self) -> Spec:
        """Returns the paired full-data run: everything alike but the method, `full`, which has no options."""
        return self.of_valid(method="full", ratio=0.0, protocol="epochs", method_options={})

    @_remembered
    def plain(self) -> Spec:
        """Returns the plain run of all three axes: full data, backpropagation through all steps, all connections."""
        axes = {name: value for name, value in LATER.items() if name not in ("processes", "kernel", "mse_weight")}
        return self.reference().of_valid(**axes)

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
        """Returns the same spec for all runs that differ in method, its options, ratio and seed alone."""
        return self.of_valid(method="", ratio=0.0, seed=0, method_options={})

    def of_valid(self, **changed: Any) -> Spec:
        """Returns this spec with other values, which need no check: they are defaults, or another spec's of the same axis.

        `dataclasses.replace`, which checks all fields, takes twenty times as long.
        """
        found = object.__new__(Spec)
        for name, value in (self._fields() | changed).items():
            object.__setattr__(found, name, value)
        return found

    def _fields(self) -> dict[str, Any]:
        """Returns the fields, not copied."""
        return {name: getattr(self, name) for name in _kinds()}

    def words(self) -> list[str]:
        """Returns the arguments of `sadp-bench run` that make exactly this run.

        They contain every choice that a default could change, but not the number of processes, which torchrun sets.
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
        "method.smoothing", "backbone.width" and "sparsity.rewind".
        """
        fields = self._fields()
        tables = {prefix: fields.pop(table) for table, prefix in PREFIXES.items()}
        return fields | {f"{prefix}{name}": value for prefix, table in tables.items() for name, value in table.items()}

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a table, as records contain them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Spec:
        """Returns the spec in a record's table. Raises BadInput where a field is unknown or missing."""
        known = set(_kinds())
        for name in data:
            if name not in known:
                raise BadInput(f"unknown field '{name}'{nearest(name, known)}")
        missing = sorted(known - set(data) - set(LATER))
        if missing:
            raise BadInput(f"the spec lacks {', '.join(missing)}")
        tables = {"method_options": _without_retired(data["method"], data.get("method_options", {}))}
        for table in KEY_NAMES:
            if former := _former_names(table, data):
                tables[table] = {former.get(name, name): value for name, value in data[table].items()}
        return cls(**data | tables)


def _key_names(table: str, owner: Any) -> dict[str, str]:
    return KEY_NAMES.get(table, {}).get(owner, {}) if isinstance(owner, str) else {}


def _former_names(table: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Returns the options of a table that stand under a former name, with their present names."""
    options = fields.get(table)
    return {
        of_key: name
        for name, of_key in _key_names(table, fields.get(table.removesuffix("_options"))).items()
        if isinstance(options, dict) and options.get(of_key) in FORMER_VALUES.get(name, ())
    }


def _without_retired(method: Any, options: Any) -> Any:
    """Returns a record's method options without those that no longer exist."""
    retired = RETIRED.get(method) if isinstance(method, str) else None
    if not retired or not isinstance(options, dict):
        return options
    for name, value in retired.items():
        if options.get(name, value) != value:
            raise BadInput(
                f"{method}'s option {name} is {options[name]!r}, and this version has no such option: it reads {value!r} "
                "only; read the record with the version that made it"
            )
    return {name: value for name, value in options.items() if name not in retired}
