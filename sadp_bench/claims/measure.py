"""The measurement of a claim: each metric's values over the seeds, their mean with its 95 % interval, and the verdicts."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sadp_bench.claims.claim_file import Claim, Metric
from sadp_bench.claims.runs import Run, found_runs, wants
from sadp_bench.claims.verdict import Verdict, joined
from sadp_bench.core.errors import BadInput
from sadp_bench.records import power
from sadp_bench.records.record import Record
from sadp_bench.records.statistics import Interval, t_interval


@dataclass(frozen=True, slots=True)
class Finding:
    """The measurement of a metric.

    Attributes:
        metric: The metric.
        values: One value for each seed, in the metric's unit; empty where it is not testable here.
        interval: The mean's 95 % t-interval; None for fewer than two values.
        verdict: The verdict of the interval against the band.
    """

    metric: Metric
    values: tuple[float, ...]
    interval: Interval | None
    verdict: Verdict

    @property
    def mean(self) -> float | None:
        """The mean over the seeds; None without values."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def seeds_needed(self) -> int | None:
        """The seeds that decide an undecided verdict with 80 % power, if mean and spread stay as they are.

        None for a decided verdict, without an interval, and where the mean is an end of the band.
        """
        if self.verdict is not Verdict.UNDECIDED or self.interval is None or self.metric.band is None:
            return None
        low, high = self.interval
        ends = [end for end in (self.metric.band.at_least, self.metric.band.at_most) if end is not None]
        distance = min(abs(statistics.fmean(self.values) - end) for end in ends if low <= end <= high)
        return power.seeds_needed(distance, statistics.stdev(self.values)) if distance else None

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a table."""
        low, high = self.interval or (None, None)
        band = None if self.metric.band is None else dataclasses.asdict(self.metric.band)
        about: dict[str, Any] = {
            "name": self.metric.name,
            "kind": self.metric.kind or None,
            "premise": self.metric.premise,
        }
        about |= {"band": band, "untestable": self.metric.untestable or None}
        numbers = {"values": list(self.values), "mean": self.mean, "low": low, "high": high}
        return about | numbers | {"verdict": self.verdict.value, "seeds_needed": self.seeds_needed}


@dataclass(frozen=True, slots=True)
class Result:
    """The measurement of a claim.

    Attributes:
        claim: The claim.
        findings: The measurement of each metric, in the claim's order.
    """

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict of the claim, as far as it is testable here."""
        return joined((finding.metric.premise, finding.verdict) for finding in self.findings)

    @property
    def why(self) -> str:
        """The reason in words, for a verdict that the table of metrics does not explain; "" for others."""
        if self.verdict is Verdict.UNTESTABLE:
            return self.claim.untestable or "; ".join(finding.metric.untestable for finding in self.findings)
        failed = [
            finding for finding in self.findings if finding.metric.premise and finding.verdict is not Verdict.HELD
        ]
        if failed:
            return (
                f"the setting is not shown to be the claim's ({'; '.join(finding.metric.name for finding in failed)})"
            )
        if self.verdict is Verdict.UNDECIDED:
            needed = [finding.seeds_needed for finding in self.findings if finding.verdict is Verdict.UNDECIDED]
            known = [seeds for seeds in needed if seeds is not None]
            number = f"about {max(known):,}" if len(known) == len(needed) else "more"
            return f"an interval contains an end of its band, or one seed gives none: {number} seeds decide"
        is_part = any(finding.verdict is Verdict.UNTESTABLE for finding in self.findings)
        return "as far as it is testable here" if is_part else ""

    def to_json(self) -> dict[str, Any]:
        """Returns claim, findings and verdict as a table."""
        findings = [finding.to_json() for finding in self.findings]
        return self.claim.to_json() | {"verdict": self.verdict.value, "why": self.why or None, "metrics": findings}


def untested(claim: Claim) -> Result:
    """Returns the result of a claim without a testable metric."""
    return Result(claim, tuple(Finding(metric, (), None, Verdict.UNTESTABLE) for metric in claim.metrics))


def measure(
    claim: Claim, records: Sequence[tuple[Path, Record]], where: Path, *, allow_imports: bool = False
) -> Result:
    """Returns the measurement of a claim from records.

    Args:
        claim: The claim.
        records: Records with their paths; those of other runs are left out.
        where: Their folder, for messages.
        allow_imports: Whether the claim's file may name `package.module:Class`.

    Raises:
        BadInput: Runs are missing, or lack a metric's number; the message names them.
    """
    wanted = wants(claim, allow_imports=allow_imports)
    if not wanted:
        return untested(claim)
    every = [run for rows in wanted.values() for row in rows for run in row]
    scored = {run.key for metric, rows in wanted.items() if metric.of_kind.of_scores for row in rows for run in row}
    runs = found_runs(every, scored, records, where)
    findings = []
    for metric in claim.metrics:
        if metric not in wanted:
            findings.append(Finding(metric, (), None, Verdict.UNTESTABLE))
            continue
        values = tuple(_value(metric, [runs[run.key] for run in row]) for row in wanted[metric])
        interval = t_interval(values)
        assert metric.band is not None
        findings.append(Finding(metric, values, interval, metric.band.verdict(interval)))
    return Result(claim, tuple(findings))


def _value(metric: Metric, runs: Sequence[Run]) -> float:
    kind = metric.of_kind
    value = kind.value(*(run.scores() if kind.of_scores else run.record for run in runs))
    if value is None:
        names = " and ".join(str(run.path) for run in runs)
        raise BadInput(
            f"no {metric.kind} of {names}: the records, or their scores, have no such number; make them anew"
        )
    return value
