"""A speed-up as a noisy machine demands: epochs of all arms interleaved in one process, and what the noise alone does."""

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
from sadp_bench.records.metrics import nominal_maximum
from sadp_bench.records.spec import Spec
from sadp_bench.runs.resolve import Material, resolve
from sadp_bench.runs.trainer import Bench, threads
from sadp_bench.training.loop import Row, run_length
from sadp_bench.training.rehearsal import rehearse

BLOCK = 2  # arms between two epochs of full data: A B B A
LEVEL = 0.95
MIN_BATCHES = 10  # an epoch of full data
MIN_TO_STOP = 15  # rounds: an interval that is looked at after each would too often be narrow by chance


class Arm:
    """A run that goes on by one epoch at a time; prepared before the first, which is not part of the figure."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.prepare()
        if run_length(bench.pruner, bench.spec, len(bench.data)) < bench.spec.epochs:
            raise BadInput(
                f"{bench.spec.method} saves by shortening the run, not its epochs, which are what `speed` times: leave it "
                "out of --methods, and use `sadp-bench run`"
            )
        self.epochs: Iterator[Row] = bench.rows()

    def step(self) -> tuple[float, int]:
        """Trains an epoch: its seconds, and the examples it kept."""
        row = next(self.epochs)
        return row["seconds"], row["kept"]


@dataclass(slots=True)
class Timed:
    """An arm's rounds. full_seconds: the mean of the epochs of full data just before and after its own."""

    full_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def efficiencies(self, num_examples: int) -> list[float]:
        rounds = zip(self.full_seconds, self.seconds, self.kept, strict=True)
        return [full / own * kept / num_examples for full, own, kept in rounds]


def measure(
    asked: Mapping[str, Any],
    methods: Sequence[str],
    ratios: Sequence[float],
    rounds: int,
    data: Path | None,
    progress: Progress,
    half_width: float = 0.0,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Each arm's training efficiency: the median over rounds, with its 95 % interval; the training part only.

    A round trains one epoch of every method and ratio, and of full data once more (the A/A arm), two by two between epochs
    of full data: A B C A D E A. Each is paired with the mean of the two A around it. The order of the arms turns around
    every round, and the first round is the warm-up and does not count. It ends after so many rounds, or from the 15th on
    when the widest interval reaches no further than `half_width` from its median, or when the seconds are spent. The
    stop and neighbouring rounds' common load make the intervals approximate. Where nobody says how many examples to train
    on, it is so many that enough rounds fit into the seconds. Evaluation is not part of it; accuracy is not measured here.
    """
    _check(rounds, half_width, seconds, asked.get("epochs"))
    asked = {**asked, "epochs": asked.get("epochs") or rounds + 1}
    specs, material = _resolved(asked, methods, ratios, data)
    if asked.get("train_examples") is None and math.isfinite(seconds):
        fitting = _fitting(specs, material, seconds, progress)
        if fitting < len(material.train):
            progress.say(
                f"speed: epochs of {fitting:,} of the {len(material.train):,} examples, so that about {MIN_TO_STOP} "
                f"rounds fit into {seconds / 60:g} min; --train-examples takes another number"
            )
            specs, material = _resolved({**asked, "train_examples": fitting}, methods, ratios, data)
    full = specs[0].reference()
    num_examples = len(material.train)
    references = _references(specs)
    until = time.monotonic() + seconds
    with threads(full.threads):
        endless = dataclasses.replace(full, epochs=full.epochs * references)
        reference, *arms = [Arm(Bench(spec, material, progress)) for spec in (endless, full, *specs)]
        timed = [Timed() for _ in arms]
        visits = (rounds + 1) * num_examples * (references + 1 + sum(1 - spec.ratio for spec in specs))
        progress.start("speed", round(visits), rounds + 1)
        try:
            for number in range(rounds + 1):
                _round(reference, arms, [Timed() for _ in arms] if number == 0 else timed, number % 2 == 1)
                if number >= 2 and (_precise(timed, num_examples, half_width) or time.monotonic() > until):
                    break
        finally:
            progress.stop()
    noise, *rows = [_figures(one, num_examples) for one in timed]
    return {
        "rows": [_row(spec, one, figures) for spec, one, figures in zip(specs, timed[1:], rows, strict=True)],
        "noise_floor": {**noise, "what": "full data against itself: 1 without noise"},
        "rounds": len(timed[0].seconds),
        "dataset": full.dataset,
        "backbone": full.backbone,
        "train_examples": full.train_examples,
        "batch_size": full.batch_size,
        "threads": full.threads,
        "device": full.device,
    }


def _resolved(
    asked: Mapping[str, Any], methods: Sequence[str], ratios: Sequence[float], data: Path | None
) -> tuple[list[Spec], Material]:
    opened: dict[Any, Any] = {}
    found = [
        resolve({**asked, "method": name, "ratio": ratio}, data, opened) for name, ratio in product(methods, ratios)
    ]
    return [spec for spec, _ in found], found[0][1]


def _references(specs: Sequence[Spec]) -> int:
    """Epochs of full data in a round, without the A/A arm's."""
    return math.ceil((len(specs) + 1) / BLOCK) + 1


def _fitting(specs: Sequence[Spec], material: Material, seconds: float, progress: Progress) -> int:
    """Of how many examples the fewest rounds that may stop it, and the warm-up, take so long; a few batches at least."""
    full = specs[0].reference()
    with threads(full.threads):
        bench = Bench(full, material, progress)
        per_visit = rehearse(bench.model, bench.data, full)
    epochs = _references(specs) + 1 + sum(1 - spec.ratio for spec in specs)
    fitting = int(seconds / (per_visit * epochs * (MIN_TO_STOP + 1)))
    return min(len(material.train), max(MIN_BATCHES * full.batch_size, fitting))


def _check(rounds: int, half_width: float, seconds: float, epochs: Any) -> None:
    if rounds < 2:
        raise BadInput(f"--rounds is at least 2, not {rounds}")
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
        for (_, one), (own, kept) in zip(block, steps, strict=True):
            one.full_seconds.append((before + after) / 2)
            one.seconds.append(own)
            one.kept.append(kept)
        before = after


def _precise(timed: Sequence[Timed], num_examples: int, half_width: float) -> bool:
    figures = [_figures(one, num_examples) for one in timed]
    return len(timed[0].seconds) >= MIN_TO_STOP and all(
        f["low"] is not None and max(f["high"] - f["median"], f["median"] - f["low"]) <= half_width for f in figures
    )


def _figures(timed: Timed, num_examples: int) -> dict[str, Any]:
    efficiencies = timed.efficiencies(num_examples)
    low, high = median_interval(efficiencies) or (None, None)
    return {**spread(efficiencies), "low": low, "high": high}


def _row(spec: Spec, timed: Timed, figures: Mapping[str, Any]) -> dict[str, Any]:
    """speedup: what the efficiency makes of the ceiling of all rounds together, as a schedule keeps more in some."""
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
    """Median and half the range between the quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "spread": (high - low) / 2}


def median_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Two order statistics that enclose the median with at least that confidence, whatever the values' distribution (the
    sign test's interval); None where there are too few values for it."""
    n, ordered = len(values), sorted(values)
    below, outside = 0, 0.0  # the chance that the median lies below so many of the values
    while 2 * (outside + math.comb(n, below) / 2**n) <= 1 - level:
        outside += math.comb(n, below) / 2**n
        below += 1
    return (ordered[below - 1], ordered[n - below]) if below else None
