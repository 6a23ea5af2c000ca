"""The optimizer of a run and its learning rate."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from sadp_bench.records.spec import Spec


def _eager(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Returns the optimizer without its wrappers for `torch.compile`.

    The wrappers import `torch._dynamo`: that takes as long as the import of torch, and delays the first line of a run.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    return type(kind.__name__, (kind,), {**plain, "step": torch.no_grad()(inspect.unwrap(kind.step))})


OPTIMIZERS = {"sgd": _eager(torch.optim.SGD), "adamw": _eager(torch.optim.AdamW)}


def learning_rate(spec: Spec, share: float) -> float:
    """Returns the rate at a share in [0, 1) of the run: constant, or half a cosine from the full rate to 0."""
    if spec.schedule == "constant":
        return spec.learning_rate
    return spec.learning_rate * (1 + math.cos(math.pi * share)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def make_optimizer(model: nn.Module, spec: Spec) -> torch.optim.Optimizer:
    """Returns SGD with momentum 0.9, or AdamW with its defaults; on CUDA one kernel updates all weights."""
    settings: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    if spec.optimizer == "sgd":
        settings["momentum"] = 0.9
    if all(parameter.is_cuda for parameter in model.parameters()):
        settings["fused"] = True
    return OPTIMIZERS[spec.optimizer](model.parameters(), **settings)
