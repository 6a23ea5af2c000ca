"""Measures the cost of collecting a score, as a share of a training step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sadp_bench.core.clock import Clock
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import isolated, stream
from sadp_bench.measure.score_collectors import COLLECTED_SCORES, exact_norms
from sadp_bench.measure.speed import spread
from sadp_bench.pruners.base import KeepAll, Pruner
from sadp_bench.runs.trainer import RunTrainer
from sadp_bench.training.augmentation import draw_augmentation
from sadp_bench.training.optimizer import make_optimizer, set_learning_rate
from sadp_bench.training.step import TrainingStep

ROUNDS = 8  # timed rounds
BATCHES = 3  # steps per turn


class TrainingTurns:
    """Trains a copy of a run's network at the run's present learning rate, a few steps per turn.

    Args:
        trainer: The run. It is not changed.
    """

    def __init__(self, trainer: RunTrainer) -> None:
        spec, data = trainer.spec, trainer.data
        self.spec, self.data = spec, data
        self.model = copy.deepcopy(trainer.model)
        self.model.train()
        optimizer = make_optimizer(self.model, spec)
        if trainer.state.rows:
            set_learning_rate(optimizer, trainer.state.rows[-1]["learning_rate"])
        self.step = TrainingStep(self.model, spec, data, optimizer)
        self.draws = stream(spec.seed, "study cost", 2)
        looks = stream(spec.seed, "study cost")
        self.augmentation = draw_augmentation(spec.augment, len(data), data.padding, data.sides, looks, data.device)
        order_N = torch.randperm(len(data), generator=stream(spec.seed, "study cost", 1)).to(data.place)
        places = torch.arange(BATCHES * spec.batch_size) % len(data)
        self.batches = order_N[places].split(spec.batch_size)

    def turn(self, pruner: Pruner) -> tuple[float, float]:
        """Returns the seconds of an epoch's first step with a pruner, and the mean seconds of a later step."""
        with isolated(self.spec.seed, "study cost", self.data.device), self.step.recording(pruner.watch(0)):
            first = self._seconds(lambda: self._train(pruner, self.batches[:1]))
            later = self._seconds(lambda: self._train(pruner, self.batches))
        return first, later / BATCHES

    def exact(self) -> float:
        """Returns the seconds of the exact norms of one batch."""
        return self._seconds(lambda: exact_norms(self.model, self.data, self.spec, self.batches[0], Progress()))

    def _seconds(self, work: Callable[[], object]) -> float:
        clock = Clock(self.data.device)
        with clock("train"):
            work()
        return clock.seconds["train"]

    def _train(self, pruner: Pruner, batches: Sequence[Tensor]) -> None:
        for index_B in batches:
            weight_B = torch.ones(len(index_B), device=self.data.device)
            self.step(index_B, weight_B, self.draws, augmentation=self.augmentation, observe=pruner.observe)


def measure_cost(trainer: RunTrainer, progress: Progress, rounds: int = ROUNDS) -> dict[str, object]:
    """Returns the seconds that each score adds to a training step: median over the rounds, and half the interquartile range.

    A round consists of turns of several steps: plain training, plain training again (the noise), and every score. The
    order of the turns is reversed every round, and each turn is divided by the round's plain training. The first round is
    the warm-up. "calibration" contains the additional time of an epoch's first step with SADP's default score, compared
    with a later step. It also contains this time as a share of the epoch. "exact" contains the time of the exact norms of a
    batch, which are not part of a training step.

    Args:
        trainer: The studied run. It is not changed.
        progress: Receives the progress after each round.
        rounds: The number of timed rounds.
    """
    training = TrainingTurns(trainer)
    arms: dict[str, Pruner] = {"plain step": KeepAll(), "again": KeepAll()}
    arms |= {name: make() for name, make in COLLECTED_SCORES.items()}
    for pruner in arms.values():
        pruner.prepare(trainer.context)
    shares: dict[str, list[float]] = {name: [] for name in [*arms, "exact", "first"]}
    step_seconds = []
    for number in range(1 + rounds):
        turns = {name: training.turn(arms[name]) for name in (arms if number % 2 == 0 else reversed(arms))}
        exact = training.exact()
        progress.advance(len(arms) * (1 + BATCHES) * trainer.spec.batch_size)
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
            "share_of_epoch": first["median"] / -(-len(trainer.data) // trainer.spec.batch_size),
        },
    }
