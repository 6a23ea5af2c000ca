"""Opens the data and the network of a record's run again. A name from a record is never imported."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import STATE_BYTES, Unreadable, read_bytes
from sadp_bench.datasets.base import data_root
from sadp_bench.datasets.loading import load
from sadp_bench.records.spec import Spec
from sadp_bench.runs.building import build_model
from sadp_bench.runs.material import Material, load_material

KINDS = {"dataset": "data set", "backbone": "backbone"}


def reopened(spec: Spec, data: Path | None = None, opened: dict[Any, Any] | None = None) -> Material:
    """Returns the data of a run. Downloads nothing.

    Args:
        spec: The run.
        data: The folder of the data sets.
        opened: A table that keeps the data sets for further calls.

    Raises:
        BadInput: The data set is not registered, or is not in the folder.
    """
    _check_registered("dataset", spec.dataset)
    opened = {} if opened is None else opened
    kind, root = registry.resolve("dataset", spec.dataset), data_root(data)
    settings = registry.settle(f"dataset {spec.dataset}", registry.options(kind), spec.dataset_options)
    if kind.locate(root, **settings) is None:
        raise BadInput(f"{spec.dataset} is not in {root}; name its folder with --data")
    whole = (spec.dataset, *settings.items())
    if whole not in opened:
        opened[whole] = load(kind, spec.dataset, root, spec.timesteps, settings)
    return load_material(opened[whole], spec.dataset, spec.evaluate_on, spec.train_examples)


def network_of(spec: Spec, material: Material, weights: Path) -> nn.Module:
    """Returns the trained network of a run, in evaluation mode.

    Args:
        spec: The run.
        material: Its data, for the shape of an input and the number of classes.
        weights: The file that `--save-model` wrote.

    Raises:
        BadInput: The file is absent, or has another network's weights.
    """
    _check_registered("backbone", spec.backbone)
    state = read_weights(weights)
    model = build_model(spec, material, spec.seed)
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError):
        raise BadInput(f"{weights} is not of the network that the record describes; channels may be cut") from None
    return model.eval()


def read_weights(weights: Path) -> dict[str, Tensor]:
    """Returns the state dict that `--save-model` wrote, on the CPU.

    Raises:
        BadInput: The file is absent, or has no weights.
    """
    try:
        content = read_bytes(weights, STATE_BYTES)
    except Unreadable as error:
        raise BadInput(f"{error}; `run --again --save-model` keeps the weights beside the record") from None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged files raise errors of many kinds.
        raise BadInput(f"{weights} contains no weights ({type(error).__name__})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{weights} contains no weights")
    return state


def _check_registered(kind: str, name: str) -> None:
    if name not in registry.table(kind):
        raise BadInput(f"{name} is no registered {KINDS[kind]}")
