"""The page of claims: its rows follow from the claim files and the committed records."""

from __future__ import annotations

from sadp_bench.claims.claim_file import NOT_MEASURED, Claim, Metric, catalog, read_claim
from sadp_bench.claims.measure import measure
from sadp_bench.cli.claim_view import interval_text
from sadp_bench.core.text import number
from sadp_bench.records.store import read_all
from tests.paths import ROOT

RESULTS = ROOT / "results" / "claims"
HEAD = ["| claim | pass bands | source | core-minutes | verdict |", "| --- | --- | --- | ---: | --- |"]


def rows() -> list[str]:
    return HEAD + [row(read_claim(path)) for path in catalog().values()]


def row(claim: Claim) -> str:
    bands = "<br>".join(band(metric) for metric in claim.metrics)
    cost = NOT_MEASURED if claim.core_minutes is None else f"{claim.core_minutes:g}"
    return f"| `{claim.name}`: {claim.text} | {bands} | {claim.source} | {cost} | {verdict(claim)} |"


def band(metric: Metric) -> str:
    if metric.untestable:
        return f"{metric.name}: not testable here, as {metric.untestable}"
    unit = f" {metric.of_kind.unit}".rstrip()
    premise = "premise: " if metric.premise else ""
    return f"{premise}{metric.name}: {metric.band.text()}{unit}"


def verdict(claim: Claim) -> str:
    folder = RESULTS / claim.name
    if claim.untestable:
        return f"not testable here, as {claim.untestable}"
    if not folder.exists():
        return "not run yet"
    found = measure(claim, read_all([folder]).records, folder)
    numbers = [
        f"{number(of.mean, of.metric.of_kind.digits)} {interval_text(of)} (n = {len(of.values)})"
        for of in found.findings
        if of.values
    ]
    return "<br>".join([f"**{found.verdict.value}**", *numbers])


def test_the_page_shows_what_files_and_records_give() -> None:
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- claims -->\n")[2].partition("<!-- end claims -->")[0].splitlines()
    assert shown == rows()


def test_the_committed_results_are_of_claims_that_are_there() -> None:
    folders = {path.name for path in RESULTS.iterdir()} if RESULTS.exists() else set()
    assert folders <= set(catalog())
