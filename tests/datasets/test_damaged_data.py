"""Data files that are absent or damaged are named in one line, and nothing is trained."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from tests.commands import RANDOM, command, refused

ENDLESS = "9" * 5000


@pytest.mark.usefixtures("unpacks")
@pytest.mark.usefixtures("no_network")
def test_absent_data_without_a_network_names_file_source_and_way_out(tmp_path):
    for name in ("cifar10", "mnist", "nmnist"):
        answer = command(*RANDOM, "--dataset", name, "--data", tmp_path / "no such folder", "--out", tmp_path / "runs")
        assert answer.code == 2 and "Traceback" not in answer.err
        line = answer.err.splitlines()[-1]
        assert all(part in line for part in ("no such folder", "https://", "--dataset digits")), line
        assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def sparse(file, start, size):
    """Writes a file of so many bytes, zero but for the first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as sink:
        sink.write(start)
        sink.truncate(size)


def whole_cifar10(root):
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        sparse(root / "cifar-10-batches-bin" / name, b"", 10_000 * 3073)


def whole_fashion_mnist(root):
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        raw = root / "FashionMNIST" / "raw"
        images, labels = struct.pack(">4I", 2051, count, 28, 28), struct.pack(">2I", 2049, count)
        sparse(raw / f"{part}-images-idx3-ubyte", images, 16 + count * 784)
        sparse(raw / f"{part}-labels-idx1-ubyte", labels, 8 + count)


def whole_nmnist(root):
    for part in ("Train", "Test"):
        for digit in range(10):
            sparse(root / "NMNIST" / part / str(digit) / "00001.bin", b"", 10)


WHOLE = {"cifar10": whole_cifar10, "fashion-mnist": whole_fashion_mnist, "nmnist": whole_nmnist}


def folder_in_its_place(file):
    file.unlink()
    file.mkdir()


def labelled_200(file):
    with file.open("r+b") as sink:
        sink.seek(8 if "labels" in file.name else 0)
        sink.write(bytes([200]))


def cut(file, size):
    with file.open("r+b") as sink:
        sink.truncate(size)


DATA_DAMAGES = {
    "truncated": lambda file: cut(file, file.stat().st_size - 1),
    "grown": lambda file: cut(file, file.stat().st_size + 1),
    "empty": lambda file: cut(file, 0),
    "a folder": folder_in_its_place,
    "out of range": labelled_200,  # a label, or a coordinate beyond the sensor
}
BATCH, IMAGES = "cifar-10-batches-bin/data_batch_1.bin", "FashionMNIST/raw/train-images-idx3-ubyte"
LABELS, EVENTS = "FashionMNIST/raw/train-labels-idx1-ubyte", "NMNIST/Train/3/00001.bin"


def emptied(folder):
    for file in folder.iterdir():
        file.unlink()


DAMAGED = (("cifar10", BATCH), ("fashion-mnist", IMAGES), ("fashion-mnist", LABELS), ("nmnist", EVENTS))


@pytest.mark.parametrize(("dataset", "name"), DAMAGED)
def test_a_damaged_data_file_is_named(dataset, name, place):
    damages = [(name, damage) for damage in DATA_DAMAGES.values()]
    for damaged, damage in damages + ([("NMNIST/Test/9", emptied)] if dataset == "nmnist" else []):
        shutil.rmtree(place / "data", ignore_errors=True)
        WHOLE[dataset](place / "data")
        damage(place / "data" / damaged)
        refused(command(*RANDOM, "--dataset", dataset, "--data", "data"), damaged)
        assert not Path("runs").exists()


def test_a_wrong_magic_number_and_a_packed_file_that_is_none_are_named(place):
    whole_fashion_mnist(place / "data")
    raw = place / "data" / "FashionMNIST" / "raw"
    with (raw / "train-images-idx3-ubyte").open("r+b") as sink:
        sink.write(struct.pack(">I", 2052))
    refused(command(*RANDOM, "--dataset", "fashion-mnist", "--data", "data"), "its header is not")
    (raw / "train-images-idx3-ubyte").rename(raw / "train-images-idx3-ubyte.gz")
    refused(command(*RANDOM, "--dataset", "fashion-mnist", "--data", "data"), "train-images-idx3-ubyte.gz is broken")
