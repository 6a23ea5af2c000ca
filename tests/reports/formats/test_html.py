"""The HTML page: it stands alone, holds the rows' numbers and every run, and is safe whatever a record contains."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re
import shlex

import pytest

from sadp_bench.records.record import Failure
from sadp_bench.records.statistics import Estimate
from sadp_bench.reports import render
from sadp_bench.reports.formats import html
from sadp_bench.reports.formats.forest import WIDTH, bars
from sadp_bench.reports.formats.headings import headings
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.naming import command
from sadp_bench.reports.rows import NOT_MEASURED, largest_first
from sadp_bench.reports.sentences import findings
from tests.example_records import ENVIRONMENT, make_record, make_spec
from tests.reports.formats.page.example_page import BAD, LOST, example, hostile, whole
from tests.reports.formats.page.reading import Node, tree


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the plots, which take seconds."""
    monkeypatch.setattr(html, "plots_by_group", lambda *_: {})


def claims(top: Node) -> list[Node]:
    return [line for table in top.all("table", class_="claims") for line in table.all("tbody")[0].all("tr")]


def page(records, failures=()) -> str:
    return render(records, [], "html", failures=failures)


def test_page_refers_to_nothing_outside_itself() -> None:
    top = tree(whole())
    ids = [node.attributes["id"] for node in top.all() if "id" in node.attributes]
    assert len(ids) == len(set(ids)), "an id stands twice"
    for node in top.all():
        assert not {"style", "action", "srcset", "xlink:href"} & set(node.attributes), node.attributes
        assert node.attributes.get("src", "data:image/svg+xml;base64,").startswith("data:image/svg+xml;base64,")
        assert not [name for name in node.attributes if name.startswith("on")]
        link = node.attributes.get("href", "#")
        assert link == "data:," or link in {"#", *(f"#{name}" for name in ids)}
    assert "http://" not in whole() and "https://" not in whole() and "@import" not in whole()


def test_policy_names_the_pages_own_style_and_script_and_no_other() -> None:
    top = tree(whole())
    [policy] = [node.attributes["content"] for node in top.all("meta", **{"http-equiv": "Content-Security-Policy"})]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for name in ("style", "script"):
        [node] = top.all(name)
        digest = base64.b64encode(hashlib.sha256(node.text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}';" in policy


def test_the_same_records_give_the_same_bytes_in_any_order() -> None:
    records = [make_record(make_spec(name, ratio)) for name, ratio in (("full", 0.0), ("random", 0.5), ("el2n", 0.5))]
    assert page(records) == page(records[::-1])


def test_table_holds_the_rows_numbers_unrounded() -> None:
    records, failures = example()
    names = {
        "accuracy": "accuracy_mean", "to full": "accuracy_difference_mean", "speed-up": "speedup_mean",
        "to random": "random_difference_mean", "ceiling": "ceiling_mean", "efficiency": "efficiency_mean",
        "time": "seconds_mean", "time to": "seconds_to_accuracy_mean", "n": "n",
    }  # fmt: skip
    tables = tree(whole()).all("table", class_="whole")
    lines = [(table, line) for table in tables for line in table.all("tbody")[0].all("tr")]
    groups = itertools.groupby(rows(records, failures), key=lambda row: row.group)
    expected = [row for group in largest_first([list(own) for _, own in groups]) for row in group]
    assert len(tables) == 2 and len(lines) == len(expected)
    for (table, line), row in zip(lines, expected, strict=True):
        heads = [head.all("span")[0].text for head in table.all("thead")[0].all("th", scope="col")]
        cells = dict(zip(heads, [part for part in line.parts], strict=True))
        assert cells["method"].has({"scope": "row"}) and cells["method"].text == row.display_label
        for head, name in names.items():
            value = cells[head].attributes.get("data-value")
            number = row.columns()[name]
            assert value == (None if number is None else str(float(number)))
        verdicts = [part.attributes.get("data-value") for part in line.parts if part.has({"class": "verdict"})]
        assert verdicts == [row.verdict, row.random_verdict]


def test_cell_shows_interval_verdict_and_failures() -> None:
    records, failures = example()
    [row] = [row for row in rows(records, failures) if (row.label, row.ratio) == ("random", 0.3)]
    [line] = [line for line in claims(tree(whole())) if line.text.startswith("Random30 %")]
    found = row.accuracy_difference
    low, high = (f"{100 * end:.2f}".replace("-", "−") for end in (found.low, found.high))
    assert f"−3.03 (3)[{low}, {high}]" in line.text and "▼ worse" in line.text and "31 failed" in line.text


def test_findings_come_first_and_groups_of_one_epoch_last_and_folded(no_plots: None) -> None:
    records, failures = example()
    brief = [make_record(make_spec(name, ratio, epochs=1), 0.1) for name, ratio in (("full", 0.0), ("sadp", 0.3))]
    top = tree(page([*brief, *records], failures))
    large = [row for row in rows(records, failures) if row.settings["timesteps"] == 4]
    found = [[item.text.replace("\xa0", " ") for item in one.all("li")] for one in top.all("ul", class_="findings")]
    assert found[0] == [sentence.replace("-", "−") if "in -" in sentence else sentence for sentence in findings(large)]
    heads = [node.all("h2")[0].text for node in top.all("section", class_="group")]
    assert heads == ["10 epochs · T=4", "10 epochs · T=2"], "what all groups share stands once"
    [shared] = [node.text for node in top.all("p", class_="settings")]
    assert shared == "In common: digits · cnn · 1,000 examples · fp32"
    [section] = top.all("section", id="brief")
    [folded] = section.all("details", class_="group")
    assert "open" not in folded.attributes and folded.all("summary")[0].text == "1 epoch · T=4 2 runs"


def test_valid_seconds_are_counted_and_the_command_is_the_real_one(no_plots: None) -> None:
    calm, busy = ENVIRONMENT, ENVIRONMENT | {"disturbed": "others ran"}
    records = [make_record(make_spec(seed=seed), environment=busy if seed else calm) for seed in range(3)]
    again = "sadp-bench report 'my runs' --format html --to report.html"
    top = tree(render(records, [], "html", again=again))
    assert "1 of 3 runs has valid seconds" in top.all("p", class_="lead")[0].text
    assert top.all("section", id="again")[0].all("pre")[-1].text == again
    assert "All runs have valid seconds" in tree(page(records[:1])).all("p", class_="lead")[0].text


def test_a_heading_has_the_fewest_settings_that_tell_groups_apart() -> None:
    titles = [
        "a · T=4 · lr=1 · b=1 · dense",
        "a · T=4 · lr=1 · b=2 · dense",
        "a · T=4 · lr=3 · b=3 · dense",
        "a · T=9 · lr=1 · b=1",
    ]
    common, found = headings(titles)
    assert common == "a" and [found[title].short for title in titles] == [
        "T=4 · lr=1 · b=1 · dense", "T=4 · lr=1 · b=2 · dense", "T=4 · lr=3 · dense", "T=9",
    ]  # fmt: skip
    assert [found[title].more for title in titles] == ["", "", "b=3", "lr=1 · b=1"]
    assert headings(titles[:1]) == ("", {titles[0]: headings(titles[:1])[1][titles[0]]})
    assert headings(titles[:1])[1][titles[0]].more == "lr=1 · b=1"


def test_drawings_keep_order_and_a_long_interval_is_cut() -> None:
    of = [
        Estimate(-0.02, 0.01, -0.03, -0.01, 3),
        Estimate(0.01, 0.5, -0.9, 0.92, 2),
        Estimate(0.0, None, None, None, 1),
    ]
    first, long, alone = bars([*of, NOT_MEASURED], 0.005)[:3]
    assert bars([NOT_MEASURED], 0.005) == [None]
    assert first.ends[0] < first.mean < first.ends[1] < first.margin < first.zero < long.mean
    assert long.ends == (4, WIDTH - 4) and alone.ends is None and alone.mean == alone.zero
    # The scale is linear: -0.02 and 0.01 lie as far apart as -0.03 and 0, to the tenth of a unit.
    assert long.mean - first.mean == pytest.approx(first.zero - first.ends[0], abs=0.2)


def test_every_run_has_its_part_with_the_command_that_repeats_it() -> None:
    records, failures = example()
    parts = {node.attributes["id"]: node for node in tree(whole()).all("details", class_="run")}
    assert set(parts) == {f"run-{run.spec.key}" for run in (*records, *failures)}
    for run in (*records, *failures):
        part = parts[f"run-{run.spec.key}"]
        assert [code.text for code in part.all("code")] == [command(run.spec)]
        names, values = ([node.text for node in part.all(name)] for name in ("dt", "dd"))
        result = dict(zip(names, values, strict=True))
        assert result["batch size"] == "64" and result["seed"] == str(run.spec.seed) and result["key"] == run.spec.key
        if run in records:
            assert result["processor"] == "Example CPU" and result["charged"] == f"{run.seconds['train']:.2f}"
        else:
            assert result["reason"] == LOST and part.all("pre")[0].text == "loss is nan"
    [again] = tree(whole()).all("details", class_="commands")
    lines = again.all("code")[0].text.split("\n")
    assert sorted(lines) == sorted(command(run.spec) for run in (*records, *failures))
    assert [shlex.split(line)[3] for line in lines[:3]] == ["full"] * 3


@pytest.mark.usefixtures("no_plots")
def test_full_of_equal_updates_is_reported_once() -> None:
    records = [make_record(make_spec()), make_record(make_spec("random", 0.5, protocol="updates"))]
    top = tree(page(records))
    assert len(top.all("section", class_="runs")) == 1
    assert [node.all("strong")[0].text for node in top.all("summary") if node.all("strong")] == ["Full data", "Random"]


@pytest.mark.usefixtures("no_plots")
def test_page_of_failures_beside_one_record_holds_no_invented_number() -> None:
    records, lost = [make_record(make_spec())], Failure(make_spec("grand", 0.3), "killed by signal 9", "now")
    top = tree(page(records, [lost]))
    [line] = [line for line in claims(top) if line.text.startswith("GraNd")]
    assert re.sub(r"[\d.]+ %", "", line.text).replace("–", "") == "GraNd01 failed"
    assert not line.all("svg")


@pytest.mark.usefixtures("no_plots")
def test_ranks_stand_where_there_are_blocks_enough() -> None:
    methods = {"a": 0.6, "b": 0.5, "c": 0.4}
    records = [
        make_record(make_spec(name, 0.5, epochs=epochs), accuracy)
        for name, accuracy in methods.items()
        for epochs in range(1, 8)
    ]
    [section] = tree(page(records)).all("section", id="ranks")
    lines = [[part.text for part in line.parts] for line in section.all("tbody")[0].all("tr")]
    assert [line[:2] for line in lines] == [["a", "1.00"], ["b", "2.00"], ["c", "3.00"]]
    assert "Friedman" in section.all("ul")[0].text


def test_whatever_a_record_states_is_text() -> None:
    records, failures = hostile()
    top = tree(render(records, [BAD], "html", failures=failures))
    assert len(top.all("script")) == 1
    assert all(node.attributes["src"].startswith("data:image/svg+xml;base64,") for node in top.all("img"))
    plots, details = top.all("figure", class_="plot"), top.all("details", class_="run")
    assert plots and BAD in plots[0].all("img")[0].attributes["alt"]
    assert sum(BAD in node.text for node in details) == 2 and BAD in top.all("h1")[0].text
    assert BAD in top.all("section", id="left-out")[0].text


def test_page_of_many_runs_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "plots_by_group", lambda *_: {})
    epochs = [{"kept": 1, "train_loss": 1 / (e + 1), "test_accuracy": e / 100} for e in range(100)]
    records = [make_record(make_spec("random", 0.3, seed), 0.7, 80, epochs=epochs) for seed in range(82)]
    assert len(page(records).encode()) < 1e6


def test_plots_stand_with_their_group_where_a_failed_run_lengthens_the_titles() -> None:
    """A diverged learning rate is a group, and so every title contains the learning rate."""
    records, _ = example()
    records = [record for record in records if record.spec.timesteps == 4]
    failed = Failure(dataclasses.replace(records[0].spec, learning_rate=9.0), "training diverged", "2026-01-01")
    sections = tree(page(records, [failed])).all("section", id="group-1")
    assert "learning-rate=0.1" in sections[0].all("h2")[0].text and sections[0].all("img")
