"""THE training loop: one, for every method, without a branch on any of them."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.recorder import Taps
from sadp_bench.core import distributed
from sadp_bench.core.clock import Clock
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import LOSSES, logit_errors
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import isolated, stream
from sadp_bench.pruners.base import Observation, Pruner
from sadp_bench.pruners.batching import batches, in_order
from sadp_bench.pruners.sampling import kept_in_epoch
from sadp_bench.records.spec import Spec
from sadp_bench.sparsity.base import Sparsity
from sadp_bench.training.backprop import Backprop, make_backprop
from sadp_bench.training.data import Loader, draw_augmentation
from sadp_bench.training.optimizer import learning_rate, make_optimizer, set_learning_rate

Row = dict[str, Any]


@dataclass(slots=True, eq=False)
class Training:
    """All that changes while a network trains, and so all that a checkpoint must hold: no random state is among it, as
    every draw comes from (seed, name, epoch)."""

    model: nn.Module
    pruner: Pruner
    optimizer: torch.optim.Optimizer
    sparsity: Sparsity = field(default_factory=Sparsity)
    rows: list[Row] = field(default_factory=list)
    visits_N: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int32))

    def state_dict(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model, "pruner": self.pruner, "optimizer": self.optimizer}
        parts["sparsity"] = self.sparsity
        own = {"rows": self.rows, "visits_N": self.visits_N}
        return own | {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rows, self.visits_N = list(state["rows"]), state["visits_N"].cpu()
        self.model.load_state_dict(state["model"])
        self.pruner.load_state_dict(state["pruner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sparsity.load_state_dict(state["sparsity"])

    def count(self, index_K: Tensor, num_examples: int) -> None:
        """Notes an epoch's examples, each of which it shows once."""
        if not len(self.visits_N):
            self.visits_N = torch.zeros(num_examples, dtype=torch.int32)
        self.visits_N[index_K] += 1


def train(
    training: Training,
    data: Loader,
    spec: Spec,
    clock: Clock,
    progress: Progress,
    seed: int,
    until: int | None = None,
) -> Iterator[Row]:
    """Trains epoch by epoch, from the first that has no row, and yields each one's row: epoch, kept, mean_weight,
    train_loss, learning_rate, seconds. until: epochs after which it stops early.

    The order of an epoch and how it shows each example come from streams that do not know the pruner; the kept examples
    are taken out of that order. train_loss is the unweighted mean over the visits, before each update. Of several
    processes each trains its slice of every batch.
    """
    model, optimizer = training.model, training.optimizer
    loss, backprop = LOSSES[spec.loss], backprop_of(spec, model, data)
    length = run_length(training.pruner, spec, len(data))
    training.sparsity.attach(model, optimizer)
    for epoch in range(len(training.rows), min(math.ceil(length), sys.maxsize if until is None else until)):
        pruner, portion = training.pruner, min(1.0, length - epoch)
        before = sum(clock.seconds.values())
        with clock("select"):
            draws = stream(seed, "steps", epoch)
            surveyed = survey_for(pruner, backprop, data, spec, epoch, draws)
            selection = pruner.select(epoch)
        with (
            clock("train"),
            isolated(seed, f"dropout {epoch} {distributed.rank()}", data.device),
            Taps(model, pruner.watch) as taps,
        ):
            model.train()
            augmentation = draw_augmentation(spec.augment, len(data), data.padding, stream(seed, "augmentation", epoch))
            order_N = torch.randperm(len(data), generator=stream(seed, "order", epoch))
            index_K, weight_K = in_order(selection, order_N, portion, at_least=distributed.size())
            total_loss, shown, visited = torch.zeros((), device=data.device, dtype=torch.float64), 0, []
            for whole_B, weight_B in batches(index_K, weight_K, spec.batch_size):
                rate = learning_rate(spec, (epoch + portion * shown / len(index_K)) / length)
                set_learning_rate(optimizer, rate)
                input = data.input(index_B := distributed.part(whole_B), augmentation)
                index_B = index_B.to(data.device, non_blocking=True)
                label_B, weight_B = data.label_N[index_B], distributed.part(weight_B).to(data.device)
                optimizer.zero_grad(set_to_none=True)
                share = len(whole_B) / distributed.size()
                logits_TBC, loss_B = backprop(loss, input, label_B, weight_B, share, draws)
                scale_B = weight_B / share * backprop.gradient_share
                watched = _watched(pruner, taps, loss, logits_TBC, label_B, scale_B)
                pruner.observe(Observation(epoch, index_B, label_B, logits_TBC, loss_B, watched))
                optimizer.step()
                total_loss += loss_B.sum()
                shown += len(whole_B)
                visited.append(index_B)
                progress.advance(len(whole_B))
            distributed.gather(pruner.per_example().values(), visited)
            mean_loss = float(distributed.total(total_loss)) / shown
            training.sparsity.after_epoch(epoch, math.ceil(length))
        row = {
            "epoch": epoch,
            "kept": shown,
            "mean_weight": float(weight_K.mean()),
            "train_loss": _checked(mean_loss, epoch, rate, spec),
            "learning_rate": rate,
            "seconds": sum(clock.seconds.values()) - before,
        }
        training.rows.append(row | ({"surveyed": surveyed} if surveyed else {}))
        training.count(index_K, len(data))
        yield training.rows[-1]


def survey_for(pruner: Pruner, backprop: Backprop, data: Loader, spec: Spec, epoch: int, draws: torch.Generator) -> int:
    """Shows the pruner what it asks to see before it selects: evaluation mode, no augmentation, no update. How many
    examples that took."""
    wanted = pruner.to_survey(epoch)
    if wanted is None:
        return 0
    model, loss, visited = backprop.model, LOSSES[spec.loss], []
    distributed.share_buffers(model)
    model.eval()
    with Taps(model, pruner.watch - {"bound_ratio"}) as taps, torch.enable_grad():
        for whole_B in wanted.tensor_split(-(-len(wanted) // spec.batch_size)):
            input = data.input(index_B := distributed.part(whole_B))
            index_B = index_B.to(data.device)
            label_B, weight_B = data.label_N[index_B], torch.ones(len(index_B), device=data.device)
            logits_TBC, loss_B = backprop(loss, input, label_B, weight_B, 1.0, draws)
            watched = _watched(pruner, taps, loss, logits_TBC, label_B, weight_B * backprop.gradient_share)
            pruner.observe(Observation(epoch, index_B, label_B, logits_TBC, loss_B, watched))
            visited.append(index_B)
    model.zero_grad(set_to_none=True)
    distributed.gather(pruner.per_example().values(), visited)
    return len(wanted)


def _watched(
    pruner: Pruner, taps: Taps, loss: Any, logits_TBC: Tensor, label_B: Tensor, scale_B: Tensor | None = None
) -> dict[str, Tensor]:
    watched = taps.seen(scale_B)
    if "logit_errors" in pruner.watch:
        watched["logit_errors"] = logit_errors(loss, logits_TBC, label_B)
    return watched


def backprop_of(spec: Spec, model: nn.Module, data: Loader) -> Backprop:
    return make_backprop(spec.backprop, spec.k, model, spec.precision, data.device)


class Diverged(BadInput):
    """A run whose loss is no number any more; epoch from 0."""

    def __init__(self, message: str, epoch: int, learning_rate: float) -> None:
        super().__init__(message)
        self.epoch, self.learning_rate = epoch, learning_rate


def _checked(mean_loss: float, epoch: int, rate: float, spec: Spec) -> float:
    if not math.isfinite(mean_loss):
        raise Diverged(
            f"training diverged: {spec.method}'s mean loss is {mean_loss} in epoch {epoch + 1} at a learning rate of "
            f"{rate:.3g} (--learning-rate {spec.learning_rate:g}); try a lower one",
            epoch,
            rate,
        )
    return mean_loss


def run_length(pruner: Pruner, spec: Spec, num_examples: int) -> float:
    """How many epochs the run takes; the last may be partial.

    Protocol `epochs`: as many as asked, or fewer where the pruner shortens the run. Protocol `updates`: until full-data
    training's number of updates is made.
    """
    if spec.protocol == "epochs":
        return pruner.run_epochs(spec.epochs)
    left, epoch = spec.epochs * math.ceil(num_examples / spec.batch_size), 0
    while True:
        updates = math.ceil(kept_in_epoch(num_examples, spec.ratio, epoch) / spec.batch_size)
        if left <= updates:
            return epoch + left / updates
        left, epoch = left - updates, epoch + 1


def rehearse(model: nn.Module, data: Loader, spec: Spec, batches_timed: int = 3) -> float:
    """Seconds per example of a training step: a few steps of a copy, untimed first ones excluded.

    It is also the warm-up (kernels are chosen, memory is taken) and leaves no trace: the model is copied, and the
    random state restored.
    """
    model = copy.deepcopy(model)
    backprop, optimizer = backprop_of(spec, model, data), make_optimizer(model, spec)
    index_B = torch.arange(len(data))[: spec.batch_size]
    label_B, weight_B = data.label_N[index_B.to(data.device)], torch.ones(len(index_B), device=data.device)
    draws = stream(spec.seed, "rehearsal")
    augmentation = draw_augmentation(spec.augment, len(data), data.padding, draws)
    clock = Clock(data.device)
    with isolated(spec.seed, "rehearsal", data.device):
        for step in range(1 + batches_timed):
            with clock("train") if step else clock("prepare"):
                optimizer.zero_grad(set_to_none=True)
                backprop(LOSSES[spec.loss], data.input(index_B, augmentation), label_B, weight_B, len(index_B), draws)
                optimizer.step()
    return clock.seconds["train"] / (batches_timed * len(index_B))
