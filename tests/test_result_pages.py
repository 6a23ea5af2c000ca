"""The pages show the numbers of the committed records, studies and measurements."""

from __future__ import annotations

import json
import re
import statistics
from typing import Any

import pytest

from tests.paths import ROOT, text


@pytest.fixture(scope="module")
def results() -> str:
    """What results/README.md must be."""
    from sadp_bench.records.store import read_all, read_notes
    from sadp_bench.records.trials import sorted_out
    from sadp_bench.reports import render

    found, folders = read_all([ROOT / "results"]), [ROOT / "results"]
    # A claim's folder has all runs of the claim, also those that another folder has.
    assert all("/results/claims/" in each and each.endswith("which counts") for each in found.problems)
    apart = sorted_out(found.records, found.failures, folders)
    return render(
        apart.records, found.problems, format="markdown", remarks=read_notes(folders), searches=apart.searches
    )


def test_results_readme_is_what_the_committed_records_give(results: str) -> None:
    from sadp_bench.reports import stale

    assert stale(ROOT / "results" / "README.md", results) is None


def test_the_results_page_shows_rows_of_the_records(results: str) -> None:
    page = text("docs/results.md")
    block = page[page.index("<!-- from results/README.md") : page.index("<!-- end -->")]
    shown = [line for line in block.splitlines() if re.match(r"\| (?!method)[a-z]", line)]
    rows = {without_times(line) for line in results.splitlines()}
    assert len(shown) > 10 and not [line for line in shown if line not in rows]


def without_times(row: str) -> str:
    """A row of accuracies or of differences, without speed-ups and without the time to an accuracy."""
    row = re.sub(r"<br>(?:[\d.,]+ s|–|[\d.]+)†?(?: \(\d+\))?(?: / [\d.]+x)?(?= \|)", "", row)
    return re.sub(r" [^|]*\| [^|]*\|$", "", row) if re.match(r"\| [^|]* % \|", row) else row


def test_the_stated_differences_of_sadp_are_those_of_the_records() -> None:
    """Means and half-widths of SADP against full data and against random sampling, at 0.3, 0.5 and 0.7."""
    value = r"([+-][\d.]+) \(\d\)<br>\[([+-][\d.]+), ([+-][\d.]+)\]"
    row = rf"^\| sadp \(smoothing=0.2\) \d+ % \| {value} \| worse \| {value} \| \w+ \|$"
    rows = [[float(number) for number in found] for found in re.findall(row, text("docs/results.md"), re.MULTILINE)]
    to_full = [(-mean, (high - low) / 2) for mean, low, high, *_ in rows]
    to_random = [(mean, (high - low) / 2) for *_, mean, low, high in rows]
    stated = r"(-?\d+\.\d) ± (\d+\.\d)(?: \(\d seeds\))?"
    for document in ("README.md", "docs/results.md"):
        sentences = " ".join(text(document).split()).replace("+", "")
        triples = [
            [float(number) for number in found] for found in re.findall(rf"{stated}, {stated} and {stated}", sentences)
        ]
        for wanted in (to_full, to_random):
            assert any(triple == pytest.approx(sum(wanted, ()), abs=0.051) for triple in triples), (document, wanted)


@pytest.mark.parametrize(
    ("document", "name", "least"),
    [
        ("axes", "axes", 21),
        ("axes", "axes with SLTT's neuron", 9),
        ("axes", "memory", 3),
        ("axes", "search", 5),
        ("results", "infobatch", 5),
    ],
)
def test_a_page_shows_tables_of_the_records(results: str, document: str, name: str, least: int) -> None:
    page = text(f"docs/{document}.md")
    begin, end = f"<!-- {name}, from results/README.md -->", f"<!-- end {name} -->"
    shown = page[page.index(begin) + len(begin) : page.index(end)].strip().splitlines()
    assert len(shown) >= 2 + least and not [line for line in shown if line not in results.splitlines()]


def test_the_stated_differences_of_infobatch_are_those_of_the_records() -> None:
    from sadp_bench.records.statistics import Quantity, estimate
    from sadp_bench.records.store import read_all

    found = {}
    for path, record in read_all([ROOT / "results" / "infobatch"]).records:
        if path.parent.name == "infobatch":
            name = f"{record.spec.method}{'*' * record.spec.method_options.get('rescale', False)}"
            found[name, record.spec.ratio, record.spec.seed] = record.test_accuracy
    pairs = (
        ("sadp", "infobatch"),
        ("infobatch", "random"),
        ("infobatch", "random*"),
        ("random*", "random"),
        ("sadp", "random"),
    )
    sentences = " ".join(text("docs/results.md").split())
    for one, other in pairs:
        for ratio in (0.5, 0.7):
            of = estimate([found[one, ratio, s] - found[other, ratio, s] for s in range(3)], Quantity.DIFFERENCE)
            assert of is not None and of.low is not None and of.high is not None
            stated = f"{100 * of.mean:+.1f} ± {50 * (of.high - of.low):.1f}"
            assert stated in sentences, (one, other, ratio, stated)


def all_methods() -> list[str]:
    """Each method against random sampling on a fifth of CIFAR-10, at 0.3, 0.5, 0.7 and over the three: the page's rows."""
    from sadp_bench.records.metrics import charged_seconds
    from sadp_bench.records.statistics import Quantity, estimate
    from sadp_bench.records.store import read_all

    plain = {"rescale": False, "smoothing": 0.2}
    found: dict[str, dict[tuple[float, int], Any]] = {}
    for path, record in read_all([ROOT / "results" / "methods"]).records:
        if path.parent.name == "methods":
            options = record.spec.method_options
            other = [
                f" ({name}={json.dumps(options[name])})"
                for name, usual in plain.items()
                if options.get(name, usual) != usual
            ]
            found.setdefault(record.spec.method + "".join(other), {})[record.spec.ratio, record.spec.seed] = record
    ratios, seeds, lines = (0.3, 0.5, 0.7), (0, 1, 2), []
    for name, runs in found.items():
        if name in ("full", "random"):
            continue
        minus = {at: runs[at].test_accuracy - found["random"][at].test_accuracy for at in runs}
        cells = [[minus[ratio, seed] for seed in seeds] for ratio in ratios]
        cells.append([statistics.fmean(minus[ratio, seed] for ratio in ratios) for seed in seeds])
        of = [estimate(cell, Quantity.DIFFERENCE) for cell in cells]
        timed = [found["full"][0.0, 0], *(runs[ratio, 0] for ratio in ratios)]
        assert not any(run.disturbed for run in timed)
        whole, *parts = map(charged_seconds, timed)
        saved = " / ".join(f"{whole / part:.2f}" for part in parts)
        shown = " | ".join(f"{100 * each.mean:+.1f} ± {50 * (each.high - each.low):.1f}" for each in of)
        lines.append((of[-1].mean, f"| {name} | {shown} | {saved} |"))
    return [line for _, line in sorted(lines, reverse=True)]


def test_the_page_of_results_shows_every_method_against_random_sampling() -> None:
    page = text("docs/results.md")
    shown = page[page.index("<!-- from results/methods -->") : page.index("<!-- end methods -->")].splitlines()[3:]
    assert shown == all_methods()


def test_the_stated_sums_of_rates_are_those_of_the_records() -> None:
    """Visits times mean weight times learning rate over random sampling's, at 0.3, 0.5 and 0.7 of the suite."""
    from sadp_bench.records.record import Record
    from sadp_bench.records.store import read_all
    from sadp_bench.training.optimizer import learning_rate

    def mass(record: Record) -> float:
        found = 0.0
        for row in record.epochs:
            batches = -(-row["kept"] // record.spec.batch_size)
            sizes = [row["kept"] // batches + (number < row["kept"] % batches) for number in range(batches)]
            shares = [sum(sizes[:number]) / row["kept"] for number in range(batches)]
            rates = [learning_rate(record.spec, (row["epoch"] + share) / record.spec.epochs) for share in shares]
            assert rates[-1] == pytest.approx(row["learning_rate"], rel=1e-9)
            found += row["mean_weight"] * sum(rate * of for rate, of in zip(rates, sizes, strict=True))
        return found

    found = {}
    for _, record in read_all([ROOT / "results" / "cifar10"]).records:
        if (
            record.spec.seed == 0
            and record.spec.method in ("full", "random", "sadp", "infobatch")
            and record.spec.method_options.get("smoothing") != 1.0
        ):
            found[record.spec.method, record.spec.ratio] = mass(record)
    for method, document in (("sadp", "results"), ("sadp", "sadp"), ("infobatch", "results")):
        more = [100 * (found[method, ratio] / found["random", ratio] - 1) for ratio in (0.3, 0.5, 0.7)]
        stated = "{:.0f}, {:.0f} and {:.0f} %".format(*more)
        assert f"random sampling's by {stated}" in " ".join(text(f"docs/{document}.md").split()), (method, stated)
        if method == "infobatch":
            assert all(
                found[method, ratio] == pytest.approx(found["full", 0.0], rel=0.002) for ratio in (0.3, 0.5, 0.7)
            )


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


def studied() -> list[str]:
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


def test_the_variances_of_two_further_networks_are_those_of_their_studies() -> None:
    page = text("docs/sadp.md")
    for name, sources in (("cifar10-spikformer", ("uniform", "sadp", "readout")), ("braille-recurrent", ("sadp",))):
        [path] = (ROOT / "results" / "studies" / "networks").glob(f"{name}-*.study.json")
        scores = json.loads(path.read_text())["stops"][-1]["scores"]
        for source in sources:
            over = scores[source]["frozen"]["over_optimum"]
            assert " / ".join(f"{over[keep]:.2f}" for keep in ("0.7", "0.5", "0.3")) in page.replace("\n", " "), (
                name,
                source,
            )


def test_the_table_of_biases_is_what_the_committed_studies_give() -> None:
    """The bias of the gradient of all layers in percent: of a network without batch norm by three draws, else by five."""
    from sadp_bench.cli.bias_view import share

    found = []
    for path in sorted((ROOT / "results" / "studies" / "bias").glob("*.study.json")):
        for stop in json.loads(path.read_text(encoding="utf-8"))["stops"]:
            found.append([share(row["gradient"]["whole"]) for row in stop["bias"]["rows"]])
    page = text("docs/sadp.md")
    head = "| network | uniform | SADP, `batch` | SADP, `weighted` | exact norm, `batch` | exact norm, `weighted` |"
    lines = page[page.index(head) :].split("\n\n")[0].splitlines()[2:]
    assert [[cell.strip() for cell in line.split("|")[2:-1] if cell.strip()] for line in lines] == found


def test_the_table_of_the_studies_is_what_their_records_give() -> None:
    lines = text("docs/sadp.md").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| uniform |"))
    assert lines[first : first + len(SCORES)] == studied()


@pytest.mark.parametrize(
    "name", ["cifar10-cnn", "cifar10-cnn-sadp", "cifar10-cnn-native-2000", "cifar10-cnn-native-10000"]
)
def test_the_tables_of_speed_are_what_their_records_give(name: str) -> None:
    page = text("docs/speed.md")
    measured = json.loads(text(f"results/speed/{name}.speed.json"))
    for row in measured["rows"]:
        within = f"{row['efficiency']:.3f}"
        if row["efficiency_low"] is not None:  # six rounds give an interval
            within += f" [{row['efficiency_low']:.3f}, {row['efficiency_high']:.3f}]"
        line = (
            rf"^{row['method']} +{row['ratio']:g} +{row['speedup']:.3f} x +{row['ceiling']:.3f} x +{re.escape(within)}$"
        )
        assert re.search(line, page, re.MULTILINE), row
    floor = measured["noise_floor"]
    assert f"full data against itself {floor['median']:.3f}" in page
    assert floor["low"] is None or f"{floor['median']:.3f} [{floor['low']:.3f}, {floor['high']:.3f}]" in page
