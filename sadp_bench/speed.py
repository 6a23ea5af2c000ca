"""A speed-up as a noisy machine demands: epochs of all arms interleaved in one process, and what the noise alone does."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from sadp_bench.engine import Row, run_length
from sadp_bench.errors import BadInput
from sadp_bench.metrics import nominal_maximum
from sadp_bench.parts import resolve
from sadp_bench.progress import Progress
from sadp_bench.workbench import Bench, threads


class Arm:
    """A run that goes on by one epoch at a time; prepared before the first, which is not part of the figure."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.pruner.prepare(bench.lab)
        if run_length(bench.pruner, bench.spec, len(bench.data)) < bench.spec.epochs:
            raise BadInput(
                f"{bench.spec.method} saves by shortening the run, not its epochs, which are what `speed` times: leave it "
                "out of --methods, and use `sadp-bench run`"
            )
        self.epochs: Iterator[Row] = bench.rows()
        self.seconds: list[float] = []
        self.kept: list[int] = []

    def step(self) -> None:
        row = next(self.epochs)
        self.seconds.append(row["seconds"])
        self.kept.append(row["kept"])


def measure(
    asked: Mapping[str, Any],
    methods: Sequence[str],
    ratios: Sequence[float],
    rounds: int,
    data: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """Median and spread of each arm's paired speed-up over so many rounds; the training part only.

    A round trains one epoch of full data (A), of full data again (the A/A arm) and of every method and ratio, in an order
    that turns around every round. Each arm's time is divided into that round's A. The first round is the warm-up and
    does not count. Evaluation is not part of it. Accuracy is not measured here.
    """
    if rounds < 2:
        raise BadInput(f"--rounds is at least 2, not {rounds}")
    total = rounds + 1
    epochs = total if asked.get("epochs") is None else int(asked["epochs"])
    if epochs < total:
        raise BadInput(f"--epochs is at least {total} for {rounds} rounds and the warm-up, not {epochs}")
    asked = {**asked, "epochs": epochs}
    specs = []
    for method, ratio in product(methods, ratios):
        spec, material = resolve({**asked, "method": method, "ratio": ratio}, data)
        specs.append(spec)
    full_spec = specs[0].reference()
    with threads(full_spec.threads):
        reference, twin, *arms = [Arm(Bench(spec, material, progress)) for spec in (full_spec, full_spec, *specs)]
        everyone = [reference, twin, *arms]
        visits = round(total * len(material.train) * (2 + sum(1 - spec.ratio for spec in specs)))
        progress.start("speed", visits, total)
        try:
            for number in range(total):
                for arm in everyone if number % 2 == 0 else reversed(everyone):
                    arm.step()
        finally:
            progress.stop()
    noise = [a / b for a, b in zip(reference.seconds[1:], twin.seconds[1:], strict=True)]
    return {
        "rows": [_row(reference, arm) for arm in arms],
        "noise_floor": {**spread(noise), "what": "full data against itself: 1 without noise"},
        "rounds": rounds,
        "dataset": full_spec.dataset,
        "backbone": full_spec.backbone,
        "train_examples": full_spec.train_examples,
        "batch_size": full_spec.batch_size,
        "threads": full_spec.threads,
        "device": full_spec.device,
    }


def _row(reference: Arm, arm: Arm) -> dict[str, Any]:
    num_examples = reference.kept[0]
    speedups = [a / b for a, b in zip(reference.seconds[1:], arm.seconds[1:], strict=True)]
    ceilings = [num_examples / kept for kept in arm.kept[1:]]
    efficiencies = [speedup / top for speedup, top in zip(speedups, ceilings, strict=True)]
    speedup, efficiency = spread(speedups), spread(efficiencies)
    return {
        "method": arm.bench.spec.method,
        "ratio": arm.bench.spec.ratio,
        "speedup": speedup["median"],
        "speedup_spread": speedup["spread"],
        "nominal_maximum": nominal_maximum(arm.bench.spec),
        "ceiling": statistics.fmean(ceilings),
        "efficiency": efficiency["median"],
        "efficiency_spread": efficiency["spread"],
        "rounds": len(speedups),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and half the range between the quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "spread": (high - low) / 2}
