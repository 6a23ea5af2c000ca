"""A few training steps before a run, as its warm-up and to measure the seconds of a step."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sadp_bench.core.clock import Clock
from sadp_bench.core.rng import isolated, stream
from sadp_bench.records.spec import Spec
from sadp_bench.training.augmentation import draw_augmentation
from sadp_bench.training.data import Loader
from sadp_bench.training.optimizer import make_optimizer
from sadp_bench.training.step import TrainingStep


def rehearse(model: nn.Module, data: Loader, spec: Spec, timed_steps: int = 3) -> float:
    """Trains a copy of the network for a few steps, discards it, and restores the random state.

    The first step is not timed, because it chooses kernels and takes memory.

    Returns:
        Seconds of a training step per example.
    """
    model = copy.deepcopy(model)
    step = TrainingStep(model, spec, data, make_optimizer(model, spec))
    batch_B = torch.arange(min(spec.batch_size, len(data)), device=data.place)
    weight_B, draws = torch.ones(len(batch_B), device=data.device), stream(spec.seed, "rehearsal")
    augmentation = draw_augmentation(spec.augment, len(data), data.padding, data.sides, draws, data.device)
    clock = Clock(data.device)
    data.expect([])  # so that nothing of an earlier batch is reused
    with isolated(spec.seed, "rehearsal", data.device):
        for number in range(1 + timed_steps):
            with clock("train" if number else "prepare"):
                step(batch_B, weight_B, draws, augmentation=augmentation)
    return clock.seconds["train"] / (timed_steps * len(batch_B))
