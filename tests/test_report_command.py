"""`sadp-bench report`: what it reads, writes and draws."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from commands import charged, command, the_record, tiny_run
from example_records import make_record, make_spec

from sadp_bench import store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a run of sadp and its reference."""
    folder = tmp_path_factory.mktemp("runs")
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
    told = command(
        "report", folder, "--format", "markdown", "--to", tmp_path / "new" / "r.md", "--plots", tmp_path / "p"
    )
    assert told.code == 0 and told.out == ""
    assert (tmp_path / "new" / "r.md").read_text() == command("report", folder, "--format", "markdown").out
    drawn = sorted((tmp_path / "p").iterdir())
    assert {path.suffix for path in drawn} == {".pdf", ".png", ".svg"}
    assert {path.stem.rpartition("-")[2] for path in drawn} >= {"accuracy", "speedup"}
    assert told.err.splitlines() == [f"drew {path}" for path in drawn]


def test_report_takes_many_folders_and_a_record_once(tmp_path: Path) -> None:
    for name, ratio in (("a", 0.3), ("b", 0.5), ("again", 0.5)):
        for spec in (make_spec(), make_spec("sadp", ratio)):
            store.Store(tmp_path / name).write(make_record(spec))
    told = command("report", tmp_path / "a", tmp_path / "b", tmp_path / "again", "--format", "json")
    assert [(row["method"], row["ratio"], row["n"]) for row in json.loads(told.out)["rows"]] == [
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
    told = command("report", tmp_path)
    assert told.code == 0 and "sadp" in told.out
    lines = told.err.splitlines()
    assert len(lines) == 5
    for name in ("cut", "edited", "newer", "other", "bytes"):
        assert sum(line.startswith(f"sadp-bench: skipped {tmp_path / name}.json: ") for line in lines) == 1
    assert "5 of the files" in told.out


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "html", "json"])
def test_a_note_beside_the_records_is_told_with_them(format: str, tmp_path: Path) -> None:
    folder = tmp_path / "busy"
    store.Store(folder).write(make_record(make_spec()))
    (folder / "note.txt").write_text("Made while others trained.\n\nSo times say nothing.\n")
    assert store.read_notes([tmp_path, folder]) == ["busy: Made while others trained.", "busy: So times say nothing."]
    shown = command("report", tmp_path, "--format", format).out
    assert "busy: Made while others trained." in shown and "busy: So times say nothing." in shown
