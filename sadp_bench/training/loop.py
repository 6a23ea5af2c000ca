"""The training loop, which is the same for every method: it has no branch on a method.

N examples, K kept in an epoch, B in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.finite import FiniteWatch, some_of
from sadp_bench.core import distributed
from sadp_bench.core.clock import Clock
from sadp_bench.core.errors import BadInput, Diverged
from sadp_bench.core.precision import widest_dtype
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import isolated, stream
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.batching import candidates, in_order
from sadp_bench.pruners.contract import selection_of, signals_of, updates_of
from sadp_bench.pruners.exchange import Selection
from sadp_bench.pruners.sampling import kept_in_epoch
from sadp_bench.records.record import is_number
from sadp_bench.records.spec import Spec
from sadp_bench.sparsity.base import Sparsity
from sadp_bench.training.augmentation import draw_augmentation
from sadp_bench.training.choosing import Choosing
from sadp_bench.training.data import Loader
from sadp_bench.training.optimizer import learning_rate, planned_visits, set_learning_rate, share_done
from sadp_bench.training.step import TrainingStep
from sadp_bench.training.survey import Surveys
from sadp_bench.training.weight_average import WeightAverage

EpochRow = dict[str, Any]


@dataclass(slots=True, eq=False)
class TrainingState:
    """All that changes while a network trains, and so all that a checkpoint must contain.

    It has no random state, because every draw comes from (seed, name, epoch).

    Args:
        model: The network.
        pruner: Selects each epoch's examples.
        optimizer: Updates the network.
        sparsity: Masks the network's weights.
        rows: One row of the record for each finished epoch.
        visits_N: How often each example was shown, int32; empty before the first epoch ends.
        average: The moving average of the network's weights; None: none is kept.
    """

    model: nn.Module
    pruner: Pruner
    optimizer: torch.optim.Optimizer
    sparsity: Sparsity = field(default_factory=Sparsity)
    rows: list[EpochRow] = field(default_factory=list)
    visits_N: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int32))
    average: WeightAverage | None = None

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values only."""
        parts: dict[str, Any] = {name: getattr(self, name) for name in ("model", "pruner", "optimizer", "sparsity")}
        parts |= {} if self.average is None else {"average": self.average}
        states = {name: part.state_dict() for name, part in parts.items()}
        return {"rows": self.rows, "visits_N": self.visits_N, **states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads the state of `state_dict`. The optimizer keeps its own where that state lacks one."""
        self.rows, self.visits_N = list(state["rows"]), state["visits_N"].cpu()
        self.sparsity.load_state_dict(state["sparsity"])
        self.sparsity.shape(self.model)
        self.model.load_state_dict(state["model"])
        self.pruner.load_state_dict(state["pruner"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Gives the network the weights to evaluate within the context: the average, where one is kept."""
        with nullcontext() if self.average is None else self.average.within(self.model):
            yield

    def finish_epoch(self, row: EpochRow, index_K: Tensor, num_examples: int) -> None:
        """Adds an epoch's row, and counts the visits of its examples."""
        self.rows.append(row)
        if not len(self.visits_N):
            self.visits_N = torch.zeros(num_examples, dtype=torch.int32)
        self.visits_N.index_add_(0, index_K, torch.ones(len(index_K), dtype=torch.int32))


def train(
    state: TrainingState,
    data: Loader,
    spec: Spec,
    clock: Clock,
    progress: Progress,
    seed: int,
    until: float | None = None,
) -> Iterator[EpochRow]:
    """Trains epoch by epoch, from the first that has no row, and yields each epoch's row.

    Args:
        state: The network and all that trains it; changed in place.
        data: The training set.
        spec: The run.
        clock: Charges the phases "select" and "train".
        progress: Receives an event for every batch.
        seed: Seed of the order, the augmentation, dropout and the backward pass's draws.
        until: Number of epochs after which training stops early; the last one may be partial. None: the whole run.

    Yields:
        A row with epoch, kept, mean_weight, seconds and these fields. `train_loss` and `weighted_loss` are means over the
        visits, before each update, of the loss and of weight x loss. `learning_rate` is the epoch's last.
        `mean_learning_rate` is the mean over the visits. `data_seconds` is the part of train that waits for stored inputs.
        A row also has `Choosing.row` where examples were passed forward alone, and `Surveys.row` where the pruner made
        surveys.

    Raises:
        Diverged: A mean loss of an epoch, a weight, a buffer, a membrane or a logit is not finite.
    """
    watch = FiniteWatch(state.model)
    step = TrainingStep(state.model, spec, data, state.optimizer)
    length = run_length(state.pruner, spec, len(data))
    state.sparsity.attach(state.model, state.optimizer)
    end = length if until is None else min(length, until)
    for epoch in range(len(state.rows), math.ceil(end)):
        before = sum(clock.seconds.values())
        surveys = Surveys(state.model, data, spec)
        with clock("select"):
            state.pruner.rescore(epoch, surveys)
            selection = selection_of(state.pruner, epoch)
        dropout = isolated(seed, f"dropout {epoch} {distributed.rank()}", data.device)
        with clock("train"), dropout, step.recording(signals_of(state.pruner, epoch)):
            row, index_K = _train_epoch(state, step, watch, selection, spec, progress, seed, epoch, length, end)
            state.sparsity.after_epoch(epoch, math.ceil(length))
        row |= surveys.row()
        row["seconds"] = sum(clock.seconds.values()) - before
        _check_finite(row, watch, spec)
        state.finish_epoch(row, index_K, len(data))
        yield row


def _train_epoch(
    state: TrainingState,
    step: TrainingStep,
    watch: FiniteWatch,
    selection: Selection,
    spec: Spec,
    progress: Progress,
    seed: int,
    epoch: int,
    length: float,
    end: float,
) -> tuple[EpochRow, Tensor]:
    """Trains on one epoch's selection. Returns the epoch's row, and the visited examples in the order shown, [K].

    The epoch's order and augmentation come from streams that do not depend on the pruner. The selected examples keep
    that order. Only the last batch is watched for NaN, because NaN stays in weights and buffers until then.
    """
    data, portion = step.data, min(1.0, end - epoch)
    state.model.train()
    draws = stream(seed, "steps", epoch)
    looks = stream(seed, "augmentation", epoch)
    augmentation = draw_augmentation(spec.augment, len(data), data.padding, data.sides, looks, data.device)
    order_N = torch.randperm(len(data), generator=stream(seed, "order", epoch))
    index_K, weight_K = in_order(selection, order_N, portion, at_least=distributed.size())
    num_trained = trained_of(state.pruner, epoch, len(selection.index_K), len(index_K))
    total_loss, total_weighted = torch.zeros(2, device=data.device, dtype=widest_dtype(data.device))
    shown, visited, total_rate = 0, [], 0.0
    before, planned = sum(row["kept"] for row in state.rows), planned_visits(state.pruner, spec, len(data), length)
    choosing, trained, observe = Choosing(step, state.pruner, epoch, augmentation), [], state.pruner.observe
    num_updates = updates_of(state.pruner, epoch, num_trained, spec.batch_size)
    # The epoch's order and weights are copied to a GPU at once, because a copy in every step would make it wait.
    parts = list(candidates(index_K.to(data.place), weight_K.to(data.device), num_trained, num_updates))
    data.expect((distributed.part(index_B) for index_B, _, _ in parts), augmentation)
    data_seconds = data.data_seconds
    for number, part in enumerate(parts, 1):
        share = share_done(spec, (epoch + portion * shown / num_trained) / length, (before + shown) / planned)
        rate = learning_rate(spec, share)
        set_learning_rate(state.optimizer, rate)
        batch_B, weight_B = choosing(*part)
        with watch.passes() if number == len(parts) else nullcontext():
            seen = step(batch_B, weight_B, draws, epoch=epoch, augmentation=augmentation, observe=observe)
        if state.average is not None:
            state.average.update(state.model)
        total_loss += seen.loss_B.sum()
        total_weighted += (distributed.part(weight_B).to(data.device) * seen.loss_B).sum()
        total_rate += rate * len(batch_B)
        shown += len(batch_B)
        visited.append(seen.index_B)
        trained.append((batch_B, weight_B))
        progress.advance(len(batch_B))
    visited += choosing.revisit()
    distributed.gather(state.pruner.per_example().values(), visited)
    index_K, weight_K = (torch.cat(parts).cpu() for parts in zip(*trained, strict=True))
    loss, weighted_loss = distributed.total(torch.stack([total_loss, total_weighted])).tolist()
    row = {
        "epoch": epoch,
        "kept": shown,
        "mean_weight": float(weight_K.mean()),
        "train_loss": loss / shown,
        "weighted_loss": weighted_loss / shown,
        "learning_rate": rate,
        "mean_learning_rate": total_rate / shown,
        "data_seconds": data.data_seconds - data_seconds,
        **choosing.row(),
    }
    return row, index_K


def trained_of(pruner: Pruner, epoch: int, num_selected: int, num_shown: int) -> int:
    """Returns how many of an epoch's examples train.

    Args:
        pruner: The pruner.
        epoch: The epoch, from 0.
        num_selected: Examples that the pruner selected.
        num_shown: Examples that the epoch shows. A partial epoch shows fewer, and the same share of them trains.

    Raises:
        BadInput: The pruner returns no whole number from 1 to `num_selected`.
    """
    number: Any = pruner.num_trained(epoch, num_selected)
    if not isinstance(number, int) or not 0 < number <= num_selected:
        raise BadInput(
            f"{type(pruner).__name__}.num_trained({epoch}, {num_selected}) returns {number!r}, and must return a whole "
            f"number from 1 to {num_selected}"
        )
    return max(1, round(number * num_shown / num_selected))


def _check_finite(row: EpochRow, watch: FiniteWatch, spec: Spec) -> None:
    epoch, rate = row["epoch"], row["learning_rate"]
    at_rate = f"at a learning rate of {rate:.3g} (--learning-rate {spec.learning_rate:g}); try a lower one"
    if not all(math.isfinite(row[name]) for name in ("train_loss", "weighted_loss")):
        loss = f"{spec.method}'s mean loss is {row['train_loss']} in epoch {epoch + 1}"
        raise Diverged(f"training diverged: {loss} {at_rate}", epoch, rate)
    if places := watch.places():
        network = f"{spec.method}'s network is not finite after epoch {epoch + 1} ({some_of(places)})"
        raise Diverged(f"training diverged: {network} {at_rate}, and look for NaN in the data", epoch, rate)


def run_length(pruner: Pruner, spec: Spec, num_examples: int) -> float:
    """Returns the number of epochs of a run; the last one may be partial.

    Under the protocol `epochs` it is the requested number, or less where the pruner shortens the run. Under `updates` the
    run makes as many updates as full-data training.
    """
    if spec.protocol == "epochs":
        epochs: Any = pruner.run_epochs(spec.epochs)
        if not is_number(epochs) or not 0 < epochs <= spec.epochs:
            raise BadInput(
                f"{spec.method}'s run_epochs({spec.epochs}) returns {epochs!r}, and must return a number above 0 and at most "
                f"{spec.epochs}"
            )
        return epochs
    left, epoch = spec.epochs * spec.updates_per_epoch, 0
    while True:
        updates = math.ceil(kept_in_epoch(num_examples, spec.ratio, epoch) / spec.batch_size)
        if left <= updates:
            return epoch + left / updates
        left, epoch = left - updates, epoch + 1
