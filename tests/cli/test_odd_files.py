"""Odd files where a command reads or writes: a line, exit code 0, 1 or 2, and no wait."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import Failure
from sadp_bench.records.store import FAILED, NOTE, Store
from sadp_bench.training.checkpoint import Checkpoint, read_state
from tests.commands import Answer, command
from tests.example_records import make_record, make_spec
from tests.odd_files import ODD_PLACES, within

SPEC = make_spec("random", 0.5)
# The words of a command that meets an odd file, by the file's place in a folder with one record.
READERS = {
    "odd.json": ["report", "."],
    f"odd{FAILED}": ["report", "."],
    NOTE: ["report", "."],
    "table.md": ["report", ".", "--format", "json", "--to", "table.md", "--check"],
    "new.md": ["report", ".", "--format", "json", "--to", "new.md"],
    "gate": ["check", "gate", "--against", "."],
    "other": ["check", ".", "--against", "other"],
    "junit.xml": ["check", ".", "--against", "../whole", "--junit", "junit.xml"],
    "a.study.json": ["study", "--from", "a.study.json"],
    "sweep.toml": ["sweep", "sweep.toml", "--dry-run"],
    "claim.toml": ["claim", "claim.toml", "--from", "."],
}


def wrong(answer: Answer) -> str:
    """Returns the fault of an answer, '' if it has none."""
    lines = answer.err.splitlines()
    whole = all(line.isprintable() for line in lines) and "Traceback" not in answer.err
    if answer.code in (0, 1) or answer.code == 2 and lines and all(line.startswith("sadp-bench: ") for line in lines):
        return "" if whole else f"no plain lines: {answer.err}"
    return f"{answer}"


def test_odd_files_are_a_line_for_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path / "whole").write(make_record(make_spec()))
    problems = []
    for place, words in READERS.items():
        for name, lay in ODD_PLACES.items():
            folder = tmp_path / "folder"
            shutil.copytree(tmp_path / "whole", folder)
            monkeypatch.chdir(folder)
            lay(folder / place)
            with within(5):
                answer = command(*words)
            if found := wrong(answer):
                problems.append(f"{' '.join(words)} with {name}: {found}")
            monkeypatch.chdir(tmp_path)
            shutil.rmtree(folder)
    assert not problems, "\n".join(problems)


def test_odd_states_are_set_aside_in_a_line(tmp_path: Path) -> None:
    for number, (name, lay) in enumerate(ODD_PLACES.items()):
        messages: list[str] = []
        checkpoint = Checkpoint(tmp_path / f"{number}.ckpt", 0.0, {}, messages.append)
        for path in (checkpoint.path, checkpoint.before):
            lay(path)
            with within(5), pytest.raises(BadInput):
                read_state(path, torch.device("cpu"))
        with within(5):
            assert checkpoint.read(torch.device("cpu")) is None, name
            assert len(messages) == 2 and all("set aside as" in line for line in messages), messages
            checkpoint.write(dict)
            assert checkpoint.read(torch.device("cpu")) == {"identity": {}}, name
            checkpoint.path.unlink()
            for path in (checkpoint.path, checkpoint.before):  # while the run trains
                lay(path)
            checkpoint.write(dict)
            checkpoint.discard()


def test_an_odd_record_is_a_line_that_names_it(tmp_path: Path) -> None:
    for name, lay in ODD_PLACES.items():
        store = Store(tmp_path / name)
        store.folder.mkdir()
        for spec in (SPEC, SPEC.reference()):
            lay(store.path(spec))
            lay(store.path(spec, FAILED))
        with within(5):
            try:
                assert store.find(SPEC) is None, name
            except BadInput as error:
                assert str(store.path(SPEC)) in str(error) and "\n" not in str(error), name
            assert store.find_failure(SPEC) is None, name
            try:
                store.write_failure(Failure(SPEC, "killed", "2025"))
                store.write(make_record(SPEC))
            except BadInput as error:
                assert "no regular file" in str(error), name
            else:
                assert store.find(SPEC) == make_record(SPEC), name
