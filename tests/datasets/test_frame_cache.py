"""Frames of recordings are made once, and read afterwards while nothing that they depend on has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from sadp_bench.datasets import frame_cache, recordings
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.cifar10_dvs import CIFAR10DVS
from sadp_bench.datasets.dvs_gesture import DVSGesture
from sadp_bench.datasets.loading import load
from sadp_bench.datasets.n_caltech101 import NCaltech101
from tests.datasets import event_files
from tests.datasets.helpers import files_below, refusal


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns a list that collects the recordings that are made into frames."""
    calls: list[Any] = []

    def counting(*given: Any) -> Any:
        calls.append(given)
        return frames(*given)

    frames = recordings.frames
    monkeypatch.setattr(recordings, "frames", counting)
    return calls


def gesture(root: Path, timesteps: int = 3, **settings: Any) -> Dataset:
    return load(DVSGesture, "dvs-gesture", root, timesteps, {"by": "time", "side": 16} | settings)


@pytest.mark.parametrize("cls", [DVSGesture, CIFAR10DVS, NCaltech101])
def test_the_second_start_makes_no_frame_and_has_the_same(cls: type[Dataset], tmp_path: Path, made: list[Any]) -> None:
    event_files.make_gesture(tmp_path, 1)
    event_files.make_cifar10_dvs(tmp_path, 3)
    event_files.make_n_caltech101(tmp_path, number=4)
    first = cls(tmp_path, 3, side=16)  # type: ignore[call-arg]
    assert len(made) == len(first.train) + len(first.test)
    again = cls(tmp_path, 3, side=16)  # type: ignore[call-arg]
    assert len(made) == len(first.train) + len(first.test)
    for part in ("train", "test"):
        one, other = getattr(first, part), getattr(again, part)
        assert torch.equal(one.input_N, other.input_N) and torch.equal(one.label_N, other.label_N)


def test_whatever_frames_depend_on_makes_them_anew(
    tmp_path: Path, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = event_files.make_gesture(tmp_path, 1)
    number = len(gesture(tmp_path).train) + len(gesture(tmp_path).test)
    recording = min(folder.glob("*.aedat"))
    table = min(folder.glob("*_labels.csv"))

    def another_trial() -> None:
        head, first, *rest = table.read_text().splitlines()
        before = table.stat()
        label, start, end = first.split(",")
        table.write_text("\n".join([head, f"{label},{int(start) + 1},{end}", *rest, ""]))
        os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))

    for change, settings in (
        (lambda: None, {"side": 8}),
        (lambda: None, {"by": "number"}),
        (lambda: None, {"timesteps": 2}),
        (lambda: os.utime(recording, ns=(1, 1)), {}),
        (another_trial, {}),
        (lambda: monkeypatch.setattr(recordings, "DECODING", 2), {}),
    ):
        change()
        made.clear()
        gesture(tmp_path, **settings)
        assert len(made) == number, settings
        gesture(tmp_path, **settings)
        assert len(made) == number, settings


def test_a_file_that_was_cut_is_made_anew(tmp_path: Path, cache_home: Path, made: list[Any]) -> None:
    event_files.make_gesture(tmp_path, 1)
    whole = gesture(tmp_path).train.digest().digest()
    [file] = (cache_home / "sadp-bench" / "events").glob("*.u8")
    file.write_bytes(file.read_bytes()[:-1])
    made.clear()
    assert gesture(tmp_path).train.digest().digest() == whole and made
    assert file.stat().st_size == sum(
        part.input_N.numel() for part in (gesture(tmp_path).train, gesture(tmp_path).test)
    )


def test_a_start_waits_for_another_that_makes_the_frames_and_a_line_states_it(
    tmp_path: Path, cache_home: Path, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    event_files.make_gesture(tmp_path, 1)
    whole = gesture(tmp_path).train.digest().digest()
    [file] = (cache_home / "sadp-bench" / "events").glob("*.u8")
    lines, other = list[str](), FileLock(f"{file}.lock")

    def say(line: str) -> None:
        lines.append(line)
        other.release()

    monkeypatch.setattr("sadp_bench.datasets.progress.say", say)
    other.acquire()
    made.clear()
    assert gesture(tmp_path).train.digest().digest() == whole and not made
    assert lines == [f"another process is reading these recordings; waiting for {file}"]


def test_a_broken_recording_or_an_interruption_leaves_no_file(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = event_files.make_gesture(tmp_path, 1)
    content = (recording := min(folder.glob("*.aedat"))).read_bytes()
    recording.write_bytes(content[:-3])
    assert "is broken" in refusal(gesture, tmp_path)
    recording.write_bytes(content)

    def interrupted(*given: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as within, pytest.raises(KeyboardInterrupt):
        within.setattr(frame_cache.os, "fsync", interrupted)
        gesture(tmp_path)
    assert not [name for name in files_below(cache_home) if name.endswith((".u8", ".part"))]


def test_without_a_place_the_frames_are_made_at_each_start_and_a_line_states_it(
    tmp_path: Path, made: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    event_files.make_gesture(tmp_path, 1)
    whole = gesture(tmp_path).train.digest().digest()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    capsys.readouterr()
    for _ in range(2):
        made.clear()
        assert gesture(tmp_path).train.digest().digest() == whole and made
        assert "frames of DVS128 Gesture are not kept for the next start" in capsys.readouterr().err
