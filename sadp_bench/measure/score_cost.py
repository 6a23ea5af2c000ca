"""What collecting a score costs, as a share of a training step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sadp_bench.capture.recorder import Taps
from sadp_bench.core.clock import Clock
from sadp_bench.core.losses import LOSSES, logit_errors
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import isolated, stream
from sadp_bench.measure.score_collectors import COLLECTED, exact_norms
from sadp_bench.measure.speed import spread
from sadp_bench.pruners.base import KeepAll, Observation, Pruner
from sadp_bench.runs.trainer import Bench
from sadp_bench.training.data import draw_augmentation
from sadp_bench.training.optimizer import make_optimizer, set_learning_rate
from sadp_bench.training.step import TrainingStep

ROUNDS = 8
BATCHES = 3  # a turn


class Steps:
    """Training steps of a copy of a run's network, at the rate that the run has reached; the run itself stays as it is."""

    def __init__(self, bench: Bench) -> None:
        spec, data = bench.spec, bench.data
        self.spec, self.data, self.context = spec, data, bench.context
        self.model = copy.deepcopy(bench.model)
        self.model.train()
        self.optimizer = make_optimizer(self.model, spec)
        self.backprop = TrainingStep(self.model, spec, data).backprop
        self.draws = stream(spec.seed, "study cost", 2)
        if bench.training.rows:
            set_learning_rate(self.optimizer, bench.training.rows[-1]["learning_rate"])
        self.augmentation = draw_augmentation(spec.augment, len(data), data.padding, stream(spec.seed, "study cost"))
        order_N = torch.randperm(len(data), generator=stream(spec.seed, "study cost", 1))
        places = torch.arange(BATCHES * spec.batch_size) % len(data)
        self.batches = order_N[places].split(spec.batch_size)

    def turn(self, pruner: Pruner) -> tuple[float, float]:
        """Seconds of a step with a pruner that watches: of the first of an epoch, and of the mean one of those after it."""
        with isolated(self.spec.seed, "study cost", self.data.device), Taps(self.model, pruner.watch) as taps:
            first = self._seconds(lambda: self._steps(pruner, taps, self.batches[:1]))
            rest = self._seconds(lambda: self._steps(pruner, taps, self.batches))
        return first, rest / BATCHES

    def exact(self) -> float:
        """Seconds of the exact norms of one batch."""
        return self._seconds(lambda: exact_norms(self.model, self.data, self.spec, self.batches[0], Progress()))

    def _seconds(self, work: Callable[[], object]) -> float:
        clock = Clock(self.data.device)
        with clock("train"):
            work()
        return clock.seconds["train"]

    def _steps(self, pruner: Pruner, taps: Taps, batches: Sequence[Tensor]) -> None:
        for index_B in batches:
            self._step(pruner, taps, index_B)

    def _step(self, pruner: Pruner, taps: Taps, index_B: Tensor) -> None:
        """As the loop makes it."""
        loss = LOSSES[self.spec.loss]
        input = self.data.input(index_B, self.augmentation)
        index_B = index_B.to(self.data.device)
        label_B, weight_B = self.data.label_N[index_B], torch.ones(len(index_B), device=self.data.device)
        self.optimizer.zero_grad(set_to_none=True)
        logits_TBC, loss_B = self.backprop(loss, input, label_B, weight_B, len(index_B), self.draws)
        watched = taps.seen(weight_B / len(index_B))
        if "logit_errors" in pruner.watch:
            watched["logit_errors"] = logit_errors(loss, logits_TBC, label_B)
        pruner.observe(Observation(0, index_B, label_B, logits_TBC, loss_B, watched))
        self.optimizer.step()


def measure(bench: Bench, progress: Progress, rounds: int = ROUNDS) -> dict[str, object]:
    """Of each score the share that it adds to a training step: median over the rounds, and half the range between quartiles.

    A round gives a turn of several steps to plain training, to plain training again (the noise) and to every score, in an
    order that turns around every round; each is divided by that round's plain training. The first round is the warm-up.
    "calibration": what SADP's default score adds to the first step of an epoch beyond its share of any other, and that as
    a share of the epoch. "exact": of exact norms of every example, which take no part in a training step.
    """
    steps = Steps(bench)
    arms: dict[str, Pruner] = {"plain step": KeepAll(), "again": KeepAll()}
    arms |= {name: make() for name, make in COLLECTED.items()}
    for pruner in arms.values():
        pruner.prepare(bench.context)
    shares: dict[str, list[float]] = {name: [] for name in [*arms, "exact", "first"]}
    step_seconds = []
    for number in range(1 + rounds):
        turns = {name: steps.turn(arms[name]) for name in (arms if number % 2 == 0 else reversed(arms))}
        exact = steps.exact()
        progress.advance(len(arms) * (1 + BATCHES) * bench.spec.batch_size)
        if number == 0:
            continue
        plain = turns["plain step"][1]
        step_seconds.append(plain)
        for name, (_, mean) in turns.items():
            shares[name].append(mean / plain - 1)
        shares["exact"].append(exact / plain)
        shares["first"].append((turns["layers"][0] - turns["layers"][1]) / plain)
    first = spread(shares.pop("first"))
    shares.pop("plain step")
    return {
        "step_seconds": spread(step_seconds)["median"],
        "rounds": rounds,
        "batches": BATCHES,
        "noise": spread(shares.pop("again")),
        "scores": {name: spread(values) for name, values in shares.items()},
        "calibration": {
            "first_batch": first,
            "share_of_epoch": first["median"] / -(-len(bench.data) // bench.spec.batch_size),
        },
    }
