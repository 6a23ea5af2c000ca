"""Predictions, loss, accuracy and firing rates of a trained network, on held-out data and on its training images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sadp_bench.capture.finite import FiniteWatch, some_of
from sadp_bench.capture.layers import spiking_layers
from sadp_bench.capture.recorder import Recorder
from sadp_bench.core import distributed
from sadp_bench.core.errors import Diverged
from sadp_bench.core.evaluation_mode import evaluation_mode
from sadp_bench.core.losses import Loss
from sadp_bench.core.precision import widest_dtype
from sadp_bench.core.rng import stream
from sadp_bench.datasets.examples import stratified_order
from sadp_bench.records.metrics import MAX_FITTED
from sadp_bench.records.spec import Spec
from sadp_bench.training.backprop import at_precision
from sadp_bench.training.data import Loader
from sadp_bench.training.objective import run_loss

EVALUATION_BATCH = 256  # examples
MAX_STEPS = 1000  # time steps; a run with more has no accuracy after each step in its record


def predictions(
    model: nn.Module, data: Loader, precision: str, index_n: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields (index_B, logits_TBC, input) of the examples, in the order of the index, without augmentation and gradients.

    The network is in evaluation mode while it predicts, and in its own mode at each yield. The caller may take gradients.
    Each of several processes gets its part of the data.

    Args:
        model: The network.
        data: The examples.
        precision: The run's precision.
        index_n: Indices of n examples, int64; None: all of them.
    """
    forward = at_precision(model, precision, data.device)
    distributed.share_buffers(model)
    index_n = torch.arange(len(data)) if index_n is None else index_n
    batches = distributed.part(index_n.to(data.place)).split(EVALUATION_BATCH)
    data.expect(batches)
    for index_B in batches:
        input = data.input(index_B)
        with evaluation_mode(model), torch.no_grad():
            logits_TBC = forward(input)
        yield index_B, logits_TBC, input


def evaluate(model: nn.Module, data: Loader, precision: str, epoch: int = 0) -> float:
    """Returns the share of examples that the mean of the logits over time classifies correctly.

    Args:
        model: The network.
        data: The examples.
        precision: The run's precision.
        epoch: The epoch just trained, from 0, for the error message.

    Raises:
        Diverged: Inputs, membranes or logits are not finite. Such a network has no accuracy.
    """
    correct, watch = torch.zeros((), device=data.device), FiniteWatch(model)
    with watch.passes():
        for index_B, logits_TBC, _ in predictions(model, data, precision):
            correct += (logits_TBC.mean(0).argmax(1) == data.label_N[index_B.to(data.device)]).sum()
    if places := watch.places():
        raise Diverged(
            f"the evaluation after epoch {epoch + 1} is not finite ({some_of(places)}): look for NaN in the data, or try a "
            "lower learning rate",
            epoch,
        )
    return float(distributed.total(correct)) / len(data)


def fitted_index(label_N: Tensor) -> Tensor:
    """Returns the indices of the training images of `fitted`: all, or the first of a fixed, class-balanced order.

    They depend on no method and no seed. They are int64, ascending, on the CPU.
    """
    if len(label_N) <= MAX_FITTED:
        return torch.arange(len(label_N))
    return stratified_order(label_N.cpu(), stream(0, "subset"))[:MAX_FITTED].sort().values


def fitted(model: nn.Module, data: Loader, spec: Spec) -> dict[str, Any]:
    """Returns the loss and the accuracy of the trained network on training images, as the fields of a record.

    The network is in evaluation mode, and the images are not augmented. Nothing is drawn at random.

    Args:
        model: The network.
        data: The training set.
        spec: The run.

    Returns:
        fitted_loss, fitted_accuracy and fitted_examples; an empty table where a number of the pass is not finite.
    """
    fit, watch = Fit(run_loss(spec), data.device), FiniteWatch(model)
    index_n = fitted_index(data.label_N)
    with watch.passes():
        for index_B, logits_TBC, _ in predictions(model, data, spec.precision, index_n):
            fit.add(logits_TBC, data.label_N[index_B.to(data.device)])
    loss, accuracy = fit.means(len(index_n))
    if watch.places() or not math.isfinite(loss):
        return {}
    return {"fitted_loss": loss, "fitted_accuracy": accuracy, "fitted_examples": len(index_n)}


class Tally(Protocol):
    """A count over the logits of a pass, batch by batch."""

    def add(self, logits_TBC: Tensor, label_B: Tensor) -> None:
        """Counts a batch."""


def firing_rates(model: nn.Module, data: Loader, precision: str, tallies: Sequence[Tally] = ()) -> list[float]:
    """Returns the spikes per neuron and time step of each spiking layer, over all data.

    A layer that is never called has the rate 0. A network without spiking layers has no rates.

    Args:
        model: The network.
        data: The examples.
        precision: The run's precision.
        tallies: Counts that receive the logits of the same pass.
    """
    layers = len(spiking_layers(model))
    with Recorder(model, {"spike_counts"} if layers else set()) as recorder:
        total_S = torch.zeros(layers, device=data.device)
        for index_B, logits_TBC, _ in predictions(model, data, precision):
            if layers:
                total_S += recorder.seen()["spike_counts"].mean(1).sum(1)
            for tally in tallies:
                tally.add(logits_TBC, data.label_N[index_B.to(data.device)])
        if not layers:
            return []
        totals = distributed.total(total_S).tolist()
        neurons_S = recorder.spikes.neurons_S
        return [total / len(data) / max(1, neurons) for total, neurons in zip(totals, neurons_S, strict=True)]


class Fit:
    """The mean loss and the accuracy of a network.

    Args:
        loss: Returns the loss of each example, before weighting.
        device: The logits' device.
    """

    def __init__(self, loss: Loss, device: torch.device) -> None:
        self._loss = loss
        self._total_loss, self._correct = torch.zeros(2, device=device, dtype=widest_dtype(device))

    def add(self, logits_TBC: Tensor, label_B: Tensor) -> None:
        """Adds a batch: the mean of the logits over time classifies."""
        self._total_loss += self._loss(logits_TBC, label_B).sum()
        self._correct += (logits_TBC.mean(0).argmax(1) == label_B).sum()

    def means(self, num_examples: int) -> tuple[float, float]:
        """Returns the mean loss and the accuracy."""
        loss, correct = distributed.total(torch.stack([self._total_loss, self._correct])).tolist()
        return loss / num_examples, correct / num_examples


class StepAccuracy:
    """The accuracy of a trained network that stops after 1 to T of its time steps.

    A network that does not look ahead makes the same first t logits at every T. So one pass at T contains them all.

    Args:
        timesteps: T. A network that makes fewer steps keeps its last accuracy for the rest.
        device: The logits' device.
    """

    def __init__(self, timesteps: int, device: torch.device) -> None:
        steps = timesteps if timesteps <= MAX_STEPS else 0
        self.correct_T = torch.zeros(steps, dtype=torch.int64, device=device)

    def add(self, logits_TBC: Tensor, label_B: Tensor) -> None:
        """Counts a batch: the mean of the first t logits classifies, for each t."""
        class_TB = logits_TBC.cumsum(0).argmax(2)
        class_TB[-1] = logits_TBC.mean(0).argmax(1)  # as `evaluate` rounds it
        of_step = torch.arange(len(self.correct_T), device=class_TB.device).clamp_max(len(class_TB) - 1)
        self.correct_T += (class_TB == label_B).sum(1)[of_step]

    def shares(self, num_examples: int) -> list[float]:
        """Returns the accuracy after t steps, [T]; an empty list where T is above `MAX_STEPS`."""
        return [float(correct) / num_examples for correct in distributed.total(self.correct_T)]


class ClassAccuracy:
    """The accuracy of a trained network on each class.

    Args:
        num_classes: C.
        device: The logits' device.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.correct_C, self.shown_C = torch.zeros(2, num_classes, dtype=torch.int64, device=device)

    def add(self, logits_TBC: Tensor, label_B: Tensor) -> None:
        """Counts a batch: the mean of the logits over time classifies."""
        right_B = logits_TBC.mean(0).argmax(1) == label_B
        self.correct_C.index_add_(0, label_B, right_B.to(self.correct_C.dtype))
        self.shown_C.index_add_(0, label_B, torch.ones_like(label_B))

    def shares(self, names: Sequence[str]) -> dict[str, float]:
        """Returns the accuracy on each class that has examples, by its name."""
        counts = zip(
            names, distributed.total(self.correct_C).tolist(), distributed.total(self.shown_C).tolist(), strict=True
        )
        return {name: correct / shown for name, correct, shown in counts if shown}
