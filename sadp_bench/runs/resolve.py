"""What a run is made of: from names to its spec, its data, its pruner and its network."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sadp_bench.backbones.spiking import Backbone, NeuronSettings
from sadp_bench.core import distributed, registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import isolated, stream
from sadp_bench.datasets.base import Dataset, data_root
from sadp_bench.datasets.examples import Examples, stratified_order
from sadp_bench.pruners.base import Pruner
from sadp_bench.records.spec import CHOICES, OF_EACH_STEP, Spec
from sadp_bench.runs import environment
from sadp_bench.sparsity import SPARSITIES
from sadp_bench.sparsity.base import Sparsity
from sadp_bench.training.data import Loader

VALIDATION_SHARE = 0.1
KINDS: dict[str, type] = {"method": Pruner, "backbone": nn.Module, "dataset": Dataset}


@dataclass(frozen=True, eq=False)
class Material:
    """The data of a run: what is trained on and what is evaluated on."""

    dataset: Dataset
    train: Examples
    held: Examples

    @cached_property
    def sha256(self) -> str:
        """Of all inputs and labels."""
        return hashlib.sha256(self.train.digest().digest() + self.held.digest().digest()).hexdigest()


def resolve(
    asked: Mapping[str, Any], data: Path | None = None, opened: dict[Any, Any] | None = None
) -> tuple[Spec, Material]:
    """The full spec of what was asked for, and its data; what is absent or None takes its default.

    asked: fields of `Spec`, and "set": the `--set` table, text or values. Defaults of epochs, batch size, time steps,
    learning rate and augmentation are the data set's. opened: keeps the data for further calls.
    Raises BadInput before anything is trained.
    """
    given = {name: value for name, value in asked.items() if value is not None and name != "set"}
    kind: type[Dataset] = _class("dataset", given.setdefault("dataset", "digits"))
    method: type[Pruner] = _class("method", given["method"])
    backbone = _class("backbone", given.setdefault("backbone", "cnn"))
    sparsity = _sparsity(given.setdefault("sparsity", "dense"))
    if given.setdefault("backprop", "bptt") != "bptt":
        given.setdefault("loss", OF_EACH_STEP[0])
        if not issubclass(backbone, Backbone):
            raise BadInput(
                f"--backprop {given['backprop']} needs a backbone whose steps can be taken one by one: '{given['backbone']}' "
                "is no subclass of sadp_bench.backbones.spiking.Backbone"
            )
    owners = {"": ("method", given["method"], registry.options(method))}
    owners["backbone."] = ("backbone", given["backbone"], registry.options(backbone) | _neuron_options())
    owners["sparsity."] = ("sparsity", given["sparsity"], registry.options(sparsity))
    given |= _tables(owners, asked.get("set"))
    device = environment.choose_device(given.get("device", "auto"))
    given["device"] = str(device)
    if given.get("precision", "auto") == "auto":
        given["precision"] = "bf16" if environment.bf16_is_fast(device) else "fp32"
    given["processes"] = distributed.size()
    wanted = given.pop("train_examples", None)
    given = _defaults(kind) | given
    given.setdefault("evaluate_every", max(1, -(-given["epochs"] // 10)))
    spec = Spec(**given)  # checks every field before the data is read
    if wanted is not None and wanted < 1:
        raise BadInput(f"--train-examples is at least 1, not {wanted}")
    pruner = make_pruner(spec)
    pruner.check(spec.epochs)
    make_sparsity(spec)
    material = _opened(kind, spec, data, wanted, {} if opened is None else opened)
    spec = dataclasses.replace(spec, train_examples=len(material.train))
    _check_fits(spec, pruner)
    return spec, material


def _class(kind: str, name: str) -> Any:
    """The class of that name, which is one of its kind and can be built."""
    found, wanted = registry.resolve(kind, name), KINDS[kind]
    if not issubclass(found, wanted):
        raise BadInput(f"{kind} '{name}' is no subclass of {wanted.__module__}.{wanted.__qualname__}")
    if inspect.isabstract(found):
        raise BadInput(f"{kind} '{name}' is abstract: it lacks {', '.join(sorted(found.__abstractmethods__))}")
    return found


def _defaults(kind: type[Dataset]) -> dict[str, Any]:
    of_dataset = ("epochs", "batch_size", "timesteps", "learning_rate", "augment")
    return {name: getattr(kind, name) for name in of_dataset} | {
        "optimizer": "sgd",
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "loss": "mean",
        "threads": max(1, environment.available_threads() // distributed.on_this_machine()),
        "seed": 0,
        "protocol": "epochs",
        "evaluate_on": "test",
        "train_examples": 1,  # until the data is read
    }


def _sparsity(name: str) -> type[Sparsity]:
    if name not in SPARSITIES:
        raise BadInput(f"--sparsity is one of {', '.join(CHOICES['sparsity'])}, not '{name}'")
    kind: type[Sparsity] = registry.load(SPARSITIES[name])
    return kind


def _neuron_options() -> dict[str, tuple[type, Any]]:
    return {f.name: (type(f.default), f.default) for f in dataclasses.fields(NeuronSettings)}


def _tables(
    owners: Mapping[str, tuple[str, str, dict[str, tuple[type, Any]]]], settings: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """The `--set` tables, "method_options" and so on, checked and with their defaults filled in.

    owners: by the prefix of its keys each one's kind, name and options.
    """
    given: dict[str, dict[str, Any]] = {prefix: {} for prefix in owners}
    for key, value in (settings or {}).items():
        prefix = next((p for p in owners if p and key.startswith(p)), "")
        given[prefix][key.removeprefix(prefix)] = value
    return {
        f"{kind}_options": registry.settle(f"{kind} {name}", allowed, given[prefix])
        for prefix, (kind, name, allowed) in owners.items()
    }


def _opened(kind: type[Dataset], spec: Spec, data: Path | None, wanted: int | None, opened: dict[Any, Any]) -> Material:
    """The material, made once for all calls that share `opened`."""
    whole = (kind, data_root(data), spec.timesteps)
    if whole not in opened:
        opened[whole] = kind(*whole[1:])
    part = (*whole, spec.evaluate_on, wanted)
    if part not in opened:
        opened[part] = load(opened[whole], spec, wanted)
    found: Material = opened[part]
    return found


def load(dataset: Dataset, spec: Spec, wanted: int | None) -> Material:
    """The first `wanted` training examples of a fixed, class-balanced order that no seed changes, and the test set;
    or, evaluated on "validation", a fixed tenth of the training set in place of the test set."""
    train, held = dataset.train, dataset.test
    order = stratified_order(train.label_N, stream(0, "subset"))
    if spec.evaluate_on == "validation":
        num_held = max(1, round(VALIDATION_SHARE * len(train)))
        held, order = train.take(order[:num_held].sort().values), order[num_held:]
    if wanted is not None and wanted > len(order):
        raise BadInput(f"--train-examples {wanted}: {spec.dataset} has {len(order)} to train on here")
    return Material(dataset, train.take(order[:wanted].sort().values), held)


def _check_fits(spec: Spec, pruner: Pruner) -> None:
    kept = (1 - spec.ratio) * spec.train_examples
    if kept < spec.batch_size:
        raise BadInput(
            f"ratio {spec.ratio:g} of {spec.train_examples} examples keeps {kept:.0f}, less than one batch of "
            f"{spec.batch_size}; lower --ratio or --batch-size"
        )
    if spec.batch_size < 2 * spec.processes:
        raise BadInput(
            f"--batch-size {spec.batch_size} is less than two examples for each of {spec.processes} processes; raise it, or "
            "take fewer processes"
        )
    if spec.processes > 1 and spec.device not in ("cpu", "cuda"):
        raise BadInput(f"--device {spec.device} with {spec.processes} processes: take cuda, each has a GPU of its own")
    if spec.backbone_options.get("norm") == "sync" and spec.device == "cpu":
        raise BadInput("backbone.norm=sync needs GPUs; take backbone.norm=batch, or none")
    if spec.protocol == "updates" and not pruner.fixed_size:
        raise BadInput(
            f"--protocol updates needs a method that keeps as many examples in every epoch, and {spec.method} with these "
            "settings does not; use --protocol epochs"
        )


def make_pruner(spec: Spec) -> Pruner:
    pruner: Pruner = registry.resolve("method", spec.method)(prune_ratio=spec.ratio, **spec.method_options)
    return pruner


def make_sparsity(spec: Spec) -> Sparsity:
    return _sparsity(spec.sparsity)(spec.density, spec.early_time, **spec.sparsity_options)


def make_model(spec: Spec, material: Material, seed: int, timesteps: int | None = None) -> nn.Module:
    """An untrained network, the same for the same seed, on the spec's device. timesteps: instead of the spec's. Raises
    BadInput where the class is none."""
    backbone = registry.resolve("backbone", spec.backbone)
    names = {f.name for f in dataclasses.fields(NeuronSettings)}
    neuron = NeuronSettings(**{k: v for k, v in spec.backbone_options.items() if k in names})
    own = {k: v for k, v in spec.backbone_options.items() if k not in names}
    device = torch.device(spec.device)
    inputs = (material.train.input_shape, len(material.dataset.class_names), timesteps or spec.timesteps, neuron)
    try:
        inspect.signature(backbone).bind(*inputs, **own)
    except TypeError as error:
        raise BadInput(
            f"backbone '{spec.backbone}' is not built from (input_shape, num_classes, timesteps, neuron): {error}"
        ) from None
    with isolated(seed, "weights", device), enough_memory(spec):
        model: nn.Module = backbone(*inputs, **own)
        model = model.to(device).to(memory_format=torch.channels_last)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadInput(f"backbone '{spec.backbone}' has no parameters to train")
    return model.double() if spec.precision == "fp64" else model


@contextmanager
def enough_memory(spec: Spec) -> Iterator[None]:
    """Turns the ways in which torch runs out of memory into one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|can't allocate memory", str(error)):
            raise
        raise BadInput(
            f"out of memory on {spec.device}: batch size {spec.batch_size}, {spec.timesteps} time steps and backbone options "
            f"{spec.backbone_options} need more than there is; lower one of them"
        ) from None


def make_loader(spec: Spec, material: Material, examples: Examples) -> Loader:
    dtype = torch.float64 if spec.precision == "fp64" else torch.float32
    kind = material.dataset
    return Loader(examples, kind.scale, kind.mean, kind.std, torch.device(spec.device), dtype)
