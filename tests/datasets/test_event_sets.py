"""The event data sets in their publishers' layouts, packed and unpacked: rows, labels, splits, and messages on bad files."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.datasets import cifar10_dvs as oracle_dvs
from spikingjelly.datasets import utils as oracle

from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.cifar10_dvs import CIFAR10DVS, SPLITS
from sadp_bench.datasets.dvs_gesture import DVSGesture
from sadp_bench.datasets.event_formats import read_aedat3, read_atis
from sadp_bench.datasets.events import frames
from sadp_bench.datasets.loading import load
from sadp_bench.datasets.n_caltech101 import NCaltech101
from sadp_bench.datasets.splits import hashed_split, list_hash
from tests.datasets import event_files
from tests.datasets.event_files import CIFAR10_CLASSES, aedat2, aedat3, atis, packet, tarred, zipped
from tests.datasets.helpers import real, refusal

T = 4
Make = Callable[[Path], Path]


def small_cifar10_dvs(root: Path) -> Path:
    return event_files.make_cifar10_dvs(root, 3)


def small_n_caltech101(root: Path) -> Path:
    return event_files.make_n_caltech101(root, number=4)


def small_gesture(root: Path) -> Path:
    return event_files.make_gesture(root, 1)


SETS: list[tuple[type[Dataset], Make]] = [
    (DVSGesture, small_gesture),
    (CIFAR10DVS, small_cifar10_dvs),
    (NCaltech101, small_n_caltech101),
]


def pack(folder: Path) -> None:
    """Replaces the folder by an archive in its publisher's format."""
    if folder.name == "DvsGesture":
        tarred(folder, folder.with_name("DvsGesture.tar.gz"))
        shutil.rmtree(folder)
    elif folder.name == "Caltech101":
        zipped(folder, folder.with_name("Caltech101.zip"))
        shutil.rmtree(folder)
    else:
        for of_class in sorted(folder.iterdir()):
            zipped(of_class, of_class.with_name(f"{of_class.name}.zip"))
            shutil.rmtree(of_class)


def same(one: Dataset, other: Dataset) -> bool:
    return all(
        torch.equal(a, b)
        for part, as_well in ((one.train, other.train), (one.test, other.test))
        for a, b in ((part.input_N, as_well.input_N), (part.label_N, as_well.label_N))
    )


@pytest.mark.parametrize(("cls", "make"), SETS)
@pytest.mark.parametrize("by", ["time", "number"])
def test_a_packed_data_set_is_the_unpacked_one_and_nothing_is_written(
    cls: Any, make: Make, by: str, tmp_path: Path
) -> None:
    folder = make(tmp_path)
    assert cls.locate(tmp_path) == folder
    data = cls(tmp_path, T, by=by, side=16)
    pack(folder)
    before = sorted(tmp_path.rglob("*"))
    packed = cls(tmp_path, T, by=by, side=16)
    assert same(data, packed) and data.class_names == packed.class_names and data.found == packed.found
    assert cls.locate(tmp_path) is not None and sorted(tmp_path.rglob("*")) == before
    assert data.train.input_N.shape[1:] == (T, 2, 16, 16) and data.train.input_N.dtype == torch.uint8
    assert not torch.equal(data.train.input_N, cls(tmp_path, T, side=16).train.input_N) or by == "time"


@pytest.mark.parametrize(("cls", "make"), SETS)
def test_an_absent_data_set_and_wrong_settings_are_refused(cls: Any, make: Make, tmp_path: Path) -> None:
    message = refusal(cls, tmp_path / "data", T)
    assert all(part in message for part in (str(tmp_path / "data"), "https://", "--data", "--dataset digits")), message
    assert cls.locate(tmp_path / "data") is None
    for settings, words in (
        ({"by": "events"}, "dataset.by is time or number, not 'events'"),
        ({"side": 0}, "dataset.side is 1 to"),
        ({"side": 256}, "dataset.side is 1 to"),
    ):
        assert words in refusal(lambda settings=settings: cls(tmp_path, T, **settings))


def test_gesture_trials_are_split_by_person_in_the_publishers_order(tmp_path: Path) -> None:
    folder = event_files.make_gesture(tmp_path, 2)
    data = DVSGesture(tmp_path, T)
    assert data.train.label_N.tolist() == list(range(11)) * 2 * 2 and data.test.label_N.tolist() == list(range(11)) * 2
    events = read_aedat3(np.fromfile(folder / "user02_led.aedat", np.uint8))
    for row, line in ((22, 1), (43, 22)):  # the second person's first and last trial
        label, start, end = map(int, (folder / "user02_led_labels.csv").read_text().splitlines()[line].split(","))
        wanted = frames(events.between(start, end), T, (128, 128))
        assert np.array_equal(data.train.input_N[row], wanted) and data.train.label_N[row] == label - 1


def test_a_trial_begins_with_its_start_and_ends_before_its_end_also_where_trials_overlap(tmp_path: Path) -> None:
    folder = event_files.make_gesture(tmp_path, 1)
    events = [(1, 1, 1, time) for time in (99, 100, 150, 199, 200, 201)]
    (folder / "user01_lab.aedat").write_bytes(aedat3(packet(events)))
    (folder / "user01_lab_labels.csv").write_text("class,startTime_usec,endTime_usec\n9,100,200\n9,150,201\n")
    found = DVSGesture(tmp_path, T).train.input_N[:2].flatten(1).sum(1)
    assert found.tolist() == [3, 3]


def test_real_gesture_recordings_are_read_trial_by_trial(real_data: Path) -> None:
    folder = real(real_data, DVSGesture) / "DvsGesture"
    data = DVSGesture(real_data, 8, by="number")
    assert (len(data.train), len(data.test)) == (41, 21)
    table = np.loadtxt(folder / "user24_lab_labels.csv", dtype=np.int64, delimiter=",", skiprows=1)
    assert data.test.label_N.tolist() == (table[:, 0] - 1).tolist()
    events = read_aedat3(np.fromfile(folder / "user24_lab.aedat", np.uint8))
    for row in (0, 20):
        _, start, end = table[row]
        inside = (events.microseconds >= start) & (events.microseconds < end)
        assert np.ptp(data.test.input_N[row].sum((1, 2, 3), dtype=torch.int64).numpy()) <= 1
        assert int(data.test.input_N[row].sum(dtype=torch.int64)) == inside.sum() > 10_000


def test_cifar10_dvs_frames_are_spikingjellys(tmp_path: Path, real_data: Path) -> None:
    """Parts of real DVS128 recordings, in CIFAR10-DVS's layout; the numbers of events are multiples of T."""
    files = sorted((real_data / "dvs128").glob("*.aedat"))
    assert len(files) == 7
    small_cifar10_dvs(tmp_path)
    for name, file in zip(CIFAR10_CLASSES, files, strict=False):
        content = file.read_bytes()
        start = content.rindex(b"\r\n", 0, 4096) + 2
        part = tmp_path / "CIFAR10DVS" / name / f"cifar10_{name}_2.aedat"
        part.write_bytes(content[:start] + content[start + 8000 : start + 8000 + 8 * 1000 * T])
    data = CIFAR10DVS(tmp_path, T, by="number", side=128, split="sew")  # the first ceil(2.7) train: 0, 1 and 2
    assert data.train.label_N.tolist() == [label for label in range(10) for _ in range(3)]
    for label, name in enumerate(CIFAR10_CLASSES):
        events = oracle_dvs._load_origin_data(tmp_path / "CIFAR10DVS" / name / f"cifar10_{name}_2.aedat")
        theirs = oracle.integrate_events_by_fixed_frames_number(events, "number", T, 128, 128)
        assert np.array_equal(data.train.input_N[3 * label + 2].numpy(), theirs.clip(max=255)), name


def test_cifar10_dvs_splits_are_those_of_their_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"cifar10_cat_{number}.aedat" for number in range(1000)]
    test = {split: of(names) for split, of in SPLITS.items()}
    in_order = sorted(names)
    theirs = oracle._split_class_indices([list(range(1000))], 0.9, random_split=False)[1]
    assert test["sew"] == {in_order[place] for place in theirs}
    monkeypatch.setattr(oracle_dvs, "CIFAR10DVS_CLASS_NAMES", ("cat",))
    oracle_dvs._move_data(tmp_path)
    assert test["tebn"] == {f"{file.stem}.aedat" for file in (tmp_path / "test" / "cat").iterdir()}
    assert test["tet"] == set(names[700:])
    held = hashed_split(names, [3] * 1000)[1]
    assert test["sha1-9:1"] == {names[place] for place in held} and len(held) == 100
    assert len(test["sew"] & test["tebn"]) == 9
    assert all(len(of([names[5]])) <= 1 for of in SPLITS.values())


def test_the_split_and_its_test_list_are_part_of_the_settings(tmp_path: Path) -> None:
    event_files.make_cifar10_dvs(tmp_path, 11)
    found = {}
    for split in SPLITS:
        if split == "tebn":  # all numbers are below 100
            continue
        data = CIFAR10DVS(tmp_path, 1, side=8, split=split)
        found[split] = data.found["test_list"]
        again = CIFAR10DVS(tmp_path, 1, side=8, split=split, test_list=found[split])
        assert same(data, again)
    assert found["sew"] == list_hash(f"cifar10_{name}_9.aedat" for name in CIFAR10_CLASSES)
    assert len(set(found.values())) == 3
    message = refusal(lambda: CIFAR10DVS(tmp_path, 1, side=8, test_list="0123456789ab"))
    assert "dataset.test_list is 0123456789ab" in message and found["sha1-9:1"] in message
    assert "sha1-9:1, sew, tebn, tet, not 'random'" in refusal(lambda: CIFAR10DVS(tmp_path, 1, split="random"))


def test_n_caltech101_holds_out_a_tenth_of_each_folder_and_follows_markers(tmp_path: Path) -> None:
    folder = event_files.make_n_caltech101(tmp_path, number=20)
    late = [(7, 8, 1, 0), (0, 240, 0, 0), (9, 9, 1, 0)]  # the last event is 8,192 us later
    names = ["/".join(file.parts[-2:]) for file in sorted(folder.glob("*/*.bin"))]
    labels = [sorted(path.name for path in folder.iterdir()).index(name.partition("/")[0]) for name in names]
    train, test = hashed_split(names, labels)
    (folder / names[test[0]]).write_bytes(atis(late))
    data = NCaltech101(tmp_path, 2, side=180)
    assert data.class_names == ("BACKGROUND_Google", "ant", "yin_yang")
    assert torch.bincount(data.test.label_N).tolist() == [2, 2, 2]
    assert data.test.label_N.tolist() == [labels[place] for place in test]
    assert data.test.input_N[0, :, 1].sum((1, 2)).tolist() == [1, 1]
    assert int(data.test.input_N[0, 0, 1, 8, 7 * 180 // 240]) == int(data.test.input_N[0, 1, 1, 9, 9 * 180 // 240]) == 1
    events = read_atis(np.fromfile(folder / names[train[3]], np.uint8))
    assert np.array_equal(data.train.input_N[3], frames(events, 2, (180, 240), sides=(180, 180)))
    assert data.found["test_list"] == list_hash(names[place] for place in test)
    assert "sha1-9:1, the only one" in refusal(lambda: NCaltech101(tmp_path, 2, split="sew"))


GESTURE, TABLE = "DvsGesture/user02_led.aedat", "DvsGesture/user02_led_labels.csv"
PICTURE, OBJECT = "CIFAR10DVS/dog/cifar10_dog_1.aedat", "N-Caltech101/Caltech101/ant/image_0003.bin"
FIRST_LINE = b"class,startTime_usec,endTime_usec\n"
DAMAGES: list[tuple[str, bytes | None, str]] = [  # file, content (None: removed), words of the message
    (GESTURE, b"", "does not begin with #!AER-DAT3"),
    (GESTURE, aedat2([(1, 1, 1, 1)]), "does not begin with #!AER-DAT3"),
    (GESTURE, aedat3(packet([(1, 1, 1, 250_000)]))[:-1], "is cut short"),
    (GESTURE, aedat3(packet([(1, 1, 1, 250_000)])) + bytes(3), "is cut short"),
    (GESTURE, aedat3(), "from 200000 to 300000 us it has no events"),
    (GESTURE, aedat3(packet([(1, 1, 1, 200_001)], valid=[0])), "from 200000 to 300000 us it has no events"),
    (GESTURE, aedat3(packet([(1, 1, 1, 200_001)])), "from 400000 to 500000 us it has no events"),
    (GESTURE, aedat3(packet([(128, 1, 1, 200_001)])), "event 0 at x=128, y=1 is outside the 128x128 sensor"),
    (GESTURE, None, "user02_led.aedat is not there"),
    (TABLE, None, "lacks user02_led_labels.csv"),
    (TABLE, b"", "its first line is not class,startTime_usec,endTime_usec"),
    (TABLE, b"1,200000,300000\n", "its first line is not"),
    (TABLE, FIRST_LINE + b"1,200000\n", "line 2 has not three whole numbers"),
    (TABLE, FIRST_LINE + b"1,2e5,300000\n", "line 2 has not three whole numbers"),
    (TABLE, FIRST_LINE + b"12,200000,300000\n", "line 2 has class 12"),
    (TABLE, FIRST_LINE + b"0,200000,300000\n", "line 2 has class 0"),
    (TABLE, FIRST_LINE + b"1,300000,300000\n", "line 2 has class 1 from 300000 to 300000 us"),
    (TABLE, b"\xff\xfe", "no UTF-8"),
    ("DvsGesture/trials_to_test.txt", None, "lacks trials_to_test.txt"),
    ("DvsGesture/trials_to_test.txt", b"user24_lab.aedat\nuser01_lab.aedat\n", "user01_lab.aedat is listed twice"),
    ("DvsGesture/trials_to_test.txt", b"", "`test` is empty"),
    (PICTURE, b"", "does not begin with #!AER-DAT2"),
    (PICTURE, aedat3(packet([(1, 1, 1, 1)])), "does not begin with #!AER-DAT2"),
    (PICTURE, aedat2([(1, 1, 1, 1)])[:-1], "cut short: it has 7 of 8 bytes"),
    (PICTURE, aedat2([]), "it has no events"),
    (PICTURE, aedat2([(1, 256, 1, 1)]), "has the address 0x10002"),
    ("CIFAR10DVS/dog/dog_4.aedat", aedat2([(1, 1, 1, 1)]), "is no recording cifar10_dog_<number>.aedat"),
    (OBJECT, b"", "0 bytes"),
    (OBJECT, atis([(1, 1, 1, 1)])[:-2], "3 bytes are not a whole number"),
    (OBJECT, atis([(240, 1, 1, 1)]), "event 0 at x=240, y=1 is outside the 240x180 sensor"),
    (OBJECT, atis([(1, 180, 1, 1)]), "event 0 at x=1, y=180 is outside the 240x180 sensor"),
    (OBJECT, atis([(1, 240, 1, 1)]), "it has no events"),
]


@pytest.mark.parametrize(("cls", "make"), SETS)
def test_a_damaged_file_is_named_in_one_line_with_the_reason(cls: Any, make: Make, tmp_path: Path) -> None:
    root = tmp_path / "whole"
    make(root)
    damages = [damage for damage in DAMAGES if (root / damage[0]).parent.exists()]
    assert len(damages) >= 5
    settings = {"side": 8} if cls is DVSGesture else {"side": 8, "test_list": ""}
    for number, (name, content, words) in enumerate(damages):
        damaged = tmp_path / str(number)
        shutil.copytree(root, damaged)
        (damaged / name).unlink(missing_ok=True)
        if content is not None:
            (damaged / name).write_bytes(content)
        message = refusal(load, cls, cls.__name__, damaged, T, settings)
        assert words in message and ("`test` is empty" in message or Path(name).name in message), (name, message)


@pytest.mark.parametrize(("cls", "make"), SETS)
def test_a_damaged_archive_is_named_in_one_line(cls: Any, make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path)
    pack(folder)
    archive = sorted(path for path in tmp_path.rglob("*") if path.suffix in (".zip", ".gz"))[0]
    whole = archive.read_bytes()
    middle = len(whole) // 2
    for content in (b"", b"no archive", whole[:middle], whole[:middle] + bytes(200) + whole[middle + 200 :]):
        archive.write_bytes(content)
        message = refusal(cls, tmp_path, T)
        assert str(archive) in message, message
    archive.write_bytes(whole)
    cls(tmp_path, T)


def test_a_folder_without_recordings_or_of_one_class_is_refused(tmp_path: Path) -> None:
    folder = small_cifar10_dvs(tmp_path) / "ship"
    shutil.rmtree(folder)
    assert CIFAR10DVS.locate(tmp_path) is None and "ship.zip is not there" in refusal(CIFAR10DVS, tmp_path, T)
    folder.mkdir()
    assert f"{folder} has no recordings" in refusal(CIFAR10DVS, tmp_path, T)
    (tmp_path / "N-Caltech101" / "Caltech101" / "ant").mkdir(parents=True)
    assert "no folders of two classes" in refusal(NCaltech101, tmp_path, T)


def test_a_recording_that_is_a_folder_or_a_pipe_is_refused(tmp_path: Path) -> None:
    file = small_cifar10_dvs(tmp_path) / "frog" / "cifar10_frog_0.aedat"
    file.unlink()
    os.mkfifo(file)
    assert f"{file}: no regular file" in refusal(CIFAR10DVS, tmp_path, T)


def test_a_link_to_a_class_folder_is_followed(tmp_path: Path) -> None:
    folder = small_n_caltech101(tmp_path)
    before = NCaltech101(tmp_path, T)
    (folder / "ant").rename(tmp_path / "elsewhere")
    (folder / "ant").symlink_to(tmp_path / "elsewhere")
    assert same(before, NCaltech101(tmp_path, T))


def test_frames_that_fit_into_no_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_gesture(tmp_path)
    monkeypatch.setattr("sadp_bench.core.memory.machine_bytes", lambda: 10**6)
    message = refusal(DVSGesture, tmp_path, 16)
    needed = math.prod((33, 16, 2, 128, 128)) / 2**30
    assert f"DVS128 Gesture in 16 frames needs at least {needed:,.1f} GiB" in message and "lower --timesteps" in message
