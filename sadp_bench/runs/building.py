"""Builds the parts of a run from its spec: pruner, connections, network, loader."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import isolated
from sadp_bench.datasets.examples import Examples
from sadp_bench.pruners.base import Pruner
from sadp_bench.records.fields import CHOICES
from sadp_bench.records.spec import Spec
from sadp_bench.runs.material import Material
from sadp_bench.sparsity import SPARSITIES
from sadp_bench.sparsity.base import Sparsity
from sadp_bench.training.data import Loader
from sadp_bench.training.local import add_heads

OUT_OF_MEMORY = re.compile(  # in messages of torch; the last three are for sizes beyond its integers
    "out of memory|can't allocate memory|Storage size calculation overflowed|multiplication overflow|Overflow when unpacking"
)


def sparsity_class(name: str) -> type[Sparsity]:
    """Returns the class of a name in `--sparsity`.

    Raises:
        BadInput: There is no such class.
    """
    if name not in SPARSITIES:
        raise BadInput(f"--sparsity is one of {', '.join(CHOICES['sparsity'])}, not '{name}'")
    kind: type[Sparsity] = registry.load(SPARSITIES[name])
    return kind


def make_pruner(spec: Spec) -> Pruner:
    """Returns the run's pruner, not yet prepared."""
    return build_pruner(spec.method, spec.ratio, spec.method_options, spec.budget)


def build_pruner(method: str, ratio: float, options: Mapping[str, Any], budget: str) -> Pruner:
    """Returns a pruner, not yet prepared.

    Raises:
        BadInput: The class is not built from a ratio and these settings, or refuses one of them.
    """
    kind = registry.resolve("method", method)
    try:
        inspect.signature(kind).bind(prune_ratio=ratio, **options)
    except TypeError as error:
        raise BadInput(f"method '{method}' is not built from (prune_ratio, *, settings): {error}") from None
    pruner: Pruner = kind(prune_ratio=ratio, **options)
    return pruner.with_budget(budget)


def make_sparsity(spec: Spec) -> Sparsity:
    """Returns the run's `Sparsity`, not yet prepared."""
    return build_sparsity(spec.sparsity, spec.density, spec.early_time, spec.sparsity_options)


def build_sparsity(name: str, density: float, early_time: bool, options: Mapping[str, Any]) -> Sparsity:
    """Returns the `Sparsity` of a name in `--sparsity`, not yet prepared."""
    return sparsity_class(name)(density, early_time, **options)


def make_model(spec: Spec, material: Material, seed: int, timesteps: int | None = None) -> nn.Module:
    """Returns an untrained network on the spec's device; see `build_model`."""
    return placed(build_model(spec, material, seed, timesteps), spec)


def build_model(spec: Spec, material: Material, seed: int, timesteps: int | None = None) -> nn.Module:
    """Returns an untrained network on the CPU, where its class builds it. It is always the same for a seed.

    Args:
        spec: Names the backbone, its options and the precision.
        material: The data, for the shape of an input and the number of classes.
        seed: Seed of the initial weights.
        timesteps: Number of time steps; None: the spec's number.

    Raises:
        BadInput: The class can't be built from these arguments, or has nothing to train.
    """
    backbone = registry.resolve("backbone", spec.backbone)
    names = {f.name for f in dataclasses.fields(NeuronSettings)}
    neuron = NeuronSettings(**{k: v for k, v in spec.backbone_options.items() if k in names}, kernel=spec.kernel)
    options = {k: v for k, v in spec.backbone_options.items() if k not in names}
    inputs = (material.train.input_shape, len(material.dataset.class_names), timesteps or spec.timesteps, neuron)
    try:
        inspect.signature(backbone).bind(*inputs, **options)
    except TypeError as error:
        raise BadInput(
            f"backbone '{spec.backbone}' is not built from (input_shape, num_classes, timesteps, neuron): {error}"
        ) from None
    with isolated(seed, "weights", torch.device(spec.device)), enough_memory(spec):
        model: nn.Module = backbone(*inputs, **options)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadInput(f"backbone '{spec.backbone}' has no parameters to train")
    if spec.backprop == "local":
        add_heads(model, inputs[0], inputs[1], seed)
    return model.double() if spec.precision == "fp64" else model


def placed(model: nn.Module, spec: Spec) -> nn.Module:
    """Returns the network on the spec's device, channels last in memory."""
    with enough_memory(spec):
        return model.to(torch.device(spec.device)).to(memory_format=torch.channels_last)


def weight_bytes(model: nn.Module) -> int:
    """Returns the size of a network's parameters."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


@contextmanager
def enough_memory(spec: Spec) -> Iterator[None]:
    """Turns torch's errors for too little memory, or for a size beyond its integers, into one line."""
    try:
        yield
    except (MemoryError, RuntimeError, TypeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        raise BadInput(
            f"out of memory on {spec.device}: batch size {spec.batch_size}, {spec.timesteps} time steps and backbone options "
            f"{spec.backbone_options} need more than there is; lower one of them"
        ) from None


def make_loader(spec: Spec, material: Material, examples: Examples) -> Loader:
    """Returns the loader of these examples, on the spec's device and at its precision."""
    dtype = torch.float64 if spec.precision == "fp64" else torch.float32
    kind = material.dataset
    num_classes = len(kind.class_names)
    return Loader(examples, kind.scale, kind.mean, kind.std, torch.device(spec.device), dtype, num_classes)
