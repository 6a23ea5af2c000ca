"""The optimizer of a run and its learning rate."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import Pruner
from sadp_bench.records.spec import Spec


def _eager(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Returns the optimizer without its wrappers for `torch.compile`.

    The wrappers import `torch._dynamo`, which takes as long as the import of torch and delays the first line of a run.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    return type(kind.__name__, (kind,), {**plain, "step": torch.no_grad()(inspect.unwrap(kind.step))})


OPTIMIZERS = {"sgd": _eager(torch.optim.SGD), "adamw": _eager(torch.optim.AdamW)}


WARMUP_START = 0.01  # share of the full rate; above 0, so that the first update changes the weights


def learning_rate(spec: Spec, share: float) -> float:
    """Returns the rate at a share in [0, 1] of the run: constant, or half a cosine from the full rate to 0.

    A warm-up before it raises the rate linearly from `WARMUP_START` of the full rate. The warm-up takes the share
    `warmup_epochs / epochs` of every run.
    """
    warmup = spec.warmup_epochs / spec.epochs
    if share < warmup:
        return spec.learning_rate * (WARMUP_START + (1 - WARMUP_START) * share / warmup)
    if spec.schedule == "constant":
        return spec.learning_rate
    return spec.learning_rate * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))) / 2


def share_done(spec: Spec, of_epochs: float, of_visits: float) -> float:
    """Returns the share of the run that is done by the spec's clock, at most 1. The learning rate follows it.

    With `visits`, runs of equally many visits have nearly the same sum of rates, however their epochs share the visits.
    """
    return of_epochs if spec.lr_clock == "epochs" else min(of_visits, 1.0)


def planned_visits(pruner: Pruner, spec: Spec, num_examples: int, length: float) -> float:
    """Returns the training visits planned for a run; infinite for the clock of epochs, which needs none.

    Args:
        pruner: The pruner.
        spec: The run.
        num_examples: N, the training examples.
        length: The number of epochs that the run takes.

    Raises:
        BadInput: The pruner has no number of visits before training.
    """
    if spec.lr_clock == "epochs":
        return math.inf
    planned = pruner.planned_visits(num_examples, length if spec.protocol == "updates" else spec.epochs)
    if not 0 < planned < math.inf:
        raise BadInput(
            f"--lr-clock visits needs the number of visits before training, and {spec.method} with these settings has "
            "none; use --lr-clock epochs"
        )
    return planned


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def make_optimizer(model: nn.Module, spec: Spec) -> torch.optim.Optimizer:
    """Returns SGD with the spec's momentum, or AdamW with its defaults; on CUDA one kernel updates all weights."""
    settings: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    if spec.optimizer == "sgd":
        settings |= {"momentum": spec.momentum, "nesterov": spec.nesterov}
    if all(parameter.is_cuda for parameter in model.parameters()):
        settings["fused"] = True
    return OPTIMIZERS[spec.optimizer](model.parameters(), **settings)
