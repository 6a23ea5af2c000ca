"""Filters of a report, its summary, its colours and its line of progress, as the command line gives them."""

from __future__ import annotations

import json
import re

import pytest

from sadp_bench.cli import waiting
from sadp_bench.records.store import Store
from sadp_bench.reports import render
from tests.commands import command
from tests.example_records import make_record, make_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        for method, ratio in (
            ("full", 0),
            ("random", 0.3),
            ("random", 0.5),
            ("sadp", 0.3),
            ("sadp", 0.5),
            ("el2n", 0.3),
        ):
            Store(folder).write(make_record(make_spec(method, ratio, seed), 0.7 - ratio / 10 + seed * ratio / 50))
    Store(folder).write(make_record(make_spec("grand", 0.9, 7, dataset="fashion-mnist", backbone="mlp"), 0.5))
    return folder


def shown(folder, *words):
    answer = command("report", folder, "--format", "json", *words)
    assert answer.code == 0, answer.err
    return {(row["dataset"], row["method"], row["ratio"]) for row in json.loads(answer.out)["rows"]}, answer.out


def test_filters_keep_what_the_runs_are_compared_with(folder):
    pairs, _ = shown(folder, "--method", "sadp", "--ratio", "0.3")
    assert pairs == {("digits", "full", 0), ("digits", "random", 0.3), ("digits", "sadp", 0.3)}
    whole = {row["name"]: row for row in json.loads(command("report", folder, "--format", "json").out)["rows"]}
    for row in json.loads(shown(folder, "--method", "sadp", "--ratio", "0.3")[1])["rows"]:
        assert row == whole[row["name"]], "a filter changed a number"


def test_lists_and_each_filter(folder):
    assert {method for _, method, _ in shown(folder, "--method", "sadp,el2n")[0]} == {"full", "random", "sadp", "el2n"}
    assert {ratio for _, _, ratio in shown(folder, "--ratio", "0.3,0.9")[0]} == {0, 0.3, 0.9}
    assert shown(folder, "--dataset", "fashion-mnist")[0] == {("fashion-mnist", "grand", 0.9)}
    assert shown(folder, "--backbone", "mlp")[0] == {("fashion-mnist", "grand", 0.9)}
    assert {row["n"] for row in json.loads(shown(folder, "--seed", "1")[1])["rows"]} == {1}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--method", "sapd"], "--method sapd is in no record here; did you mean 'sadp'?"),
        (["--ratio", "0.4"], "--ratio 0.4 is in no record here; allowed: 0, 0.3, 0.5, 0.9"),
        (["--seed", "3"], "--seed 3 is in no record here; allowed: 0, 1, 7"),
        (["--dataset", "zzz"], "--dataset zzz is in no record here; allowed: digits, fashion-mnist"),
        (
            ["--method", "el2n,sadp", "--seed", "7"],
            "no record here has all of --method el2n,sadp --seed 7; beside the others, --seed may be 0,1",
        ),
    ],
)
def test_an_empty_result_is_one_line_that_names_what_there_is(folder, words, why):
    assert command("report", folder, *words) == (2, "", f"sadp-bench: {why}\n")


def test_summary_is_for_text_and_markdown(folder):
    answer = command("report", folder, "--summary")
    assert answer.code == 0 and "speed-up" not in answer.out and "- Full data: 70.00 %" in answer.out
    assert command("report", folder, "--summary", "--format", "html").code == 2


def test_verdicts_have_colours_on_a_terminal_alone_and_none_by_no_color(monkeypatch):
    records = [make_record(make_spec(seed=seed), 0.7) for seed in range(2)]
    records += [make_record(make_spec("sadp", 0.3, seed), 0.5 + 0.001 * seed) for seed in range(2)]
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert re.search(r"\x1b\[31m *worse", render(records, styled=True)) and "\x1b" not in render(records)
    monkeypatch.setenv("NO_COLOR", "1")
    without = render(records, styled=True)
    assert "worse" in without and not re.search(r"\x1b\[[0-9;]*3[0-9]", without)


class Terminal:
    def __init__(self, is_terminal):
        self.text, self.isatty = "", lambda: is_terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("is_terminal", [True, False])
def test_long_work_is_named_on_a_terminal_and_the_line_is_erased(monkeypatch, is_terminal):
    terminal = Terminal(is_terminal)
    monkeypatch.setattr(waiting.sys, "stderr", terminal)
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "REDRAW_SECONDS", 0.001)
    with waiting.waiting("reading") as doing:
        doing("drawing plot 3")
        while is_terminal and "drawing plot 3 (0 s)" not in terminal.text:
            pass
    assert terminal.text.endswith(waiting.ERASE) if is_terminal else not terminal.text
