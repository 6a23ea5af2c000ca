"""What a study holds against each other: scores as a run collects them, and exact norms of a network whose normalisation
statistics fit its weights. n studied examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.capture.recorder import Taps, norm_layers
from sadp_bench.core.losses import LOSSES, logit_errors
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import isolated
from sadp_bench.pruners.base import KeepAll, Observation, ScoringContext
from sadp_bench.pruners.sadp import SADP
from sadp_bench.records.spec import Spec
from sadp_bench.training.backprop import at_precision
from sadp_bench.training.data import Augmentation, Loader
from sadp_bench.training.scoring_context import SURVEY_BATCH

MEMORY = 6  # epochs of which a collector keeps what it saw: the newest, and five before it


class Newest(KeepAll):
    """A score of the loss or the logits alone, kept from an example's last visit as SADP keeps its own: squared."""

    def __init__(self, score: Callable[[Observation], Tensor]) -> None:
        super().__init__()
        self.score = score
        self.score_sq_N = torch.empty(0)

    def prepare(self, context: ScoringContext) -> None:
        super().prepare(context)
        self.score_sq_N = torch.full((context.num_examples,), torch.nan, device=context.device)

    def observe(self, seen: Observation) -> None:
        self.score_sq_N[seen.index_B] = self.score(seen).square().to(self.score_sq_N.dtype)


class ErrorsAlone(SADP):
    """`layers` without the examples' own spikes: each layer's input squares are the batch's mean."""

    def observe(self, seen: Observation) -> None:
        evened = {
            name: value.mean(1, keepdim=True).expand_as(value) if name.endswith("input_squares") else value
            for name, value in seen.watched.items()
        }
        super().observe(dataclasses.replace(seen, watched=evened))


def el2n(seen: Observation) -> Tensor:
    """||p - y|| with p the softmax of the logits' time-mean: the EL2N score (Paul et al., NeurIPS 2021). [B]."""
    logits_BC = seen.logits_TBC.mean(0)
    return (logits_BC.softmax(1) - one_hot(seen.label_B, logits_BC.shape[1])).norm(dim=1)


# In the order of a study's table. Each is a pruner of its own, so that SADP's are those that SADP collects.
COLLECTED: dict[str, Callable[[], Newest | SADP]] = {
    "loss": lambda: Newest(lambda seen: seen.loss_B),
    "el2n": lambda: Newest(el2n),
    "readout": lambda: SADP(0.0, score="readout", memory=0.0),
    "spikes": lambda: SADP(0.0, score="spikes", memory=0.0),
    "plain": lambda: SADP(0.0, score="layers", calibrate=False, gain_limit=0.0, memory=0.0),
    "errors": lambda: ErrorsAlone(0.0, score="layers", memory=0.0),
    "layers": lambda: SADP(0.0, score="layers", memory=0.0),
    "sadp": lambda: SADP(0.0),
}


class Collector(KeepAll):
    """Keeps everything, as `full` does, and collects every score of the studied examples from the steps it sees.

    index_n: the studied examples, int64. by_epoch: what the scores were after each of the newest epochs (from 0), see `keep`.
    """

    def __init__(self, index_n: Tensor) -> None:
        super().__init__()
        self.index_n = index_n
        self.scores = {name: make() for name, make in COLLECTED.items()}
        self.watch = frozenset[str]().union(*(score.watch for score in self.scores.values()))
        self.by_epoch: dict[int, dict[str, Tensor]] = {}

    def prepare(self, context: ScoringContext) -> None:
        super().prepare(context)
        for score in self.scores.values():
            score.prepare(context)

    def observe(self, seen: Observation) -> None:
        for score in self.scores.values():
            observe_own(score, seen)

    def keep(self, epoch: int) -> None:
        """Notes what the scores are now, at the end of an epoch."""
        self.by_epoch[epoch] = self.values()
        for score in self.scores.values():
            score.select(epoch + 1)  # where SADP decides what it will watch
        for old in [e for e in self.by_epoch if e <= epoch - MEMORY]:
            del self.by_epoch[old]

    def values(self) -> dict[str, Tensor]:
        """By name, [n], float64 on the CPU."""
        return {name: score.score_sq_N.cpu()[self.index_n].double().sqrt() for name, score in self.scores.items()}

    def bound_ratio(self) -> list[float]:
        """k_l of `layers`, [L]: the exact squared norm of all steps over the middle step's bound. May exceed 1."""
        method = self.scores["layers"]
        assert isinstance(method, SADP)
        exact_L, bound_L = method.bound_ratio_2L.double().cpu()
        return (exact_L / bound_L.where(bound_L > 0, torch.nan)).tolist()


def observe_own(score: KeepAll | SADP, seen: Observation) -> None:
    """As the loop would show it to this score alone: with what it watches, and no more."""
    own = {name: value for name, value in seen.watched.items() if name in score.watch}
    score.observe(dataclasses.replace(seen, watched=own))


def observations(
    model: nn.Module,
    data: Loader,
    spec: Spec,
    batches: Sequence[Tensor],
    watch: frozenset[str],
    training: bool,
    progress: Progress,
) -> Iterator[Observation]:
    """What the batches (int64 each) show without augmentation and without an update, at the run's precision. Gradients are
    taken and dropped; statistics that a pass in training mode updates are put back after it."""
    loss, forward = LOSSES[spec.loss], at_precision(model, spec.precision, data.device)
    with (
        unchanged(model),
        isolated(spec.seed, "study", data.device),
        Taps(model, watch) as taps,
        torch.enable_grad(),
    ):
        model.train(training)
        for index_B in batches:
            label_B = data.label_N[index_B.to(data.device)]
            logits_TBC = forward(data.input(index_B))
            loss_B = loss(logits_TBC, label_B)
            torch.autograd.grad(loss_B.sum(), [p for p in model.parameters() if p.requires_grad])
            logits_TBC, loss_B = logits_TBC.detach(), loss_B.detach()
            watched = taps.seen() | {"logit_errors": logit_errors(loss, logits_TBC, label_B)}
            yield Observation(0, index_B.to(data.device), label_B, logits_TBC, loss_B, watched)
            progress.advance(len(index_B))


def exact_norms(
    model: nn.Module,
    data: Loader,
    spec: Spec,
    index_n: Tensor,
    progress: Progress,
    augmentation: Augmentation | None = None,
) -> Tensor:
    """Each example's exact gradient norm over all parameters, [n], float64 on the CPU: evaluation mode, augmented as given.

    Without autocast, whatever the run's precision: a norm is exact or it is another score.
    """
    norms = []
    with unchanged(model):
        model.eval()
        for index_B in index_n.split(SURVEY_BATCH):
            label_B = data.label_N[index_B.to(data.device)]
            norms.append(gradient_norms(model, LOSSES[spec.loss], data.input(index_B, augmentation), label_B).cpu())
            progress.advance(len(index_B))
    return torch.cat(norms).double()


@contextmanager
def recalibrated(model: nn.Module, data: Loader, batches: Sequence[Tensor]) -> Iterator[None]:
    """Within: normalisation statistics are the means of these batches' own at the current weights, and constants.

    Batch norm trains on the statistics of each batch, and leaves to evaluation running means of those of earlier weights:
    where weights move fast that is another network than the one that trains. Every buffer is put back after.
    """
    norms = norm_layers(model)
    with unchanged(model):
        momentum = [norm.momentum for norm in norms]
        try:
            model.eval()
            for norm in norms:
                norm.reset_running_stats()  # type: ignore[operator]
                norm.momentum = None  # type: ignore[assignment]  # the plain mean over all batches
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
    """Puts every buffer, and whether each module trains, back to what it was, bit for bit."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        with torch.no_grad():
            _put_back(dict(model.named_buffers()), buffers)
        for module, training in modes.items():
            module.training = training


def _put_back(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
    for name, buffer in before.items():
        now[name].copy_(buffer)
