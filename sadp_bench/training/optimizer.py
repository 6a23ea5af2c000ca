"""The optimizer of a run and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from sadp_bench.records.spec import Spec


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
    """Returns SGD with momentum 0.9, or AdamW with its defaults."""
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    return torch.optim.SGD(model.parameters(), lr=spec.learning_rate, momentum=0.9, weight_decay=spec.weight_decay)
