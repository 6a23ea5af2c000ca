"""Shows the result of a check: a table with a line for each failure, a JSON object, or JUnit XML."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sadp_bench.core.text import percent, printable
from sadp_bench.gate.compare import Result, outcome_counts
from sadp_bench.gate.findings import ANYWHERE, BAND, FAILED, HERE, MINUS_FULL, SKIPPED, WARNING, Finding
from sadp_bench.records.store import atomic

WIDE, LEAST_NAME = 110, 20  # columns: least width of a terminal for one line a run, and least width of a run's name
REPORT_WIDTH = 200  # columns, where stdout is no terminal
STYLES = {FAILED: "red", WARNING: "yellow"}
CHECK_KINDS = {ANYWHERE: "exact anywhere", HERE: "exact here", BAND: "bands"}


def print_check(result: Result, folder: Path, kept: Path | None) -> None:
    """Prints a result on stdout.

    Args:
        result: The findings.
        folder: Folder of the reference.
        kept: Folder of the new records; None if they were not kept.
    """
    console = Console(width=None if sys.stdout.isatty() else REPORT_WIDTH)
    console.print(Text(_title(result, folder)), soft_wrap=True)
    console.print(_table(result, console.width >= WIDE))
    for finding in [*result.of(FAILED), *result.of(WARNING)]:
        console.print(Text(_line(finding), STYLES[finding.outcome]), soft_wrap=True)
    for line in _closing(result, folder, kept):
        console.print(Text(line), soft_wrap=True)


def _table(result: Result, wide: bool) -> Table:
    """Returns a table with a row for each run. In a narrow table, the least accuracy stands below the accuracy."""
    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0))
    table.add_column("run", overflow="fold", min_width=LEAST_NAME)
    bands = ("accuracy", "at least", "minus full", "at least") if wide else ("accuracy", "minus full")
    for name in (*(kind if wide else kind.replace(" ", "\n") for kind in CHECK_KINDS.values()), *bands):
        table.add_column(name, justify="right", no_wrap=True)
    for run in dict.fromkeys(finding.run for finding in result.findings):
        findings = [finding for finding in result.findings if finding.run == run]
        shares = (_share(finding for finding in findings if finding.kind == kind) for kind in CHECK_KINDS)
        pairs = _accuracy(findings, "accuracy"), _accuracy(findings, MINUS_FULL)
        cells = [cell for pair in pairs for cell in (pair if wide else ["\n≥ ".join(pair) if pair[0] else ""])]
        table.add_row(Text(run), *shares, *cells)
    return table


def _title(result: Result, folder: Path) -> str:
    differing = "; ".join(result.differing) or "the same"
    return printable(f"{folder}: {result.runs} runs; environment: {differing}")


def _share(findings: Iterable[Finding]) -> Text:
    """Returns the number of passed comparisons, such as '4 of 5'."""
    compared = [finding for finding in findings if finding.outcome != SKIPPED]
    if not compared:
        return Text("–", "dim")
    failed = sum(finding.outcome == FAILED for finding in compared)
    return Text(f"{len(compared) - failed} of {len(compared)}", STYLES[FAILED] if failed else "")


def _accuracy(findings: Iterable[Finding], name: str) -> tuple[str, str]:
    for finding in findings:
        if finding.name == name and finding.kind == BAND:
            return f"{100 * finding.reference:.2f} → {percent(finding.now, 2)}", percent(finding.allowed, 2)
    return "", ""


def _line(finding: Finding) -> str:
    return printable(f"{finding.outcome.upper()}  {finding.run}: {finding.name}: {finding.text}")


def _closing(result: Result, folder: Path, kept: Path | None) -> list[str]:
    lines = []
    if result.differing:
        lines.append("The environments differ (see above), so exact comparisons that need the same one were skipped.")
    if any(finding.kind == HERE for finding in result.of(FAILED)):
        new = kept or "DIR"
        again = "" if kept else "check again with --out DIR; then "
        renew = f"Intended? Then renew the reference: {again}cp {new}/*.json {folder}/ (docs/ci.md)."
        lines.append(printable(renew))
    return [*lines, f"{'passed' if result.passed else 'FAILED'}: {outcome_counts(result)}"]


def check_json(result: Result, folder: Path, kept: Path | None) -> dict[str, Any]:
    """Returns the object that `check --json` prints, unrounded."""
    return {
        "reference": str(folder),
        "records": str(kept) if kept else None,
        "runs": result.runs,
        "passed": result.passed,
        "environment": {"same": not result.differing, "differing": result.differing},
        "comparisons": [dataclasses.asdict(finding) for finding in result.findings],
    }


def write_junit(path: Path, result: Result, seconds: float) -> None:
    """Writes a test case for each comparison. Its class name is the run.

    Raises:
        BadInput: The file cannot be written.
    """
    findings = result.findings
    suite = ElementTree.Element(
        "testsuite",
        name="sadp-bench check",
        tests=str(len(findings)),
        failures=str(len(result.of(FAILED))),
        errors="0",
        skipped=str(len(result.of(SKIPPED))),
        time=f"{seconds:.3f}",
    )
    for finding in findings:
        name = f"{finding.name} ({CHECK_KINDS.get(finding.kind, finding.kind)})"
        case = ElementTree.SubElement(
            suite, "testcase", classname=printable(finding.run), name=printable(name), time="0"
        )
        text = printable(finding.text)
        if finding.outcome == FAILED:
            ElementTree.SubElement(case, "failure", message=text, type=finding.kind).text = text
        elif finding.outcome == SKIPPED:
            ElementTree.SubElement(case, "skipped", message=text)
        else:
            ElementTree.SubElement(case, "system-out").text = f"{finding.outcome}: {text}"
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    with atomic(path) as file:
        file.write(ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n")
