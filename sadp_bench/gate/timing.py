"""The comparison of speed. It causes at most a warning, because machines are noisy and differ."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from sadp_bench.core.progress import Progress
from sadp_bench.gate.findings import PASSED, SKIPPED, SPEED_CHECK, WARNING, Finding, labels
from sadp_bench.gate.rerun import request_of
from sadp_bench.measure import speed
from sadp_bench.records.comparison import paired
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec

TIMING_ROUNDS = 5
ALLOWED_DROP = 0.05  # allowed fall of the efficiency, to which the spread of the noise floor is added


def timing_findings(reference: Sequence[Record], data: Path | None, progress: Progress) -> list[Finding]:
    """Measures the training efficiency of each method by interleaved epochs, and compares it with the records'."""
    names = labels(reference)
    recorded: dict[str, list[float]] = {}
    specs: dict[str, Spec] = {}
    for comparison in paired(reference):
        key = comparison.spec.any_seed().key
        if comparison.spec.method != "full":
            specs.setdefault(key, comparison.spec)
            known = [] if comparison.training_efficiency is None else [comparison.training_efficiency]
            recorded[key] = recorded.get(key, []) + known
    return [_finding(names[key], spec, recorded[key], data, progress) for key, spec in specs.items()]


def _finding(label: str, spec: Spec, recorded: Sequence[float], data: Path | None, progress: Progress) -> Finding:
    name = "efficiency"
    if not recorded:
        text = "the reference has no full-data run of the same environment, or one of the two runs was disturbed"
        return Finding(label, name, SPEED_CHECK, SKIPPED, text)
    request = request_of(spec) | {"epochs": max(spec.epochs, TIMING_ROUNDS + 1)}
    try:
        measured = speed.measure_speed(request, [spec.method], [spec.ratio], TIMING_ROUNDS, data, progress)
    except Exception as error:  # a method may raise anything, and the other comparisons must be reported
        return Finding(label, name, SPEED_CHECK, SKIPPED, f"not measured: {error}")
    before, after = statistics.median(recorded), measured["rows"][0]["efficiency"]
    noise, spread = measured["noise_floor"], measured["rows"][0]["efficiency_spread"]
    allowed = ALLOWED_DROP + noise["spread"]
    text = (
        f"{before:.3f} → {after:.3f} ± {spread:.3f} of the theoretical maximum; may fall by {allowed:.3f} (full data "
        f"against itself: {noise['median']:.3f} ± {noise['spread']:.3f})"
    )
    outcome = WARNING if after < before - allowed else PASSED
    return Finding(label, name, SPEED_CHECK, outcome, text, before, after, before - allowed)
