"""The values that the fields of a spec allow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.storable import not_storable
from sadp_bench.records.former import KEY_NAMES, LATER, former_names

CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "constant"),
    "budget": ("constant", "falling", "rising"),
    "lr_clock": ("epochs", "visits"),
    "loss": ("mean", "step", "step-mse", "step-mse-onehot"),
    "precision": ("fp32", "bf16", "fp64"),
    "protocol": ("epochs", "updates"),
    "evaluate_on": ("test", "validation"),
    "backprop": ("bptt", "sltt", "sltt-k", "local"),
    "sparsity": ("dense", "imp", "eb", "pq", "random", "fixed", "channels", "narrow"),
    "kernel": ("python", "native"),
}
# Parts of `--augment`, in the order of a spec.
AUGMENTATIONS = ("crop", "crop-flip", "nda", "randaugment", "cutout", "mixup", "cutmix")
STEP_BY_STEP = ("sltt", "sltt-k")  # ways of backpropagation that need a loss of each step
LOSS_NAMES = {"tet": "step-mse"}  # the paper's name of a loss, and the name in a spec
OF_EACH_STEP = ("step", "step-mse", "step-mse-onehot")  # losses that are a mean over the time steps
COUNTS = ("epochs", "batch_size", "timesteps", "threads", "train_examples", "evaluate_every", "processes")
# Fields whose number may be a fraction.
FLOATS = (
    "ratio learning_rate weight_decay density mse_weight label_smoothing warmup_epochs momentum clip_norm ema".split()
)
# Table of options -> prefix of its names in `--set`, and wherever they appear beside fields.
PREFIXES = {
    "method_options": "method.",
    "backbone_options": "backbone.",
    "sparsity_options": "sparsity.",
    "dataset_options": "dataset.",
}
MAX_COUNT = 2**63 - 1  # counts and seeds; larger ones overflow
MAX_EPOCHS = 100_000  # epochs; a record has a row for each, and must remain small enough to be read
# Count -> the largest value that is allowed; other counts are allowed up to MAX_COUNT.
MAXIMA = {
    "threads": 1024,  # a process dies when it tries to start many more
    "jobs": 1024,  # processes
    "concurrent_jobs": 1024,
    "retries": 1000,
    "epochs": MAX_EPOCHS,
    "rounds": 10_000,  # epochs of each arm
    "timesteps": 1_000_000,  # beyond them not even the logits of a batch fit into memory
}
MAX_RATE = 1e38  # learning rate or weight decay; about the largest number of float32
Kind = tuple[tuple[type, ...], str]  # types of a field, and their name in messages
FIELD_KINDS: dict[str, Kind] = {
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
    """Returns a setting's value as the text in `--set name=value`."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def check_count(name: str, value: int, minimum: int) -> None:
    """Raises BadInput for a count of the command line below its minimum or above its maximum (`MAXIMA`)."""
    maximum = MAXIMA.get(name, MAX_COUNT)
    if not minimum <= value <= maximum:
        limit = f"at least {minimum}" if value < minimum else f"at most {maximum:,}"
        raise BadInput(f"{option(name)} is {limit}, not {value}")


def check_values(values: Mapping[str, Any], types: Mapping[str, Kind]) -> None:
    """Raises BadInput for the first value that a field does not allow. Absent fields with a default pass.

    Args:
        values: Field -> value.
        types: Field -> types, and their name in messages.
    """
    for name, (kinds, kind) in types.items():
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
    if values["schedule"] == "constant" and values.get("lr_clock", "epochs") != "epochs":
        raise BadInput("--lr-clock is that of --schedule cosine; the rate of --schedule constant needs none")
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
    _check_update({**LATER, **values})
    for name, value in values.items():
        _check_storable(name, value)
    for table in KEY_NAMES:
        for name, present in former_names(table, values).items():
            value, prefix = values[table][name], PREFIXES[table]
            raise BadInput(f"{prefix}{name}={value} was renamed: it is --set {prefix}{present}={value}")


def canonical_augment(text: str) -> str:
    """Returns `--augment` with its parts in the order of `AUGMENTATIONS`. Raises BadInput for any other text."""
    parts = {part.strip() for part in text.split(",")}
    if text == "none":
        return text
    known = parts <= set(AUGMENTATIONS) and len(parts) == text.count(",") + 1
    if not known or parts >= {"crop", "crop-flip"}:
        raise BadInput(
            f"--augment is none, or one or more of {', '.join(AUGMENTATIONS)} with commas between them, such as "
            f"crop-flip,cutout, not '{text}' (crop-flip crops too)"
        )
    return ",".join(sorted(parts, key=AUGMENTATIONS.index))


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


def _check_update(values: Mapping[str, Any]) -> None:
    """Raises BadInput for settings of an update that are out of range, or that optimizer or connections do not have."""
    for name, what in (
        ("label_smoothing", "the uniform share of the target"),
        ("momentum", "of SGD"),
        ("ema", "the decay of the weights' moving average; 0: none"),
    ):
        if not 0 <= values[name] < 1:
            raise BadInput(f"{option(name)} is a number of at least 0 and below 1 ({what}), not {values[name]}")
    if not 0 <= values["clip_norm"] <= MAX_RATE:
        raise BadInput(
            f"--clip-norm is a number of at least 0 (0: no limit) and at most {MAX_RATE:g}, not {values['clip_norm']}"
        )
    if not 0 <= values["warmup_epochs"] < values["epochs"]:
        raise BadInput(
            f"--warmup-epochs is at least 0 and below --epochs ({values['epochs']}), not {values['warmup_epochs']}"
        )
    if values["optimizer"] != "sgd" and (values["momentum"] != LATER["momentum"] or values["nesterov"]):
        raise BadInput(
            f"--momentum and --nesterov are those of --optimizer sgd; {values['optimizer']} has its own momentum"
        )
    if values["momentum"] == 0 and (values["nesterov"] or values["sparsity"] == "pq"):
        user = "--nesterov" if values["nesterov"] else "--sparsity pq, which regrows by momentum,"
        raise BadInput(f"{user} needs a --momentum above 0")
    for name in ("clip_norm", "ema"):
        if values[name] and values["sparsity"] != "dense":
            raise BadInput(f"{option(name)} serves --sparsity dense alone, not {values['sparsity']}; leave it out")


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
