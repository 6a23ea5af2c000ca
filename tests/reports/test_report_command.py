"""`sadp-bench report`: what it reads, writes and draws."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from unittest.mock import patch

import pytest

from sadp_bench.core import clock
from sadp_bench.records import store
from tests.commands import charged, command, the_record, tiny_run
from tests.example_records import make_record, make_spec
from tests.small_runs import EvenTime


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a run of sadp and its reference, neither disturbed by another process."""
    folder = tmp_path_factory.mktemp("runs")
    with patch.object(clock, "time", EvenTime()):
        assert tiny_run("sadp", 0.3, folder).code == 0
    return folder


def test_report_speaks_text_markdown_csv_and_json(folder: Path) -> None:
    run, full = the_record(folder, "sadp")[1], the_record(folder, "full")[1]
    text = command("report", folder)
    assert text.code == 0 and text.err == ""
    markdown = command("report", folder, "--format", "markdown").out
    for shown in (text.out, markdown):
        assert f"{100 * run['test_accuracy']:.2f}" in shown and f"{charged(full) / charged(run):.2f}" in shown
    assert re.search(r"^\| *sadp *\|", markdown, re.MULTILINE)
    [row] = [
        row for row in json.loads(command("report", folder, "--format", "json").out)["rows"] if row["method"] == "sadp"
    ]
    assert row["accuracy_mean"] == run["test_accuracy"] and row["n"] == 1
    lines = list(csv.DictReader(io.StringIO(command("report", folder, "--format", "csv").out)))
    [line] = [line for line in lines if line["method"] == "sadp"]
    assert line["accuracy_mean"] == repr(run["test_accuracy"])


def test_report_writes_to_a_file_and_draws(folder: Path, tmp_path: Path) -> None:
    answer = command(
        "report", folder, "--format", "markdown", "--to", tmp_path / "new" / "r.md", "--plots", tmp_path / "p"
    )
    assert answer.code == 0 and answer.out == ""
    assert (tmp_path / "new" / "r.md").read_text() == command("report", folder, "--format", "markdown").out
    drawn = sorted((tmp_path / "p").iterdir())
    assert {path.suffix for path in drawn} == {".pdf", ".png", ".svg"}
    assert {path.stem.rpartition("-")[2] for path in drawn} >= {"accuracy", "speedup"}
    assert answer.err.splitlines() == [f"drew {path}" for path in drawn]


def test_options_of_a_paper_reach_the_table_and_are_refused_where_they_have_no_effect(folder: Path) -> None:
    chosen = ["--names", "sadp=Ours", "--methods", "sadp", "--cells", "accuracy", "--spread", "std", "--label", "tab:x"]
    shown = command("report", folder, "--format", "latex", "--caption", r"By \emph{us}.", *chosen)
    assert shown.code == 0 and re.search(r"^Ours & \d+\.\d\d \\\\$", shown.out, re.MULTILINE)
    assert (
        r"\caption{By \emph{us}.}\label{tab:x}" in shown.out
        and "% Accuracy (mean $\\pm$ standard deviation)" in shown.out
    )
    for words, message in (
        (["--style", "paper"], "--style and --width are for --plots"),
        (["--cells", "both"], "--cells is for --format latex"),
        (["--names", "sadp=Ours"], "--names is for --format latex and --plots"),
        (["--format", "latex", "--methods", "sapd"], "no method 'sapd' in these records; did you mean 'sadp'?"),
    ):
        answer = command("report", folder, *words)
        assert answer.code == 2 and answer.out == "" and message in answer.err and answer.err.count("\n") == 1


def test_report_takes_many_folders_and_a_record_once(tmp_path: Path) -> None:
    for name, ratio in (("a", 0.3), ("b", 0.5), ("again", 0.5)):
        for spec in (make_spec(), make_spec("sadp", ratio)):
            store.Store(tmp_path / name).write(make_record(spec))
    answer = command("report", tmp_path / "a", tmp_path / "b", tmp_path / "again", "--format", "json")
    assert [(row["method"], row["ratio"], row["n"]) for row in json.loads(answer.out)["rows"]] == [
        ("full", 0, 1),
        ("sadp", 0.3, 1),
        ("sadp", 0.5, 1),
    ]


def test_report_names_and_skips_what_it_cannot_read(tmp_path: Path) -> None:
    store.Store(tmp_path).write(make_record(make_spec("sadp", 0.3)))
    store.Store(tmp_path).write(make_record(make_spec()))
    good = next(tmp_path.glob("*-full-*")).read_text()
    (tmp_path / "cut.json").write_text(good[:100])
    (tmp_path / "edited.json").write_text(good.replace('"seed": 0', '"seed": 7'))
    (tmp_path / "newer.json").write_text(good.replace('"schema": 1', '"schema": 99'))
    (tmp_path / "other.json").write_text("[1, 2]")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    answer = command("report", tmp_path)
    assert answer.code == 0 and "sadp" in answer.out
    lines = answer.err.splitlines()
    assert len(lines) == 5
    for name in ("cut", "edited", "newer", "other", "bytes"):
        assert sum(line.startswith(f"sadp-bench: skipped {tmp_path / name}.json: ") for line in lines) == 1
    assert "Left out: 5 files" in answer.out


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "html", "json"])
def test_a_note_beside_the_records_is_reported_with_them(format: str, tmp_path: Path) -> None:
    folder = tmp_path / "busy"
    store.Store(folder).write(make_record(make_spec()))
    (folder / "note.txt").write_text("Made while others trained.\n\nSo times do not count.\n")
    assert store.read_notes([tmp_path, folder]) == ["busy: Made while others trained.", "busy: So times do not count."]
    shown = command("report", tmp_path, "--format", format).out
    assert "busy: Made while others trained." in shown and "busy: So times do not count." in shown


def disturbed(folder: Path) -> None:
    """Writes two records, and a note that excludes their seconds."""
    for spec in (make_spec(), make_spec("sadp", 0.3)):
        store.Store(folder).write(make_record(spec))
    (folder / "note.txt").write_text("Made in a storm.\nseconds: others trained beside.\n")


def test_a_note_that_seconds_state_nothing_takes_all_that_is_made_of_them_out(tmp_path: Path) -> None:
    disturbed(tmp_path)
    rows = json.loads(command("report", tmp_path, "--format", "json").out)["rows"]
    for row in rows:
        assert row["n"] == 1 and row["accuracy_mean"] is not None and row["disturbed"]
        timed = ("seconds", "speedup", "efficiency", "training_speedup", "training_efficiency", "seconds_to_accuracy")
        assert {row[f"{name}_mean"] for name in timed} == {None}
    for format in ("text", "markdown", "latex", "html"):
        answer = command("report", tmp_path, "--format", format)
        assert answer.code == 0 and answer.out.count("others trained beside") >= 1
        assert "Made in a storm." in answer.out


def test_seconds_that_state_nothing_are_in_no_figure(tmp_path: Path) -> None:
    disturbed(tmp_path / "runs")
    answer = command("report", tmp_path / "runs", "--plots", tmp_path / "plots")
    assert answer.code == 0 and "no plots of time" in answer.err and "disturbed" in answer.err
    kinds = {path.stem.rpartition("-")[2] for path in (tmp_path / "plots").iterdir()}
    assert "accuracy" in kinds and not kinds & {"speedup", "time", "phases", "progress"}


def test_a_reference_whose_seconds_state_nothing_gives_no_speedup_to_runs_beside_it(tmp_path: Path) -> None:
    disturbed(tmp_path / "storm")
    store.Store(tmp_path).write(make_record(make_spec("random", 0.3)))
    rows = json.loads(command("report", tmp_path, "--format", "json").out)["rows"]
    [row] = [row for row in rows if row["method"] == "random"]
    assert row["speedup_mean"] is None and row["seconds_mean"] is not None and not row["disturbed"]


def test_a_run_that_was_made_again_is_reported_and_the_first_record_counts(tmp_path: Path) -> None:
    for name, accuracy in (("last", 0.6), ("this", 0.7)):
        store.Store(tmp_path / name).write(
            make_record(make_spec(), accuracy, finished=f"2026-01-0{int(10 * accuracy)}")
        )
    answer = command("report", tmp_path, "--format", "json")
    assert json.loads(answer.out)["rows"][0]["accuracy_mean"] == 0.6
    (line,) = answer.err.splitlines()
    assert str(tmp_path / "this") in line and f"the same run as {tmp_path / 'last'}" in line
