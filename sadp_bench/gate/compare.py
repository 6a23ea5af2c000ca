"""All comparisons of the reference's records with those made now. Reads records; trains nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sadp_bench.core.errors import BadInput
from sadp_bench.gate import exact_checks, tolerance_bands
from sadp_bench.gate.findings import ANYWHERE, FAILED, PASSED, WARNING, Finding, any_seed, group, labels
from sadp_bench.records.record import Record
from sadp_bench.records.store import Found, Store, read_all

SHOWN = 3  # names in a message


@dataclass(frozen=True, slots=True)
class Result:
    """What the gate found. runs: of the reference. differing: what of the environment is another one; nothing: the same."""

    findings: list[Finding]
    runs: int
    differing: list[str]

    def of(self, outcome: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.outcome == outcome]

    @property
    def passed(self) -> bool:
        return not self.of(FAILED)


def read_reference(folder: Path) -> list[Record]:
    """All records of a folder. Raises BadInput where there is none, or one can't be read: a reference is whole or none."""
    found = read_all([folder])
    if found.problems:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise BadInput(f"the reference is damaged: {found.problems[0]}{more}")
    if not found.records:
        raise BadInput(f"{folder} holds no records; make them: sadp-bench sweep FILE.toml --out {folder}")
    return [record for _, record in found.records]


def read_now(
    folder: Path, reference: Sequence[Record], failed: Mapping[str, str]
) -> tuple[dict[str, Record], dict[str, str]]:
    """By key, the records of a folder that the reference has too, and why others have none.

    failed: by key, what is known of that already. Raises BadInput that names the runs of which there is neither.
    """
    found = read_all([folder])
    wanted = {record.spec.key for record in reference}
    nows = {record.spec.key: record for _, record in found.records if record.spec.key in wanted}
    reasons = {failure.spec.key: failure.reason for failure in found.failures if failure.spec.key in wanted} | dict(
        failed
    )
    missing = [record for record in reference if record.spec.key not in {*nows, *reasons}]
    if missing:
        raise BadInput(_lacks(folder, missing, len(reference), found))
    return nows, {key: reason for key, reason in reasons.items() if key not in nows}


def _lacks(folder: Path, missing: Sequence[Record], total: int, found: Found) -> str:
    names = ", ".join(Store(folder).path(record.spec).name for record in missing[:SHOWN])
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    damaged = f"; not read: {found.problems[0]}" if found.problems else ""
    return f"{folder} lacks {len(missing)} of the reference's {total} runs: {names}{more}{damaged}"


def compare(
    reference: Iterable[Record],
    nows: Mapping[str, Record],
    failed: Mapping[str, str] | None = None,
    *,
    margin: float | None = None,
    exactly: bool = True,
) -> Result:
    """nows: by key. failed: by key, why a run has no record. margin: see `bands.findings`. exactly: whether to compare what
    is exact on the same machine only."""
    reference, failed = list(reference), failed or {}
    groups = group(reference, nows)
    same_data = []
    found = _finished(reference, failed)
    for one in groups:
        found.append(exact_checks.data(one))
        if found[-1].outcome == PASSED:
            same_data.append(one)
            found += exact_checks.findings(one, exactly)
    found += tolerance_bands.findings(same_data, margin)
    differing = sorted({phrase for one in groups for pair in one.pairs for phrase in pair.differing})
    return Result(found, len(reference), differing)


def _finished(reference: Sequence[Record], failed: Mapping[str, str]) -> list[Finding]:
    names = labels(record.spec for record in reference)
    return [
        Finding(
            names[any_seed(record.spec).key],
            f"run of seed {record.spec.seed}",
            ANYWHERE,
            FAILED,
            f"seed {record.spec.seed} did not finish: {failed[record.spec.key]}",
        )
        for record in reference
        if record.spec.key in failed
    ]


def counts(result: Result) -> str:
    """'34 passed, 2 failed, 3 skipped, 1 warning'."""
    failed, skipped, warned = (len(result.of(outcome)) for outcome in (FAILED, "skipped", WARNING))
    parts = [f"{len(result.of(PASSED))} passed", f"{failed} failed", f"{skipped} skipped"]
    return ", ".join(parts + ([f"{warned} warning{'s' * (warned != 1)}"] if warned else []))
