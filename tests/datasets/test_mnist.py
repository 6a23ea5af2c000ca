"""MNIST and Fashion-MNIST against an independent reading of their files, and the messages about bad ones."""

from __future__ import annotations

import gzip
import random
import struct
from pathlib import Path

import pytest
import torch
import torchvision

from sadp_bench.datasets import mnist
from sadp_bench.datasets.mnist import MNIST, FashionMNIST
from tests.datasets.helpers import Response, channel_statistics, files_below, md5, real, refusal, serve

pytestmark = pytest.mark.usefixtures("no_network")


def small_idx(root: Path, cls: type[mnist._IDX], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes the publisher's four packed files with 6 and 4 random images."""
    folder = root / cls.__name__ / "raw"
    folder.mkdir(parents=True)
    draw = random.Random(0)
    headers: dict[str, tuple[int, ...]] = {}
    for part, count in (("train", 6), ("t10k", 4)):
        headers[f"{part}-images-idx3-ubyte"] = (2051, count, 28, 28)
        headers[f"{part}-labels-idx1-ubyte"] = (2049, count)
        images, labels = draw.randbytes(count * 784), bytes(draw.randrange(10) for _ in range(count))
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", struct.pack(">IIII", 2051, count, 28, 28) + images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", struct.pack(">II", 2049, count) + labels)
    monkeypatch.setattr(mnist, "HEADERS", headers)
    return folder


def write_idx(file: Path, content: bytes) -> None:
    file.write_bytes(gzip.compress(content))


@pytest.mark.parametrize("cls", [FashionMNIST, MNIST])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("beside", ["no file", "some files", "all files"])
def test_mnist_kinds_are_read_as_published_packed_or_not_in_raw_or_beside_it(
    cls: type[mnist._IDX], packed: bool, beside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_idx(tmp_path, cls, monkeypatch)
    images, labels = (
        gzip.decompress((folder / f"train-{name}-ubyte.gz").read_bytes()) for name in ("images-idx3", "labels-idx1")
    )
    if not packed:
        for file in folder.iterdir():
            file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
            file.unlink()
    for file in sorted(folder.iterdir())[: {"no file": 0, "some files": 2, "all files": 4}[beside]]:
        file.rename(folder.parent / file.name)
    if beside == "all files":
        folder.rmdir()
    before = files_below(tmp_path)
    assert cls.locate(tmp_path) == (folder.parent if beside == "all files" else folder)
    data = cls(tmp_path, 4)
    assert data.train.input_N.shape == (6, 1, 28, 28) and data.test.input_N.shape == (4, 1, 28, 28)
    assert data.train.input_N.flatten().tolist() == list(images[16:]) and data.train.label_N.tolist() == list(
        labels[8:]
    )
    assert files_below(tmp_path) == before


def test_only_the_missing_mnist_file_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_idx(tmp_path, MNIST, monkeypatch)
    file = folder / "t10k-labels-idx1-ubyte.gz"
    content = file.read_bytes()
    file.unlink()
    assert f"{file} is not there" in refusal(MNIST, tmp_path, 4)
    published = torchvision.datasets.MNIST.resources
    resources = [(name, md5(content) if name == file.name else "") for name, _ in published]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    serve(monkeypatch, Response(content))
    assert len(MNIST(tmp_path, 4).test) == 4 and file.read_bytes() == content


def test_broken_mnist_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_idx(tmp_path, MNIST, monkeypatch)
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"
    whole, content = images.read_bytes(), gzip.decompress(images.read_bytes())
    breaks = [
        whole[:-100],  # a packed file that was cut
        b"not packed at all",
        b"",
        whole[:20] + bytes(50) + whole[70:],
        gzip.compress(content[:-1]),
        gzip.compress(content + b"1"),
        gzip.compress(content[:10]),
        gzip.compress(struct.pack(">IIII", 2051, 6, 32, 32) + content[16:]),
    ]
    for broken in breaks:
        images.write_bytes(broken)
        assert f"{images} is broken" in refusal(MNIST, tmp_path, 4)
    images.write_bytes(whole)
    write_idx(labels, struct.pack(">II", 2049, 6) + bytes([0, 1, 2, 3, 4, 10]))
    message = refusal(MNIST, tmp_path, 4)
    assert f"{labels} is broken" in message and "label 10" in message


def test_real_fashion_mnist_equals_a_plain_reading_and_leaves_its_folder_alone(real_data: Path) -> None:
    before = files_below(real(real_data, FashionMNIST) / "FashionMNIST")
    data = FashionMNIST(real_data, 4)
    assert files_below(real_data / "FashionMNIST") == before
    file = real_data / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    if file.exists():
        with gzip.open(file) as source:
            assert struct.unpack(">IIII", source.read(16)) == (2051, 10_000, 28, 28)
            assert data.test.input_N.numpy().tobytes() == source.read()
        with gzip.open(file.with_name("train-labels-idx1-ubyte.gz")) as source:
            assert data.train.label_N.tolist() == list(source.read()[8:])
    assert torch.bincount(data.train.label_N).tolist() == [6000] * 10
    mean, std = channel_statistics(data.train, FashionMNIST.scale)
    assert mean == pytest.approx(FashionMNIST.mean, abs=2e-4) and std == pytest.approx(FashionMNIST.std, abs=2e-4)
