"""Regressions that are planted for the gate's tests: each a context in which one part of the package is broken."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from baselines.infobatch import InfoBatch
from sadp_bench.capture import recorder
from sadp_bench.core.losses import WeightedLoss
from sadp_bench.pruners import base
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Observation, Selection, unweighted
from sadp_bench.pruners.sadp import SADP
from sadp_bench.runs import building, resources

SHARE = 0.5  # that `Half` keeps


class Half(Pruner):
    """Keeps the first half of the examples, as a method from outside the package."""

    def select(self, epoch: int) -> Selection:
        return unweighted(torch.arange(round(SHARE * self.num_examples)))


def weights_not_undone_in_scores() -> AbstractContextManager[Any]:
    seen = recorder.Recorder.seen
    return patch.object(recorder.Recorder, "seen", lambda self, scale_B=None: seen(self, None))


def scores_of_the_next_example() -> AbstractContextManager[Any]:
    observe = SADP.observe

    def observed(self: SADP, seen: Observation) -> None:
        observe(self, dataclasses.replace(seen, index_B=(seen.index_B + 1) % self.num_examples))

    return patch.object(SADP, "observe", observed)


def dropped_weights(method: type[Pruner] = SADP) -> AbstractContextManager[Any]:
    select = method.select
    return patch.object(method, "select", lambda self, epoch: unweighted(select(self, epoch).index_K))


def dropped_weights_of_infobatch() -> AbstractContextManager[Any]:
    return dropped_weights(InfoBatch)


def weights_ignored_by_the_loop() -> AbstractContextManager[Any]:
    from sadp_bench.training.backprop import BPTT

    def unweighted_step(self: BPTT, input: Tensor, loss: WeightedLoss, *rest: Any) -> tuple[Tensor, Tensor]:
        return step(self, input, dataclasses.replace(loss, weight_B=torch.ones_like(loss.weight_B)), *rest)

    step = BPTT.__call__
    return patch.object(BPTT, "__call__", unweighted_step)


def one_example_fewer() -> AbstractContextManager[Any]:
    num_kept = SADP.num_kept
    return patch.object(SADP, "num_kept", lambda self, epoch: num_kept(self, epoch) - 1)


def constant_budget() -> AbstractContextManager[Any]:
    return patch.object(base, "kept_share", lambda budget, ratio, done: 1 - ratio)


def missed_budget() -> AbstractContextManager[Any]:
    return patch.object(base, "kept_share", lambda budget, ratio, done: 1 - ratio + 0.02)


def crash() -> AbstractContextManager[Any]:
    return patch.object(SADP, "select", lambda self, epoch: [][epoch])


def sleep_in_every_batch(seconds: float = 0.1) -> AbstractContextManager[Any]:
    observe: Callable[..., None] = SADP.observe

    def slow(self: SADP, seen: Observation) -> None:
        time.sleep(seconds)
        observe(self, seen)

    return patch.object(SADP, "observe", slow)


@contextmanager
def another_machine(size: float = 1e-3) -> Iterator[None]:
    """Weights that start a rounding error of bfloat16 apart: spikes make of that what other arithmetic would."""

    def drifted(*given: Any) -> nn.Module:
        model, generator = build_model(*given), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + size * torch.randn(parameter.shape, generator=generator))
        return model

    build_model = building.build_model
    with patch.object(resources, "build_model", drifted):
        yield
