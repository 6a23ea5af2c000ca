"""Reads the reference and the new records, and compares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sadp_bench.core.errors import BadInput
from sadp_bench.gate import exact_checks, tolerance_bands
from sadp_bench.gate.findings import ANYWHERE, FAILED, PASSED, SKIPPED, WARNING, Finding, group, labels
from sadp_bench.records.record import Record
from sadp_bench.records.store import Found, Store, read_all

MAX_NAMES_SHOWN = 3  # names in a message


@dataclass(frozen=True, slots=True)
class Result:
    """All findings of a check.

    Attributes:
        findings: The outcomes of all comparisons.
        runs: The number of the reference's runs.
        differing: The differences between the environments; [] if they are the same.
    """

    findings: list[Finding]
    runs: int
    differing: list[str]

    def of(self, outcome: str) -> list[Finding]:
        """Returns the findings with this outcome."""
        return [finding for finding in self.findings if finding.outcome == outcome]

    @property
    def passed(self) -> bool:
        """Whether no comparison failed."""
        return not self.of(FAILED)


def read_reference(folder: Path) -> list[Record]:
    """Returns all records of a folder.

    Raises:
        BadInput: The folder has no records, or one of them cannot be read.
    """
    found = read_all([folder])
    if found.problems:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise BadInput(f"the reference is damaged: {found.problems[0]}{more}")
    if not found.records:
        raise BadInput(f"{folder} contains no records; make them: sadp-bench sweep FILE.toml --out {folder}")
    return [record for _, record in found.records]


def read_now(
    folder: Path, reference: Sequence[Record], failed: Mapping[str, str]
) -> tuple[dict[str, Record], dict[str, str]]:
    """Returns the new records of the reference's runs, and the reasons of failures, both by key.

    Args:
        folder: The folder of the new records.
        reference: The reference's records.
        failed: The known reasons of failures, by key.

    Raises:
        BadInput: A run has neither a record nor a reason. The message names such runs.
    """
    found = read_all([folder])
    wanted = {record.spec.key for record in reference}
    nows = {record.spec.key: record for _, record in found.records if record.spec.key in wanted}
    reasons = {failure.spec.key: failure.reason for failure in found.failures if failure.spec.key in wanted}
    reasons |= failed
    missing = [record for record in reference if record.spec.key not in {*nows, *reasons}]
    if missing:
        raise BadInput(_missing(folder, missing, len(reference), found))
    return nows, {key: reason for key, reason in reasons.items() if key not in nows}


def _missing(folder: Path, missing: Sequence[Record], total: int, found: Found) -> str:
    names = ", ".join(Store(folder).path(record.spec).name for record in missing[:MAX_NAMES_SHOWN])
    more = f" and {len(missing) - MAX_NAMES_SHOWN} more" if len(missing) > MAX_NAMES_SHOWN else ""
    damaged = f"; not read: {found.problems[0]}" if found.problems else ""
    return f"{folder} lacks {len(missing)} of the reference's {total} runs: {names}{more}{damaged}"


def compare_runs(
    reference: Iterable[Record],
    nows: Mapping[str, Record],
    failed: Mapping[str, str] | None = None,
    *,
    margin: float | None = None,
    exact: bool = True,
) -> Result:
    """Makes all comparisons.

    Args:
        reference: The reference's records.
        nows: The new records by key.
        failed: The reasons of failures, by key.
        margin: The allowed fall of a mean accuracy, in [0, 1]; None for a band from the reference's spread.
        exact: Whether to compare bit for bit the numbers that only the same environment reproduces.
    """
    reference, failed = list(reference), failed or {}
    groups = group(reference, nows)
    same_data = []
    findings = _unfinished(reference, failed)
    for runs in groups:
        findings.append(exact_checks.data(runs))
        if findings[-1].outcome == PASSED:
            same_data.append(runs)
            findings += exact_checks.exact_findings(runs, exact)
    findings += tolerance_bands.band_findings(same_data, margin)
    differing = sorted({phrase for runs in groups for pair in runs.pairs for phrase in pair.differing})
    return Result(findings, len(reference), differing)


def _unfinished(reference: Sequence[Record], failed: Mapping[str, str]) -> list[Finding]:
    names = labels(reference)
    return [
        Finding(
            names[record.spec.any_seed().key],
            f"run of seed {record.spec.seed}",
            ANYWHERE,
            FAILED,
            f"seed {record.spec.seed} did not finish: {failed[record.spec.key]}",
        )
        for record in reference
        if record.spec.key in failed
    ]


def outcome_counts(result: Result) -> str:
    """Returns the numbers of outcomes: '34 passed, 2 failed, 3 skipped, 1 warning'."""
    failed, skipped, warned = (len(result.of(outcome)) for outcome in (FAILED, SKIPPED, WARNING))
    parts = [f"{len(result.of(PASSED))} passed", f"{failed} failed", f"{skipped} skipped"]
    return ", ".join(parts + ([f"{warned} warning{'s' * (warned != 1)}"] if warned else []))
