"""THE training loop: one, for every method, without a branch on any of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.backprop import at_precision, bptt
from sadp_bench.clock import Clock
from sadp_bench.errors import BadInput
from sadp_bench.examples import Loader, batches, draw_augmentation, in_order
from sadp_bench.losses import LOSSES, logit_errors
from sadp_bench.progress import Progress
from sadp_bench.pruner import Observation, Pruner
from sadp_bench.sampling import kept_in_epoch
from sadp_bench.spec import Spec
from sadp_bench.streams import isolated, stream
from sadp_bench.taps import Taps

EVALUATION_BATCH = 256

Row = dict[str, Any]


def train(
    model: nn.Module, pruner: Pruner, data: Loader, spec: Spec, clock: Clock, progress: Progress, seed: int
) -> Iterator[Row]:
    """Trains epoch by epoch and yields each one's row: epoch, kept, mean_weight, train_loss, learning_rate, seconds.

    The order of an epoch and how it shows each example come from streams that do not know the pruner; the kept examples
    are taken out of that order. train_loss is the unweighted mean over the visits, before each update.
    """
    loss, forward = LOSSES[spec.loss], at_precision(model, spec.precision, data.device)
    optimizer = make_optimizer(model, spec)
    length = run_length(pruner, spec, len(data))
    with Taps(model, pruner.watch) as taps:
        for epoch in range(math.ceil(length)):
            portion = min(1.0, length - epoch)
            before = sum(clock.seconds.values())
            with clock("select"):
                selection = pruner.select(epoch)
            with clock("train"), isolated(seed, f"dropout {epoch}", data.device):
                model.train()
                look = draw_augmentation(spec.augment, len(data), data.padding, stream(seed, "augmentation", epoch))
                order_N = torch.randperm(len(data), generator=stream(seed, "order", epoch))
                index_K, weight_K = in_order(selection, order_N, portion)
                total_loss, shown = torch.zeros((), device=data.device), 0
                for index_B, weight_B in batches(index_K, weight_K, spec.batch_size):
                    rate = learning_rate(spec, (epoch + portion * shown / len(index_K)) / length)
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    input, weight_B = data.input(index_B, look), weight_B.to(data.device)
                    index_B = index_B.to(data.device, non_blocking=True)
                    label_B = data.label_N[index_B]
                    optimizer.zero_grad(set_to_none=True)
                    logits_TBC, loss_B = bptt(forward, loss, input, label_B, weight_B)
                    watched = _watched(pruner, taps, loss, logits_TBC, label_B)
                    pruner.observe(Observation(epoch, index_B, label_B, logits_TBC, loss_B, watched))
                    optimizer.step()
                    total_loss += loss_B.sum()
                    shown += len(index_B)
                    progress.advance(len(index_B))
                mean_loss = float(total_loss) / shown
            yield {
                "epoch": epoch,
                "kept": shown,
                "mean_weight": float(weight_K.mean()),
                "train_loss": _checked(mean_loss, epoch, spec),
                "learning_rate": rate,
                "seconds": sum(clock.seconds.values()) - before,
            }


def _watched(pruner: Pruner, taps: Taps, loss: Any, logits_TBC: Tensor, label_B: Tensor) -> dict[str, Tensor]:
    watched = taps.seen()
    if "logit_errors" in pruner.watch:
        watched["logit_errors"] = logit_errors(loss, logits_TBC, label_B)
    return watched


def _checked(mean_loss: float, epoch: int, spec: Spec) -> float:
    if not math.isfinite(mean_loss):
        raise BadInput(
            f"training diverged: {spec.method}'s mean loss is {mean_loss} in epoch {epoch + 1} at --learning-rate "
            f"{spec.learning_rate:g}; try a lower one"
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


def learning_rate(spec: Spec, share: float) -> float:
    """At a share in [0, 1) of the run: constant, or half a cosine from the full rate to 0."""
    if spec.schedule == "constant":
        return spec.learning_rate
    return spec.learning_rate * (1 + math.cos(math.pi * share)) / 2


def make_optimizer(model: nn.Module, spec: Spec) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW with its defaults."""
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    return torch.optim.SGD(model.parameters(), lr=spec.learning_rate, momentum=0.9, weight_decay=spec.weight_decay)


def predictions(model: nn.Module, data: Loader, precision: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(index_B, logits_TBC, input) over all data: evaluation mode, no augmentation, in index order, no gradients."""
    forward = at_precision(model, precision, data.device)
    model.eval()
    with torch.no_grad():
        for index_B in torch.arange(len(data)).split(EVALUATION_BATCH):
            input = data.input(index_B)
            yield index_B, forward(input), input


def evaluate(model: nn.Module, data: Loader, precision: str) -> float:
    """The share of right answers, by the mean of the logits over time."""
    right = torch.zeros((), device=data.device)
    for index_B, logits_TBC, _ in predictions(model, data, precision):
        right += (logits_TBC.mean(0).argmax(1) == data.label_N[index_B.to(data.device)]).sum()
    return float(right) / len(data)


def firing_rates(model: nn.Module, data: Loader, precision: str) -> list[float]:
    """Spikes per neuron and step of each spiking layer, over all data."""
    with Taps(model, {"spike_counts"}) as taps:
        counts = [taps.seen()["spike_counts"].mean(1).sum(1) for _ in predictions(model, data, precision)]
        total_S = torch.stack(counts).sum(0).tolist()
        return [total / len(data) / neurons for total, neurons in zip(total_S, taps.neurons_S, strict=True)]


def rehearse(model: nn.Module, data: Loader, spec: Spec, batches_timed: int = 3) -> float:
    """Seconds per example of a training step: a few steps of a copy, untimed first ones excluded.

    It is also the warm-up (kernels are chosen, memory is taken) and leaves no trace: the model is copied, and the
    random state restored.
    """
    model = copy.deepcopy(model)
    forward, optimizer = at_precision(model, spec.precision, data.device), make_optimizer(model, spec)
    index_B = torch.arange(len(data))[: spec.batch_size]
    label_B, weight_B = data.label_N[index_B.to(data.device)], torch.ones(len(index_B), device=data.device)
    look = draw_augmentation(spec.augment, len(data), data.padding, stream(spec.seed, "rehearsal"))
    clock = Clock(data.device)
    with isolated(spec.seed, "rehearsal", data.device):
        for step in range(1 + batches_timed):
            with clock("train") if step else clock("prepare"):
                optimizer.zero_grad(set_to_none=True)
                bptt(forward, LOSSES[spec.loss], data.input(index_B, look), label_B, weight_B)
                optimizer.step()
    return clock.seconds["train"] / (batches_timed * len(index_B))
