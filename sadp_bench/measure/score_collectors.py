"""The two sides of a study: the scores that a run collects, and exact gradient norms with recalibrated normalisation.

n studied examples, B in a batch, L weight layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sadp_bench.capture.layers import batch_norms
from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.capture.signals import Signal
from sadp_bench.core.evaluation_mode import evaluation_mode
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import isolated, stream
from sadp_bench.pruners.base import KeepAll, Pruner
from sadp_bench.pruners.exchange import Candidates, Observation, ScoringContext, Selection, Survey
from sadp_bench.pruners.sadp import SADP
from sadp_bench.records.spec import Spec
from sadp_bench.training.augmentation import Augmentation
from sadp_bench.training.data import Loader
from sadp_bench.training.objective import run_loss
from sadp_bench.training.step import TrainingStep
from sadp_bench.training.survey import SURVEY_BATCH

EPOCHS_KEPT = 6  # epochs whose scores a collector keeps: the newest and the five before it


class Newest(KeepAll):
    """Collects a score that needs only loss or logits: its square at an example's last visit, as SADP does.

    Args:
        score: Returns the scores of a batch, [B].
    """

    def __init__(self, score: Callable[[Observation], Tensor]) -> None:
        super().__init__()
        self.score = score
        self.score_sq_N = torch.empty(0)

    def prepare(self, context: ScoringContext) -> None:
        """Starts without a score for any example."""
        super().prepare(context)
        self.score_sq_N = torch.full((context.num_examples,), torch.nan, device=context.device)

    def observe(self, seen: Observation) -> None:
        """Scores the batch."""
        squared_B = self.score(seen).square().to(self.score_sq_N.dtype)
        self.score_sq_N[seen.index_B] = squared_B.nan_to_num(nan=torch.inf, posinf=torch.inf)  # NaN marks the unseen


class ErrorsAlone(SADP):
    """The score `layers` with the batch's mean in place of each example's input squares."""

    def observe(self, seen: Observation) -> None:
        """Scores the batch."""
        evened = {
            name: value.mean(1, keepdim=True).expand_as(value) if name.endswith("input_squares") else value
            for name, value in seen.watched.items()
        }
        super().observe(dataclasses.replace(seen, watched=evened))


def el2n(seen: Observation) -> Tensor:
    """Returns the EL2N score ||p - y||, [B], with p the softmax of the logits' mean over time.

    Source: Paul et al., NeurIPS 2021.
    """
    logits_BC = seen.logits_TBC.mean(0)
    return (logits_BC.softmax(1) - one_hot(seen.label_B, logits_BC.shape[1])).norm(dim=1)


# In the order of a study's table. Pruners collect the scores, so SADP's scores are those of a real run.
COLLECTED_SCORES: dict[str, Callable[[], Newest | SADP]] = {
    "loss": lambda: Newest(lambda seen: seen.loss_B),
    "el2n": lambda: Newest(el2n),
    "readout": lambda: SADP(0.0, score="readout", memory=0.0),
    "spikes": lambda: SADP(0.0, score="spikes", memory=0.0),
    "plain": lambda: SADP(0.0, score="layers", calibrate=False, gain_limit=0.0, memory=0.0),
    "errors": lambda: ErrorsAlone(0.0, score="layers", memory=0.0),
    "layers": lambda: SADP(0.0, score="layers", memory=0.0),
    "sadp": lambda: SADP(0.0),
}


class Collector(Pruner):
    """Selects like a method, and also collects every score of the studied examples.

    `by_epoch` contains the scores after each of the newest epochs, counted from 0 (see `keep`).

    Args:
        index_n: The studied examples, int64.
        method: The method that selects the examples to train; None for all data.
        sadp: SADP's settings for the score "sadp". Settings that are not named have their defaults.
    """

    def __init__(self, index_n: Tensor, method: Pruner | None = None, sadp: Mapping[str, Any] | None = None) -> None:
        self.method = method or KeepAll()
        super().__init__(self.method.prune_ratio)
        self.index_n = index_n
        self.scores: dict[str, Newest | SADP] = {name: make() for name, make in COLLECTED_SCORES.items()}
        self.scores["sadp"] = self.sadp = SADP(0.0, **(sadp or {}))
        self.by_epoch: dict[int, dict[str, Tensor]] = {}

    def prepare(self, context: ScoringContext) -> None:
        """Prepares the method and every score."""
        super().prepare(context)
        for pruner in (self.method, *self.scores.values()):
            pruner.prepare(context)

    def watch(self, epoch: int) -> frozenset[Signal]:
        """Returns the signals of the method and of all scores."""
        pruners = (self.method, *self.scores.values())
        return frozenset[Signal]().union(*(pruner.watch(epoch) for pruner in pruners))

    def observe(self, seen: Observation) -> None:
        """Passes the batch to the method and to every score."""
        for pruner in (self.method, *self.scores.values()):
            _show(pruner, seen)

    def rescore(self, epoch: int, survey: Callable[[frozenset[str]], Survey]) -> None:
        """Rescores the method and SADP's score, which share the pass of a survey."""
        shared = functools.cache(survey)
        for pruner in (self.method, self.sadp):
            pruner.rescore(epoch, shared)

    def select(self, epoch: int) -> Selection:
        """Returns the method's selection."""
        return self.method.select(epoch)

    def num_trained(self, epoch: int, num_selected: int) -> int:
        """Returns the method's number."""
        return self.method.num_trained(epoch, num_selected)

    def num_updates(self, epoch: int, num_trained: int, batch_size: int) -> int:
        """Returns the method's number."""
        return self.method.num_updates(epoch, num_trained, batch_size)

    def choose_in_batch(self, candidates: Candidates) -> Selection:
        """Returns the method's choice."""
        return self.method.choose_in_batch(candidates)

    def revisit(self, epoch: int) -> Tensor:
        """Returns the examples that the method passes forward once more."""
        return self.method.revisit(epoch)

    def observe_forward(self, seen: Observation) -> None:
        """Passes the examples of `revisit` to the method."""
        self.method.observe_forward(seen)

    def run_epochs(self, epochs: int) -> float:
        """Returns the method's number of epochs."""
        return self.method.run_epochs(epochs)

    def planned_visits(self, num_examples: int, num_epochs: float) -> float:
        """Returns the method's plan."""
        return self.method.planned_visits(num_examples, num_epochs)

    def final_scores(self) -> Tensor | None:
        """Returns the method's scores."""
        return self.method.final_scores()

    def keep(self, epoch: int) -> None:
        """Keeps the present scores under the epoch, and drops those of old epochs."""
        self.by_epoch[epoch] = self.values()
        for old in [e for e in self.by_epoch if e <= epoch - EPOCHS_KEPT]:
            del self.by_epoch[old]

    def values(self) -> dict[str, Tensor]:
        """Returns the scores by name, [n], float64 on the CPU. Examples without a visit have the mean score, as in SADP."""
        found = {}
        for name, score in self.scores.items():
            score_N = score.score_sq_N.cpu().double().sqrt()
            score_n = score_N[self.index_n]
            found[name] = torch.where(score_n.isnan(), score_N.nanmean(), score_n)
        return found

    def unseen(self) -> float:
        """Returns the share of the studied examples without a visit so far."""
        return float(self.scores["loss"].score_sq_N.cpu()[self.index_n].isnan().double().mean())

    def bound_ratio(self) -> list[float]:
        """Returns k_l of `layers`, [L]: the exact squared norm of all steps over the middle step's bound; can exceed 1."""
        method = self.scores["layers"]
        assert isinstance(method, SADP)
        exact_L, bound_L = method.bound_ratio_2L.double().cpu()
        return (exact_L / bound_L.where(bound_L > 0, torch.nan)).tolist()


def _show(score: Pruner, seen: Observation) -> None:
    """Passes a batch to a pruner with only the signals that it watches, as the training loop does."""
    watch = score.watch(seen.epoch)
    watched = {name: value for name, value in seen.watched.items() if name in watch}
    score.observe(dataclasses.replace(seen, watched=watched))


def observations(
    model: nn.Module,
    data: Loader,
    spec: Spec,
    batches: Sequence[Tensor],
    watch: frozenset[Signal],
    training: bool,
    progress: Progress,
) -> Iterator[Observation]:
    """Yields the observation of each batch without augmentation and update, at the run's precision.

    The network and the random state are restored afterwards.

    Args:
        model: The network.
        data: The training set.
        spec: The run, which names the loss and the precision.
        batches: Indices of the examples, int64.
        watch: The signals to record.
        training: Whether the network is in training mode.
        progress: Receives the progress after each batch.
    """
    step, draws = TrainingStep(model, spec, data), stream(spec.seed, "study")
    with unchanged(model), isolated(spec.seed, "study", data.device), step.recording(watch), torch.enable_grad():
        model.train(training)
        for index_B in batches:
            yield step(index_B, torch.ones(len(index_B)), draws, divisor=1.0)
            progress.advance(len(index_B))


def exact_norms(
    model: nn.Module,
    data: Loader,
    spec: Spec,
    index_n: Tensor,
    progress: Progress,
    augmentation: Augmentation | None = None,
) -> Tensor:
    """Returns each example's exact gradient norm over all parameters, [n], float64 on the CPU, in evaluation mode.

    Autocast is off at any precision of the run, because rounding would change the norm.

    Args:
        model: The network.
        data: The training set.
        spec: The run, which names the loss.
        index_n: The examples, int64.
        progress: Receives the progress after each batch.
        augmentation: The augmentation of the examples; None for none.
    """
    norms, loss = [], run_loss(spec)
    with evaluation_mode(model):
        for index_B in index_n.split(SURVEY_BATCH):
            target = data.target(index_B, augmentation)
            norms.append(gradient_norms(model, loss, data.input(index_B, augmentation), target).cpu())
            progress.advance(len(index_B))
    return torch.cat(norms).double()


@contextmanager
def recalibrated(model: nn.Module, data: Loader, batches: Sequence[Tensor]) -> Iterator[None]:
    """Sets normalisation statistics to the means of these batches' statistics within the context, in evaluation mode.

    Batch norm trains with the statistics of each batch and evaluates with running means, which come from earlier weights.
    Where weights change fast, the evaluated network differs from the training one. All buffers are restored afterwards.

    Args:
        model: The network.
        data: The training set.
        batches: Indices of the examples of each batch, int64.
    """
    norms = batch_norms(model)
    with unchanged(model):
        momentum = [norm.momentum for norm in norms]
        try:
            for norm in norms:
                norm.reset_running_stats()  # type: ignore[operator]
                norm.momentum = None  # type: ignore[assignment]  # None: the mean over all batches
                norm.train()
            if norms:
                with torch.no_grad():
                    for index_B in batches:
                        model(data.input(index_B))
            model.eval()
            yield
        finally:
            for norm, before in zip(norms, momentum, strict=True):
                norm.momentum = before


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Sets the network to evaluation mode within the context, then restores modes, buffers and gradients bit for bit."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    grads = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in grads:
        parameter.grad = None
    with evaluation_mode(model):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in model.named_buffers():
                    buffer.copy_(buffers[name])
            for parameter, grad in grads:
                parameter.grad = grad
