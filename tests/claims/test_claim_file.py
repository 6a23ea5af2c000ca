"""Claim files: their meaning, and one line for each fault."""

from __future__ import annotations

import pytest

from sadp_bench.claims.claim_file import catalog, find, read_claim
from sadp_bench.claims.metrics import KINDS
from sadp_bench.claims.runs import wants
from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import entries
from sadp_bench.runs.resolve import RunRequest
from sadp_bench.sweeps.sweep_file import read_sweep
from tests.claims.helpers import GOOD, HEAD, METRIC, SWEEP, written
from tests.commands import command, refused


def test_a_file_is_its_text_source_metrics_and_runs(tmp_path):
    claim = read_claim(written(tmp_path, GOOD.replace("[[metric]]", "[[metric]]\npremise = true"), "far-below"))
    assert (claim.name, claim.text) == ("far-below", "Random sampling is far below full data.")
    assert claim.source == "Nobody, 2020, Table 1." and claim.core_minutes is None
    [metric] = claim.metrics
    assert (metric.kind, metric.band.at_least, metric.band.at_most) == ("accuracy_difference", None, -2)
    assert metric.premise and claim.testable == claim.metrics
    pairs = [[(run.spec.method, run.spec.ratio, run.spec.seed) for run in row] for row in wants(claim)[metric]]
    assert pairs == [[("random", 0.5, seed), ("full", 0.0, seed)] for seed in (0, 1, 2)]


def test_runs_of_other_seeds_are_paired_in_order(tmp_path):
    of = METRIC.replace('{ method = "random" }', '{ method = "random", seed = [1, 0] }')
    text = (
        HEAD
        + of.replace('"full"', '{ method = ["random"], seed = [3, 2] }')
        + SWEEP.replace("[0, 1, 2]", "[0, 3, 2, 1]")
    )
    claim = read_claim(written(tmp_path, text))
    assert [[run.spec.seed for run in row] for row in wants(claim)[claim.metrics[0]]] == [[0, 2], [1, 3]]


def test_a_sweep_reads_the_runs_of_a_claim_file(tmp_path):
    assert len(read_sweep(written(tmp_path))) == 6


@pytest.mark.parametrize("name", catalog())
def test_every_claim_of_the_package_selects_runs_that_are_accepted(name):
    claim = find(name)
    assert claim.name == name and claim.text.endswith(".") and claim.source
    assert claim.testable or claim.untestable
    networks = {run.fields["backbone"] for run in read_sweep(claim.path) if "backbone" in run.fields}
    if absent := networks - {entry.name for entry in entries("backbone")}:
        pytest.skip(f"{', '.join(absent)} is not built yet")
    for metric, rows in wants(claim).items():
        assert len(rows) >= 3, f"{metric.name}: {len(rows)} values give no narrow interval"
    for run in read_sweep(claim.path):
        RunRequest.of(run.fields | {"kernel": "python", "device": "cpu"})
    read = {run.key for rows in wants(claim).values() for row in rows for run in row}
    assert claim.untestable or len(read) >= len(read_sweep(claim.path)), "the file trains runs that no metric reads"


TWICE = '\n[[sweep]]\nmethod = "random"\nratio = 0.3\n'
BAD_FILES = {
    "no TOML": ("[claim", "is not TOML"),
    "a sweep file": (SWEEP, "has no [claim]"),
    "a claim that is no table": ("claim = 3\n" + METRIC + SWEEP, "has no [claim]"),
    "no metric": (HEAD + SWEEP, "has no [[metric]]"),
    "single brackets": (GOOD.replace("[[metric]]", "[metric]"), "has no [[metric]]"),
    "no runs": (HEAD + METRIC, "has no [[sweep]]"),
    "unknown table": (GOOD + "[metrics]\n", "unknown table 'metrics'"),
    "unknown key of the claim": (HEAD + "sources = 'x'\n" + METRIC + SWEEP, "did you mean 'source'"),
    "unknown key of a metric": (GOOD.replace("at_most", "atmost"), "did you mean 'at_most'"),
    "no text": (GOOD.replace('text = "Random sampling is far below full data."', ""), "[claim] lacks text"),
    "empty source": (GOOD.replace('"Nobody, 2020, Table 1."', '" "'), "[claim] lacks source"),
    "text no text": (GOOD.replace('"Nobody, 2020, Table 1."', "2020"), "source is a text, not 2020"),
    "minutes": (HEAD + "core_minutes = -1\n" + METRIC + SWEEP, "core_minutes is a number above 0"),
    "huge minutes": (HEAD + f"core_minutes = 0x{'f' * 20_000}\n" + METRIC + SWEEP, "core_minutes is a number above 0"),
    "unknown kind": (GOOD.replace("accuracy_difference", "acuracy_difference"), "did you mean 'accuracy_difference'"),
    "no kind": (GOOD.replace('kind = "accuracy_difference"', ""), "[[metric]] 1 lacks kind"),
    "no band": (GOOD.replace("at_most = -2", ""), "the pass band is at_least, at_most, or both"),
    "band upside down": (GOOD.replace("at_most = -2", "at_most = -2\nat_least = 3"), "not from 3 to -2"),
    "band no number": (GOOD.replace("at_most = -2", "at_most = nan"), "at_most is a number of at most 1e+09, not nan"),
    "band true": (GOOD.replace("at_most = -2", "at_most = true"), "at_most is a number"),
    "premise": (GOOD + METRIC.replace("at_most", "premise = 1\nat_most"), "[[metric]] 2: premise is true or false, not 1"),
    "no runs named": (GOOD.replace('of = { method = "random" }', ""), "of selects runs by their keys"),
    "against missing": (GOOD.replace('against = "full"', ""), "against selects runs by their keys"),
    "against a word": (GOOD.replace('against = "full"', 'against = "random"'), "or 'full' for the full-data references"),
    "against too much": (GOOD.replace("accuracy_difference", "visits_saved"), "visits_saved compares no runs"),
    "unknown key of runs": (GOOD.replace("{ method =", "{ methods ="), "did you mean 'method'"),
    "no such run": (GOOD.replace('{ method = "random" }', '{ method = "sadp" }'), "no run of the file has method = sadp"),
    "no such setting": (GOOD.replace("of = {", "of = { set.rescale = true,"), "no run of the file has set.rescale = True"),
    "several of a seed": (GOOD + TWICE, "several runs of a seed have method = random"),
    "unequal numbers": (GOOD.replace('"full"', '{ method = "el2n", seed = 0 }'), "compares 3 runs with 1"),
    "untestable, and measured": (GOOD.replace("at_most = -2", 'untestable = "x"'), "leave kind, of, against out"),
    "code": (GOOD.replace('"el2n"', '"os:abort"'), "would import that module"),
    "method": (GOOD.replace('"el2n"', '"el2m"'), "[[sweep]] 1: unknown method 'el2m'"),
}  # fmt: skip


def test_a_bad_file_is_one_line_that_names_it_and_writes_nothing(tmp_path):
    (tmp_path / "records").mkdir()
    for name, (text, expected) in BAD_FILES.items():
        path = written(tmp_path, text)
        refused(command("claim", path, "--from", tmp_path / "records", "--quiet"), str(path), expected)
        refused(command("claim", path, "--out", tmp_path / "new", "--quiet"), expected)
        assert not (tmp_path / "new").exists(), name


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'hardest-subset'"):
        find("hardest-subsets")
    refused(command("claim", "zzzz"), "allowed: grand-at-start, ", "path of a .toml file")
    refused(command("claim", "nowhere.toml"), "nowhere.toml", "No such file")


def test_the_page_lists_every_kind():
    from tests.paths import ROOT

    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    assert all(f"| `{kind}` |" in page for kind in KINDS)
