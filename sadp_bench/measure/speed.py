"""Measures speed-ups on a noisy machine. Epochs of all arms are interleaved in one process, and the noise is measured."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.records.fields import check_count
from sadp_bench.records.metrics import nominal_maximum, whole_visits
from sadp_bench.records.spec import Spec
from sadp_bench.runs import environment
from sadp_bench.runs.building import enough_memory
from sadp_bench.runs.material import Material
from sadp_bench.runs.resolve import resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer, threads
from sadp_bench.training.loop import EpochRow, run_length
from sadp_bench.training.rehearsal import rehearse

BLOCK = 2  # arms between two epochs of full data: A B B A
LEVEL = 0.95  # confidence of the intervals
MIN_BATCHES = 10  # batches in an epoch of full data
MIN_TO_STOP = 15  # rounds; after fewer rounds an interval is often narrow by chance


class Arm:
    """Prepares a run, untimed, and then trains it epoch by epoch.

    Args:
        trainer: The run.

    Raises:
        BadInput: The method saves time by training fewer epochs.
    """

    def __init__(self, trainer: RunTrainer) -> None:
        self.trainer = trainer
        trainer.prepare()
        if run_length(trainer.pruner, trainer.spec, len(trainer.data)) < trainer.spec.epochs:
            raise BadInput(
                f"{trainer.spec.method} trains fewer epochs, but `speed` compares the time of epochs: leave it out of "
                "--methods, and use `sadp-bench run`"
            )
        self.epochs: Iterator[EpochRow] = trainer.rows()

    def step(self) -> tuple[float, float]:
        """Trains an epoch and returns its seconds and its visits, see `metrics.whole_visits`."""
        seconds = self.trainer.clock.seconds
        before = seconds["train"]
        row = next(self.epochs)
        return row["seconds"], whole_visits([row], seconds["train"] - before)


@dataclass(slots=True)
class Timed:
    """The rounds of an arm.

    Attributes:
        full_seconds: For each round, the mean seconds of the epochs of full data before and after the arm's epoch.
        seconds: For each round, the seconds of the arm's epoch.
        kept: For each round, the visits of the arm's epoch. A forward pass alone counts as its share of a visit.
    """

    full_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)

    def efficiencies(self, num_examples: int) -> list[float]:
        """Returns each round's speed-up divided by its ceiling, the speed-up if dropped examples cost nothing."""
        rounds = zip(self.full_seconds, self.seconds, self.kept, strict=True)
        return [full / seconds * kept / num_examples for full, seconds, kept in rounds]


def measure_speed(
    request: Mapping[str, Any],
    methods: Sequence[str],
    ratios: Sequence[float],
    rounds: int,
    data: Path | None,
    progress: Progress,
    half_width: float = 0.0,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Returns each arm's training efficiency: the median over rounds with its 95 % interval.

    A round trains one epoch of every method and ratio and another epoch of full data (the A/A arm). Pairs of these arms
    stand between epochs A of full data: A B C A D E A. Each arm is compared with the mean of the two A around it. The
    order of the arms is reversed every round. The first round is a warm-up and does not count. The intervals are
    approximate because of the stopping rule, and because neighbouring rounds have similar load. An epoch's seconds include
    its fixed costs: selection, the draws of augmentation, and a method's measurements once an epoch. The scoring before
    training and the evaluation are not timed.

    Args:
        request: The settings, as `resolve.resolve` takes them. Without "train_examples", the number of examples is chosen
            so that enough rounds fit into the time.
        methods: The names of methods.
        ratios: The pruning ratios.
        rounds: The maximum number of timed rounds.
        data: The folder of the data sets.
        progress: Receives the progress.
        half_width: The measurement stops, from round 15 on, when no end of an interval is farther from its median.
        seconds: The measurement stops after this time.

    Raises:
        BadInput: The request cannot be measured.
    """
    _check(rounds, half_width, seconds, request.get("epochs"))
    if request.get("sparsity") == "channels":
        raise BadInput(
            "speed compares epochs of one network, but --sparsity channels makes it smaller during the run, at another epoch "
            "in each arm: take --sparsity narrow, or compare the seconds of runs"
        )
    request = {**request, "epochs": request.get("epochs") or rounds + 1}
    specs, resources = _fitted(request, methods, ratios, data, seconds, progress)
    full, num_examples = specs[0].reference(), len(resources.train)
    machine = resources.environment | environment.load("start")
    timed = _timed(specs, resources, rounds, half_width, seconds, progress)
    noise, *rows = [_figures(of_arm, num_examples) for of_arm in timed]
    return {
        "rows": [_row(*arm) for arm in zip(specs, timed[1:], rows, strict=True)],
        "noise_floor": {**noise, "what": "full data against itself: 1 without noise"},
        "rounds": len(timed[0].seconds),
        "dataset": full.dataset,
        "backbone": full.backbone,
        "train_examples": full.train_examples,
        "batch_size": full.batch_size,
        "threads": full.threads,
        "device": full.device,
        "precision": full.precision,
        "environment": machine | environment.load("end"),
    }


def _fitted(
    request: Mapping[str, Any],
    methods: Sequence[str],
    ratios: Sequence[float],
    data: Path | None,
    seconds: float,
    progress: Progress,
) -> tuple[list[Spec], Resources]:
    """Returns the runs and their shared resources. Without "train_examples", as many examples as fit into the time."""
    specs, material = _resolved(request, methods, ratios, data)
    resources = Resources(specs[0].reference(), material)
    if request.get("train_examples") is not None or math.isinf(seconds):
        return specs, resources
    fitting = _fitting(specs, resources, seconds)
    if fitting == len(material.train):
        return specs, resources
    progress.message(
        f"speed: epochs of {fitting:,} of the {len(material.train):,} examples, so that about {MIN_TO_STOP} "
        f"rounds fit into {seconds / 60:g} min; --train-examples takes another number"
    )
    del resources  # the device holds one copy of the data at a time
    specs, material = _resolved({**request, "train_examples": fitting}, methods, ratios, data)
    return specs, Resources(specs[0].reference(), material)


def _resolved(
    request: Mapping[str, Any], methods: Sequence[str], ratios: Sequence[float], data: Path | None
) -> tuple[list[Spec], Material]:
    opened: dict[Any, Any] = {}
    found = [
        resolve({**request, "method": name, "ratio": ratio}, data, opened) for name, ratio in product(methods, ratios)
    ]
    return [spec for spec, _ in found], found[0][1]


def _references(specs: Sequence[Spec]) -> int:
    """Returns the number of epochs of full data in a round, without the A/A arm."""
    return math.ceil((len(specs) + 1) / BLOCK) + 1


def _fitting(specs: Sequence[Spec], resources: Resources, seconds: float) -> int:
    """Returns the number of examples, at least a few batches, for which warm-up and fewest rounds take this time."""
    full = specs[0].reference()
    with threads(full.threads), enough_memory(full):
        per_visit = rehearse(resources.model(), resources.train, full)
    epochs = _references(specs) + 1 + sum(1 - spec.ratio for spec in specs)
    fitting = int(seconds / (per_visit * epochs * (MIN_TO_STOP + 1)))
    return min(len(resources.train), max(MIN_BATCHES * full.batch_size, fitting))


def _timed(
    specs: Sequence[Spec],
    resources: Resources,
    rounds: int,
    half_width: float,
    seconds: float,
    progress: Progress,
) -> list[Timed]:
    """Returns the rounds of the A/A arm and of every run. All arms read one copy of the data."""
    full, num_examples, references = specs[0].reference(), len(resources.train), _references(specs)
    start = time.monotonic()
    with threads(full.threads), enough_memory(full):
        endless = dataclasses.replace(full, epochs=full.epochs * references)
        reference, *arms = [Arm(RunTrainer(spec, resources, progress)) for spec in (endless, full, *specs)]
        timed = [Timed() for _ in arms]
        visits = (rounds + 1) * num_examples * (references + 1 + sum(1 - spec.ratio for spec in specs))
        progress.start("speed", round(visits), rounds + 1)
        progress.round("warm-up", 0.0)
        try:
            for number in range(rounds + 1):
                _round(reference, arms, [Timed() for _ in arms] if number == 0 else timed, number % 2 == 1)
                elapsed = time.monotonic() - start
                share = max((number + 1) / (rounds + 1), elapsed / seconds)
                progress.round(f"round {number}/{rounds}", min(1.0, share))
                if number >= 2 and (_precise(timed, num_examples, half_width) or elapsed > seconds):
                    break
        finally:
            progress.stop()
    return timed


def _check(rounds: int, half_width: float, seconds: float, epochs: Any) -> None:
    check_count("rounds", rounds, 2)
    if not half_width >= 0:
        raise BadInput(f"--half-width is at least 0, not {half_width:g}")
    if not seconds > 0:
        raise BadInput(f"--minutes is above 0, not {seconds / 60:g}")
    if epochs is not None and int(epochs) < rounds + 1:
        raise BadInput(f"--epochs is at least {rounds + 1} for {rounds} rounds and the warm-up, not {epochs}")


def _round(reference: Arm, arms: Sequence[Arm], timed: Sequence[Timed], backwards: bool) -> None:
    order = list(zip(arms, timed, strict=True))
    if backwards:
        order.reverse()
    before, _ = reference.step()
    for first in range(0, len(order), BLOCK):
        block = order[first : first + BLOCK]
        steps = [arm.step() for arm, _ in block]
        after, _ = reference.step()
        for (_, arm_timed), (seconds, kept) in zip(block, steps, strict=True):
            arm_timed.full_seconds.append((before + after) / 2)
            arm_timed.seconds.append(seconds)
            arm_timed.kept.append(kept)
        before = after


def _precise(timed: Sequence[Timed], num_examples: int, half_width: float) -> bool:
    figures = [_figures(of_arm, num_examples) for of_arm in timed]
    return len(timed[0].seconds) >= MIN_TO_STOP and all(
        f["low"] is not None and max(f["high"] - f["median"], f["median"] - f["low"]) <= half_width for f in figures
    )


def _figures(timed: Timed, num_examples: int) -> dict[str, Any]:
    efficiencies = timed.efficiencies(num_examples)
    low, high = median_interval(efficiencies) or (None, None)
    return {**spread(efficiencies), "low": low, "high": high}


def _row(spec: Spec, timed: Timed, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an arm's row. The ceiling is over all rounds, because a budget can keep more examples in some epochs."""
    ceiling = spec.train_examples * len(timed.kept) / sum(timed.kept)
    return {
        "method": spec.method,
        "ratio": spec.ratio,
        "nominal_maximum": nominal_maximum(spec),
        "ceiling": ceiling,
        "rounds": len(timed.kept),
        "efficiency": figures["median"],
        "efficiency_spread": figures["spread"],
        "efficiency_low": figures["low"],
        "efficiency_high": figures["high"],
        "speedup": figures["median"] * ceiling,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median and half the interquartile range."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "spread": (high - low) / 2}


def median_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Returns the interval of the median by the sign test; None for too few values.

    Its ends are two order statistics. Its confidence holds for any distribution of the values.
    """
    n, ordered = len(values), sorted(values)
    below, outside = 0, 0.0  # probability that the median lies below `below` of the values
    while 2 * (outside + math.comb(n, below) / 2**n) <= 1 - level:
        outside += math.comb(n, below) / 2**n
        below += 1
    return (ordered[below - 1], ordered[n - below]) if below else None
