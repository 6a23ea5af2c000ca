"""`run` with lists is a sweep of all combinations, which ends with its table."""

from __future__ import annotations

import json

import pytest

from tests.commands import TINY, command, refused, tiny_run

LISTS = ["run", "--method", "random,sadp", "--ratio", "0.25,0.5", "--seed", "0", *TINY]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a record of every run of the lists, so that no process starts."""
    out = tmp_path_factory.mktemp("runs")
    for method in ("random", "sadp"):
        for ratio in (0.25, 0.5):
            assert tiny_run(method, ratio, out).code == 0
    return out


def test_lists_are_a_sweep_that_ends_with_its_table(folder):
    answer = command(*LISTS, "--out", folder)
    assert answer.code == 0 and answer.err == ""
    lines = answer.out.splitlines()
    assert lines[-1] == f"5 runs: 5 done, 0 failed; sadp-bench report {folder}"
    assert answer.out.startswith(command("report", folder).out)


def test_the_table_has_the_runs_of_the_lists_alone(folder):
    answer = command("run", "--method", "random", "--ratio", "0.25,0.5", *TINY, "--out", folder)
    assert "random" in answer.out and "sadp " not in answer.out


def test_json_is_that_of_a_sweep(folder):
    found = json.loads(command(*LISTS, "--out", folder, "--json").out)
    assert (found["runs"], found["done"], found["failed"]) == (5, 5, [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--again"], "--again is for one run, and --method has several"),
        (["--save-model"], "--save-model is for one run"),
        (["--no-reference"], "--no-reference is for one run"),
        (["--ratio", "0.25,x"], "not a number, nor several with commas between them: '0.25,x'"),
        (["--seed", "0,1.5"], "not a whole number, nor several with commas between them: '0,1.5'"),
        (["--method", "random,"], "unknown method ''"),
        (["--method", "random,sdap"], "sadp"),
        (["--jobs", "0"], "jobs is"),
        (["--method", "random", "--ratio", "0.25", "--jobs", "2"], "--jobs 2 is for lists"),
    ],
)
def test_bad_lists_are_one_line(folder, words, expected):
    before = sorted(folder.iterdir())
    refused(command(*LISTS, "--out", folder, *words), expected)
    assert sorted(folder.iterdir()) == before
