"""Stdout has results alone, or nothing; a stream that is closed, full or left by its reader ends no run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sadp_bench.cli import app
from sadp_bench.cli.output import Lasting
from sadp_bench.core.errors import BadInput
from sadp_bench.datasets.digits import Digits
from sadp_bench.measure import speed
from tests.commands import TINY, command, refused, the_record
from tests.paths import ROOT

STUDY = sorted((ROOT / "results" / "studies").glob("*.json"))[0]
SPEED = sorted((ROOT / "results" / "speed").glob("*.json"))[0]


def test_a_command_that_fails_late_prints_nothing_on_stdout(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise BadInput("can't write file/")

    monkeypatch.setattr("sadp_bench.reports.plots.draw", fail)
    monkeypatch.setattr("sadp_bench.reports.plots.study.draw_study", fail)
    monkeypatch.setattr("sadp_bench.reports.plots.speed.draw_speed", fail)
    monkeypatch.setattr(speed, "measure_speed", lambda *_: json.loads(SPEED.read_text()))
    for words in (["study", "--from", STUDY], ["speed"]):
        assert json.loads(command(*words, "--json").out), words
        refused(command(*words, "--json", "--plots", "plots"), "can't write file/")
        refused(command(*words, "--plots", "plots"), "can't write file/")
    refused(command("report", "records", "--plots", "plots"), "can't write file/")


def test_what_a_data_set_prints_is_no_result(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Digits.__init__

    def noisy(self: Digits, root: Path, timesteps: int) -> None:
        print("progress of a stranger")
        read(self, root, timesteps)

    monkeypatch.setattr(Digits, "__init__", noisy)
    sizes = "\n".join(["epochs = 1", "train_examples = 128", "threads = 1", "set.backbone.width = 4"])
    Path("a.toml").write_text(f'[[sweep]]\nmethod = "random"\nratio = 0.5\n{sizes}\n')
    for words in (["run", "--method", "full", "--ratio", 0, *TINY], ["sweep", "a.toml", "--dry-run"]):
        answer = command(*words, "--json")
        assert answer.code == 0 and json.loads(answer.out) and "progress of a stranger" in answer.err, words


class Unwritable(io.StringIO):
    """A stream whose reader has gone away, or whose disk is full."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


ERRORS = [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device"), ValueError("closed file")]


def test_a_run_outlives_its_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in ERRORS:
        stream = Lasting(Unwritable(error))
        assert stream.write("text") == 4 and not stream.isatty()
        stream.flush()
    stdout = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Unwritable(ERRORS[0]))
        patch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as end:
            app.main(["run", "--method", "full", "--ratio", "0", *TINY, "--out", str(tmp_path)])
    assert end.value.code == 0 and "test accuracy" in stdout.getvalue()
    the_record(tmp_path, "full")


def test_a_result_that_cannot_be_printed_is_a_line_or_nobodys(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code in zip(ERRORS[:2], (0, 2), strict=True):
        stderr = io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Unwritable(error))
            patch.setattr(sys, "stderr", stderr)
            with pytest.raises(SystemExit) as end:
                app.main(["report", "records"])
        assert end.value.code == code
        line = "sadp-bench: can't write the result to stdout: No space left on device; records are kept\n"
        assert stderr.getvalue() == (line if code else "")


def test_closed_streams_leave_their_numbers_to_no_file(tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        from sadp_bench.cli.output import open_closed
        open_closed()
        with open(sys.argv[1], "w") as file:
            print("lost", file=sys.stderr, flush=True)
            print("lost", flush=True)
            print(file.fileno(), sys.stdin.read(), file=file)
    """
    closed: Any = f'exec \'{sys.executable}\' -c "$0" "$1" <&- >&- 2>&-'
    assert subprocess.run(["bash", "-c", closed, code, tmp_path / "file"]).returncode == 0
    assert int((tmp_path / "file").read_text()) > 2
