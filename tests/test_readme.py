"""README shows only commands that exist, and figures that committed records give again."""

import json
import re
import shlex

import pytest
import typer

from sadp_bench.cli import app
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?:^ {4}|&& )(sadp-bench [^#\n`]+)", README, re.MULTILINE)


def test_the_two_commands_that_set_everything_up_are_there():
    assert "pip install . && sadp-bench run --method sadp --ratio 0.3\n" in README
    assert "pip install -e '.[test]' && pytest\n" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shown_command_parses(command):
    _, name, *arguments = shlex.split(command)
    commands = typer.main.get_command(app).commands
    commands[name].make_context(name, arguments)


def test_more_than_a_handful_of_commands_are_shown():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http|#)([^)]+)\)", README))
def test_a_linked_file_is_there(link):
    assert (ROOT / link).exists()


@pytest.fixture(scope="module")
def results():
    """What results/README.md must be."""
    from sadp_bench.records.store import read_all, read_notes
    from sadp_bench.report import render

    found = read_all([ROOT / "results"])
    assert not found.problems
    remarks = read_notes([ROOT / "results"])
    return render([record for _, record in found.records], format="markdown", remarks=remarks)


def test_results_readme_is_what_the_committed_records_give(results):
    from sadp_bench.report import stale

    assert stale(ROOT / "results" / "README.md", results) is None


def test_the_main_readme_shows_its_rows(results):
    block = README[README.index("<!-- from results/README.md") : README.index("<!-- end -->")]
    shown = [line for line in block.splitlines() if re.match(r"\| (?!method)[a-z]", line)]
    rows = {without_times(line) for line in results.splitlines()}
    assert len(shown) > 10 and not [line for line in shown if line not in rows]


@pytest.mark.parametrize(("name", "least"), [("axes", 18), ("memory", 3), ("search", 4)])
def test_the_main_readme_shows_its_tables_of_the_axes(results, name, least):
    begin, end = f"<!-- {name}, from results/README.md -->", f"<!-- end {name} -->"
    shown = README[README.index(begin) + len(begin) : README.index(end)].strip().splitlines()
    assert len(shown) >= 2 + least and not [line for line in shown if line not in results.splitlines()]


STUDIED = ("cifar10-resnet18", "cifar10-cnn", "nmnist-cnn")
SCORES = {
    "uniform": "uniform",
    "loss": "loss",
    "el2n": "EL2N",
    "readout": "readout",
    "spikes": "spikes",
    "plain": "layers, plain bound",
    "errors": "layers, errors alone",
    "layers": "layers",
    "sadp": "layers, memory 0.7 (SADP)",
    "exact": "the exact norm (optimum)",
}


def studied():
    """V over uniform sampling's at half of the examples, by score: fresh and as collected, at each study's last stop."""
    found = {name: [label] for name, label in SCORES.items()}
    for network in STUDIED:
        (path,) = (ROOT / "results" / "studies").glob(f"{network}-*.study.json")
        stop = json.loads(path.read_text(encoding="utf-8"))["stops"][-1]
        optimum = stop["optimum_over_uniform"]
        for name, row in found.items():
            at = stop["scores"][name] if name != "exact" else None
            values = (
                [optimum[when]["0.5"] for when in ("now", "coming")]
                if at is None
                else [at[source]["over_uniform"]["0.5"] for source in ("frozen", "age 0")]
            )
            row += [f"{value:.2f}" if value >= 0.1 else f"{value:.4f}" for value in values]
    return [f"| {' | '.join(row)} |" for row in found.values()]


@pytest.mark.parametrize("document", ["README.md", "docs/sadp.md"])
def test_the_table_of_the_studies_is_what_their_records_give(document):
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| uniform |"))
    assert lines[first : first + len(SCORES)] == studied()


@pytest.mark.parametrize("name", ["cifar10-cnn", "cifar10-cnn-sadp"])
def test_the_tables_of_speed_are_what_their_records_give(name):
    told = json.loads((ROOT / "results" / "speed" / f"{name}.speed.json").read_text(encoding="utf-8"))
    for row in told["rows"]:
        within = f"{row['efficiency']:.3f} [{row['efficiency_low']:.3f}, {row['efficiency_high']:.3f}]"
        line = (
            rf"^{row['method']} +{row['ratio']:g} +{row['speedup']:.3f} x +{row['ceiling']:.3f} x +{re.escape(within)}$"
        )
        assert re.search(line, README, re.MULTILINE), row
    floor = told["noise_floor"]
    assert f"{floor['median']:.3f} [{floor['low']:.3f}, {floor['high']:.3f}]" in README


def without_times(row):
    """A row of accuracies or of differences, without speed-ups and without the time to an accuracy."""
    row = re.sub(r"<br>(?:[\d.,]+ s|–|(?:[\d.]+(?: \(\d+\))?|–) / [\d.]+x)(?= \|)", "", row)
    return re.sub(r" [^|]*\| [^|]*\|$", "", row) if re.match(r"\| [^|]* % \|", row) else row
