"""The HTML page: it stands alone, holds the rows' numbers and every run, and is safe whatever a record contains."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import shlex

import pytest

from sadp_bench.records.record import Failure
from sadp_bench.reports import render
from sadp_bench.reports.formats import html
from sadp_bench.reports.naming import command
from sadp_bench.reports.rows import rows
from sadp_bench.reports.tables.findings import fastest_lossless
from tests.example_records import make_record, make_spec
from tests.reports.formats.page.example_page import BAD, LOST, example, hostile, whole
from tests.reports.formats.page.reading import tree


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about them: they take seconds."""
    monkeypatch.setattr(html, "plots_by_group", lambda *_: {})


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
    tables = tree(whole()).all("table", class_="sortable")
    lines = [(table, line) for table in tables for line in table.all("tbody")[0].all("tr")]
    expected = rows(records, failures)
    assert len(tables) == 2 and len(lines) == len(expected)
    for (table, line), row in zip(lines, expected, strict=True):
        heads = [head.all("span")[0].text for head in table.all("thead")[0].all("th", scope="col")]
        cells = dict(zip(heads, [part for part in line.parts], strict=True))
        assert cells["method"].has({"scope": "row"}) and cells["method"].text == row.label
        for head, name in names.items():
            value = cells[head].attributes.get("data-value")
            number = row.columns()[name]
            assert value == (None if number is None else str(float(number)))
        verdicts = [part.attributes.get("data-value") for part in line.parts if part.has({"class": "verdict"})]
        assert verdicts == [row.verdict, row.random_verdict]


def test_cell_shows_interval_verdict_and_failures() -> None:
    records, failures = example()
    [row] = [row for row in rows(records, failures) if (row.label, row.ratio) == ("random", 0.3)]
    [line] = [line for line in tree(whole()).all("tr") if line.text.startswith("random30 %")]
    found = row.accuracy_difference
    low, high = (f"{100 * end:.2f}".replace("-", "−") for end in (found.low, found.high))
    assert f"−3.03 (3)[{low}, {high}]" in line.text and "▼ worse" in line.text and "31 failed" in line.text


def test_findings_name_the_best_of_each_ratio_and_the_fastest_lossless() -> None:
    records, failures = example()
    assert fastest_lossless([row for row in rows(records, failures) if row.settings["timesteps"] == 4]) == (
        "Full data: 71.00 % [68.52, 73.48] in 101.0 s (n = 3). Fastest of the lossless: el2n 30 %, 1.06× (n = 3)."
    )
    [table] = tree(whole()).all("table", class_="findings")
    lines = [line.text for line in table.all("tbody")[1].all("tr")]
    assert len(lines) == 3 and "sadp (smoothing=0.1)71.00 (1)" in lines[1] and lines[2].startswith("90 %random")
    assert "1 lossless" in lines[1] and "1 worse" in lines[1] and "2 without" in lines[1]


def test_every_run_has_its_part_with_the_command_that_repeats_it() -> None:
    records, failures = example()
    parts = {node.attributes["id"]: node for node in tree(whole()).all("details") if "id" in node.attributes}
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
    assert [node.all("strong")[0].text for node in top.all("summary") if node.all("strong")] == ["full", "random"]


@pytest.mark.usefixtures("no_plots")
def test_page_of_failures_beside_one_record_holds_no_invented_number() -> None:
    records, lost = [make_record(make_spec())], Failure(make_spec("grand", 0.3), "killed by signal 9", "now")
    top = tree(page(records, [lost]))
    [line] = [line for line in top.all("tr") if line.text.startswith("grand")]
    assert re.sub(r"[\d.]+ %", "", line.text).replace("–", "") == "grand01 failed"
    assert "no run has finished" in top.all("table", class_="findings")[0].text


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
    plots, details = top.all("figure", class_="plot"), top.all("details")
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
