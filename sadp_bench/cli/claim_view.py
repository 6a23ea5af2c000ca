"""Shows the list of claims, and the result of one."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sadp_bench.claims.claim_file import NOT_MEASURED, Claim, Metric
from sadp_bench.claims.verdict import Verdict
from sadp_bench.core.text import NOTHING, number, printable

if TYPE_CHECKING:
    from sadp_bench.claims.measure import Finding, Result

WIDTH = 80  # columns of the list
CLAIM_WIDTH = 140  # columns of a result, where stdout is no terminal
INDENT = 22  # columns before a claim's text
STYLES = {Verdict.HELD: "green", Verdict.NOT_HELD: "red", Verdict.UNDECIDED: "yellow", Verdict.UNTESTABLE: "dim"}


def print_claims(claims: Sequence[Claim]) -> None:
    """Prints each claim's name, text, source and cost."""
    for claim in claims:
        lines = _wrapped(claim.text, f"{claim.name} ".ljust(INDENT))
        lines += _wrapped(claim.source, " " * INDENT)
        lines += _wrapped(claim.untestable and f"Not testable here: {claim.untestable}" or _cost(claim), " " * INDENT)
        print("\n".join(lines))


def _cost(claim: Claim) -> str:
    return f"Core-minutes: {NOT_MEASURED if claim.core_minutes is None else f'{claim.core_minutes:g}'}."


def _wrapped(text: str, first: str) -> list[str]:
    return textwrap.wrap(printable(text), WIDTH, initial_indent=first, subsequent_indent=" " * INDENT)


def print_result(result: Result) -> None:
    """Prints a claim, its metrics with their intervals and bands, and the verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else CLAIM_WIDTH)
    console.print(Text(printable(f"{result.claim.name}: {result.claim.text}"), "bold"))
    console.print(Text(printable(f"Source: {result.claim.source}"), "dim"))
    if result.findings:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("metric", overflow="fold")
        for name in ("mean", "95 % interval", "band", "n"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("verdict", overflow="fold")
        for finding in result.findings:
            table.add_row(*map(Text, cells(finding)[:-1]), Text(cells(finding)[-1], STYLES[finding.verdict]))
        console.print(table)
    console.print(Text(printable(conclusion(result)), STYLES[result.verdict]))


def cells(finding: Finding) -> list[str]:
    """Returns a metric's name, mean, interval, band, number of values and verdict as text."""
    metric = finding.metric
    name = f"premise: {metric.name}" if metric.premise else metric.name
    if finding.verdict is Verdict.UNTESTABLE:
        why = f": {metric.untestable}" if metric.untestable else ""
        return [printable(name), NOTHING, NOTHING, NOTHING, "0", printable(finding.verdict.value + why)]
    band = NOTHING if metric.band is None else metric.band.text()
    shown = number(finding.mean, metric.of_kind.digits)
    return [
        printable(name),
        shown,
        interval_text(finding),
        _with_unit(metric, band),
        str(len(finding.values)),
        finding.verdict.value,
    ]


def interval_text(finding: Finding) -> str:
    """Returns '[0.12, 0.25]'; '–' without an interval."""
    if finding.interval is None:
        return NOTHING
    low, high = (number(end, finding.metric.of_kind.digits) for end in finding.interval)
    return f"[{low}, {high}]"


def _with_unit(metric: Metric, text: str) -> str:
    return f"{text} {metric.of_kind.unit}".strip()


def conclusion(result: Result) -> str:
    """Returns the verdict in a line: 'held: as far as it is testable here'."""
    return f"{result.verdict.value}: {result.why}" if result.why else result.verdict.value
