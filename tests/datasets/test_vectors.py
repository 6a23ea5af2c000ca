"""Data sets of vectors: spoken words against SpikingJelly's frames, Braille touches, and their way through a run."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.datasets import shd as oracle

from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.braille import FILE, Braille, averaged
from sadp_bench.datasets.spoken import SHD, SSC
from sadp_bench.runs.resolve import RunRequest
from tests.datasets.event_files import make_spoken, write_spoken, zipped
from tests.datasets.helpers import real, refusal

h5py = pytest.importorskip("h5py")
NAMES = {"SHD": ("shd", SHD, 20), "SSC": ("ssc", SSC, 35)}


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    return make_spoken(tmp_path, "SHD", 20, train=2, test=1)


@pytest.mark.parametrize("folder", NAMES)
def test_spoken_words_are_counted_by_unit_and_time_packed_or_not(folder: str, tmp_path: Path) -> None:
    _, cls, classes = NAMES[folder]
    made = make_spoken(tmp_path, folder, classes, train=1, test=1)
    data = cls(tmp_path, 7)
    assert cls.locate(tmp_path) == made and data.train.input_N.shape == (classes, 7, 1, 1, 140)
    assert data.train.label_N.tolist() == list(range(classes)) and len(data.class_names) == classes
    with h5py.File(made / f"{folder.lower()}_train.h5") as content:
        for row in range(classes):
            times = [round(float(second) * 1_000_000) for second in content["spikes/times"][row]]
            span = Fraction(max(times) - min(times) + 1, 7)
            units = content["spikes/units"][row].tolist()
            wanted = Counter((int((t - min(times)) / span), unit // 5) for t, unit in zip(times, units, strict=True))
            found = data.train.input_N[row, :, 0, 0]
            assert {place: int(found[place]) for place in wanted} == wanted and int(found.sum()) == 300
    for file in sorted(made.iterdir()):
        zipped(file, file.with_name(f"{file.name}.zip"))
        file.unlink()
    packed = cls(tmp_path, 7)
    assert cls.locate(tmp_path) == made and torch.equal(packed.test.input_N, data.test.input_N)


def test_by_number_equals_spikingjelly_where_the_parts_are_equal(spoken: Path) -> None:
    data = SHD(spoken.parent, 10, by="number", units=700)
    with h5py.File(spoken / "shd_test.h5") as content:
        for row in range(20):
            events = {"t": content["spikes/times"][row], "x": content["spikes/units"][row]}
            theirs = oracle._integrate_events_by_fixed_frames_number(events, "number", 10, 700)
            assert np.array_equal(data.test.input_N[row, :, 0, 0].numpy(), theirs)


def test_real_spoken_digits_have_every_spike_once(real_data: Path) -> None:
    data = SHD(real(real_data, SHD), 20)
    with h5py.File(real_data / "SHD" / "shd_test.h5") as content:
        assert data.test.label_N.tolist() == np.asarray(content["labels"]).tolist()
        for row in (0, len(data.test) - 1):
            units = Counter((content["spikes/units"][row] // 5).tolist())
            summed = data.test.input_N[row].sum((0, 1, 2), dtype=torch.int64)
            assert {unit: int(summed[unit]) for unit in units} == units and int(summed.sum()) == units.total()


GOOD = (np.array([0.1, 0.5]), np.array([3, 699]))
DAMAGES: list[tuple[list[tuple[Any, Any]], list[int], str]] = [  # recordings, labels, words of the message
    ([GOOD], [20], "labels are 0 to 19, and it has 20 to 20"),
    ([GOOD], [0, 1], "1 recordings and 2 labels"),
    ([], [], "0 recordings and 0 labels"),
    ([GOOD, ([], [])], [0, 1], "recording 1: it has no events"),
    ([GOOD, ([0.1], [3, 4])], [0, 1], "recording 1: it has 1 times and 2 units"),
    ([([0.1, 0.2], [3, 700])], [0], "recording 0: units are 0 to 699, and it has 3 to 700"),
    ([([0.1, np.nan], [3, 4])], [0], "recording 0: its times are not finite"),
    ([([0.1, np.inf], [3, 4])], [0], "recording 0: its times are not finite"),
    ([([-0.1, 0.2], [3, 4])], [0], "its times are not finite, or below 0"),
]


def test_damaged_recordings_are_named_in_one_line(spoken: Path) -> None:
    file = spoken / "shd_test.h5"
    for recordings, labels, words in DAMAGES:
        write_spoken(file, recordings, labels)
        message = refusal(SHD, spoken.parent, 4)
        assert f"{file} is broken" in message and words in message, (words, message)


def test_what_is_no_hdf5_file_of_spikes_is_named_in_one_line(spoken: Path) -> None:
    file = spoken / "shd_train.h5"
    whole = file.read_bytes()
    for content in (b"", b"no HDF5 at all", whole[: len(whole) // 2], b"\x89HDF\r\n\x1a\n" + bytes(100)):
        file.write_bytes(content)
        assert f"{file} is broken: it is no HDF5 file of spikes/times" in refusal(SHD, spoken.parent, 4)
    with h5py.File(file, "w") as other:
        other["labels"] = np.arange(3)
    assert f"{file} is broken: it is no HDF5 file of spikes/times" in refusal(SHD, spoken.parent, 4)
    with h5py.File(file, "w") as other:
        other["labels"], other["spikes"] = np.arange(3), np.arange(3)
    assert f"{file} is broken" in refusal(SHD, spoken.parent, 4)
    file.unlink()
    file.mkdir()
    assert f"{file}: no regular file" in refusal(SHD, spoken.parent, 4)
    shutil.rmtree(file)
    assert SHD.locate(spoken.parent) is None
    message = refusal(SHD, spoken.parent, 4)
    assert all(part in message for part in ("shd_train.h5.zip is not there", "https://", "--data", "--dataset digits"))


def test_a_zip_without_a_file_of_spikes_is_named(spoken: Path) -> None:
    file = spoken / "shd_test.h5"
    zipped(file.rename(spoken / "other"), spoken / "shd_test.h5.zip")
    assert "shd_test.h5.zip is broken: it has no .h5 file" in refusal(SHD, spoken.parent, 4)


def test_without_h5py_one_line_says_what_to_install(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    message = refusal(SHD, spoken.parent, 4)
    assert "pip install 'sadp-bench[hdf5]'" in message and str(spoken / "shd_train.h5") in message


def test_units_are_summed_in_equal_groups_alone(tmp_path: Path) -> None:
    for units in (0, -1, 300, 1400):
        message = refusal(lambda units=units: SHD(tmp_path, 4, units=units))
        assert f"dataset.units divides 700, such as 140, 350 and 700, and is not {units}" in message
    assert "dataset.by is time or number" in refusal(lambda: SSC(tmp_path, 4, by="unit"))


def test_braille_at_76_steps_is_the_file_itself_and_its_split_is_fixed() -> None:
    data = Braille(Path("nowhere"), 76)
    with np.load(FILE) as file:
        taxel, label, names = file["taxel"], file["label"], file["names"].tolist()
    assert tuple(names) == Braille.class_names and (len(data.train), len(data.test)) == (1215, 135)
    assert torch.bincount(data.test.label_N).tolist() == [5] * 27
    found = Counter(
        (int(target), touch.numpy().tobytes())
        for part in (data.train, data.test)
        for touch, target in zip(part.input_N, part.label_N, strict=True)
    )
    assert found == Counter((int(target), touch.tobytes()) for touch, target in zip(taxel, label, strict=True))
    assert data.found == {"test_list": "2b2b30dde560"}
    assert "dataset.test_list is 0" in refusal(lambda: Braille(Path("nowhere"), 76, test_list="0"))


def test_braille_mean_and_std_are_those_of_the_training_set() -> None:
    values = Braille(Path("nowhere"), 76).train.input_N.double() / Braille.scale
    assert float(values.mean()) == pytest.approx(Braille.mean[0], abs=1e-4)
    assert float(values.std()) == pytest.approx(Braille.std[0], abs=1e-4)


@pytest.mark.parametrize("timesteps", [1, 5, 19, 38, 76, 77, 152, 200])
def test_a_frame_of_braille_is_the_mean_over_its_time(timesteps: int) -> None:
    value = np.random.default_rng(0).integers(0, 256, (2, 76, 3), dtype=np.uint8)
    found = averaged(value, timesteps)
    assert found.shape == (2, timesteps, 3) and found.dtype == np.uint8
    fine = np.repeat(value.astype(float), timesteps, 1).reshape(2, timesteps, 76, 3).mean(2)  # in steps of 1 / T
    assert np.abs(found - fine).max() <= 0.5 + 1e-9


def test_networks_of_convolutions_and_augmentation_refuse_vectors_in_one_line() -> None:
    wanted = {"method": "random", "ratio": 0.5, "dataset": "braille", "device": "cpu"}
    assert RunRequest.of(wanted).fields["backbone"] == "mlp"
    for backbone in ("cnn", "vgg11", "resnet18", "resnet18-sltt", "sew-resnet18"):
        message = refusal(RunRequest.of, wanted | {"backbone": backbone})
        assert f"--backbone {backbone} needs images" in message and "take --backbone mlp" in message
    for augment in ("crop", "crop-flip", "cutout"):
        assert f"--augment {augment} changes images" in refusal(RunRequest.of, wanted | {"augment": augment})


@pytest.mark.parametrize("cls", [SHD, SSC, Braille])
def test_sets_of_vectors_say_so(cls: type[Dataset]) -> None:
    assert cls.vectors and cls.events and cls.backbone == "mlp" and len(cls.mean) == 1
