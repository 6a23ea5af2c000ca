"""The data sets against independent readings of their files, and what they say about bad ones."""

from __future__ import annotations

import ast
import gzip
import hashlib
import importlib
import io
import os
import random
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sadp_bench.datasets import DATASETS, base, cifar, mnist, nmnist
from sadp_bench.datasets.base import Dataset, data_root, download, download_archive
from sadp_bench.datasets.cifar import CIFAR10, CIFAR100
from sadp_bench.datasets.digits import Digits
from sadp_bench.datasets.mnist import MNIST, FashionMNIST
from sadp_bench.datasets.nmnist import NMNIST, frames
from sadp_bench.errors import BadInput
from sadp_bench.examples import AUGMENTATIONS, Examples

URL = "https://example.org/file.bin"
DIGITS_FIRST_TEST_LABELS = [7, 6, 3, 7, 7, 3, 2, 8, 9, 3]
DIGITS_TEST_MD5 = "480f96ac39ea1cda5059f267f6d90c2e"
CLASSES: list[type[Dataset]] = [
    getattr(importlib.import_module(path.partition(":")[0]), path.partition(":")[2]) for path in DATASETS.values()
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(base, "urlopen", refuse)


class Response(io.BytesIO):
    def __init__(self, content: bytes, url: str = URL) -> None:
        super().__init__(content)
        self.url = url

    def geturl(self) -> str:
        return self.url


def serve(monkeypatch: pytest.MonkeyPatch, response: Any) -> None:
    monkeypatch.setattr(base, "urlopen", lambda url, timeout: response)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def refusal(call: Any, *arguments: Any) -> str:
    """The one line of the BadInput that the call raises."""
    with pytest.raises(BadInput) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def real(real_data: Path, cls: type[Dataset]) -> Path:
    if cls.locate(real_data) is None:
        pytest.skip(f"SADP_BENCH_DATA has no files of {cls.__name__}")
    return real_data


def channel_statistics(examples: Examples, scale: float) -> tuple[np.ndarray, np.ndarray]:
    values = examples.input_N.numpy()
    mean = values.mean((0, 2, 3), dtype=np.float64) / scale
    square = np.stack([(values[:, c].astype(np.float32) ** 2).mean(dtype=np.float64) for c in range(values.shape[1])])
    return mean, np.sqrt(square / scale**2 - mean**2)


# ---------------------------------------------------------------------------------------------- all of them


def test_the_table_imports_nothing_heavy() -> None:
    code = "import sys, sadp_bench.datasets; print([m for m in ('torch', 'numpy', 'torchvision') if m in sys.modules])"
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    shown = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    assert shown.stdout.decode().strip() == "[]", shown.stderr.decode()


@pytest.mark.parametrize("cls", CLASSES, ids=list(DATASETS))
def test_every_data_set_declares_what_a_run_needs(cls: type[Dataset]) -> None:
    assert cls.augment in AUGMENTATIONS
    assert cls.epochs > 0 and cls.batch_size > 0 and cls.timesteps > 0 and cls.learning_rate > 0 and cls.scale > 0
    assert len(cls.mean) == len(cls.std) and min(cls.std) > 0
    assert len(set(cls.class_names)) == len(cls.class_names) in (10, 100)


@pytest.mark.parametrize("path", DATASETS.values(), ids=list(DATASETS))
def test_every_docstring_has_one_line_of_size_and_one_of_source(path: str) -> None:
    module, _, name = path.partition(":")
    source = importlib.import_module(module).__file__
    assert source is not None
    nodes = ast.parse(Path(source).read_text(encoding="utf-8")).body
    (node,) = (node for node in nodes if isinstance(node, ast.ClassDef) and node.name == name)
    lines = (ast.get_docstring(node) or "").splitlines()
    assert any(sign.isdigit() for sign in lines[0]) and lines[0].endswith(".") and lines[1] == ""
    assert sum(line.startswith("Source: ") and "https://" in line or "http://" in line for line in lines) == 1


def test_no_global_random_state_is_touched() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # type: ignore[index]
    Digits(Path("nowhere"), 4)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # type: ignore[index]
    assert before == after


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100, FashionMNIST, MNIST, NMNIST])
def test_an_absent_data_set_without_network_names_file_address_and_ways_out(cls: type[Dataset], tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert cls.locate(root) is None
    message = refusal(cls, root, 4)
    assert str(root) in message and "https://" in message and "--data" in message and "--dataset digits" in message
    assert not root.exists()


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100, FashionMNIST, MNIST, NMNIST])
def test_a_data_path_that_is_a_file_is_refused(cls: type[Dataset], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert str(file) in refusal(data_root, file)
    assert cls.locate(file) is None
    assert str(file) in refusal(cls, file, 4)


def test_the_data_folder_is_the_given_one_else_the_environments_else_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SADP_BENCH_DATA", str(tmp_path / "environment"))
    assert data_root(tmp_path / "given") == tmp_path / "given"
    assert data_root(None) == tmp_path / "environment"
    monkeypatch.setenv("SADP_BENCH_DATA", "")
    assert data_root(None) == tmp_path / "cache" / "sadp-bench" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root(None) == tmp_path / ".cache" / "sadp-bench" / "data"


def test_a_data_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "may not be read" in refusal(data_root, tmp_path)


# ---------------------------------------------------------------------------------------------- downloads


def test_a_download_is_whole_and_alone_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytes(range(256)) * 5000
    serve(monkeypatch, Response(content))
    download(URL, md5(content), tmp_path / "new" / "file.bin")
    assert (tmp_path / "new" / "file.bin").read_bytes() == content
    assert files_below(tmp_path) == ["new", "new/file.bin"]
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and URL in shown.err


def test_an_archive_is_unpacked_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in (("set/a.bin", b"new a"), ("set/b.bin", b"new b")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.bin").write_bytes(b"old a")
    serve(monkeypatch, Response(packed.getvalue()))
    download_archive(URL, md5(packed.getvalue()), tmp_path / "set" / "b.bin", tmp_path)
    assert files_below(tmp_path) == ["set", "set/a.bin", "set/b.bin"]
    assert (tmp_path / "set" / "a.bin").read_bytes() == b"new a"


def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../../escaped"))
    serve(monkeypatch, Response(packed.getvalue()))
    root = tmp_path / "root"
    refusal(download_archive, URL, md5(packed.getvalue()), root / "set" / "b.bin", root)
    assert files_below(tmp_path) == ["root"]


def test_a_wrong_checksum_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, Response(b"changed"))
    message = refusal(download, URL, md5(b"original"), tmp_path / "file.bin")
    assert md5(b"original") in message and URL in message and str(tmp_path / "file.bin") in message
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("failure", [ConnectionResetError(104, "Connection reset by peer"), TimeoutError("timed out")])
def test_a_broken_download_leaves_nothing(failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking(Response):
        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(1000)
            if not piece:
                raise failure
            return piece

    serve(monkeypatch, Breaking(bytes(5000)))
    message = refusal(download, URL, md5(bytes(5000)), tmp_path / "file.bin")
    assert (failure.strerror or str(failure)) in message  # type: ignore[attr-defined]
    assert files_below(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Response):
        def read(self, size: int | None = -1, /) -> bytes:
            raise KeyboardInterrupt

    serve(monkeypatch, Interrupted(b""))
    with pytest.raises(KeyboardInterrupt):
        download(URL, md5(b""), tmp_path / "file.bin")
    assert files_below(tmp_path) == []


def test_only_https_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, Response(b"content", url="http://example.org/file.bin"))
    assert "https" in refusal(download, URL, md5(b"content"), tmp_path / "file.bin")
    assert "https" in refusal(download, "http://example.org/file.bin", md5(b"content"), tmp_path / "file.bin")
    assert files_below(tmp_path) == []
    for cls in (CIFAR10, CIFAR100, FashionMNIST, MNIST):
        assert getattr(cls, "url", getattr(cls, "mirror", "")).startswith("https://")


def test_an_answer_that_never_comes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(base, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(base, "urlopen", lambda url, timeout: release.wait(30))
    started = time.perf_counter()
    assert "no answer" in refusal(download, URL, md5(b""), tmp_path / "file.bin")
    assert time.perf_counter() - started < 5
    release.set()


@pytest.mark.slow
@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])  # a name and an address that are reserved for tests
def test_a_host_that_is_not_there_is_given_up_within_ten_seconds(host: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from time import monotonic\n"
        "from sadp_bench.datasets.base import download\n"
        "started = monotonic()\n"
        "try: download(sys.argv[1], '', Path(sys.argv[2]))\n"
        "except ValueError as error: print(type(error).__name__, monotonic() - started)"
    )
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, f"https://{host}/file", str(tmp_path / "file")]
    shown = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60)
    name, seconds = shown.stdout.split()
    assert name == "BadInput" and float(seconds) < 10
    assert files_below(tmp_path) == []


# ---------------------------------------------------------------------------------------------- digits


def test_digits_are_scikit_learns_own_each_once() -> None:
    digits = Digits(Path("nowhere"), 4)
    assert digits.train.input_N.shape == (1437, 1, 8, 8) and digits.test.input_N.shape == (360, 1, 8, 8)
    assert digits.train.input_N.dtype == torch.uint8 and Digits.locate(Path("nowhere")) is not None
    found = Counter(
        (int(label), image.numpy().tobytes())
        for part in (digits.train, digits.test)
        for image, label in zip(part.input_N, part.label_N, strict=True)
    )
    images, labels = load_digits(return_X_y=True)
    assert found == Counter(
        (int(label), bytes(int(value) for value in row)) for row, label in zip(images, labels, strict=True)
    )


def test_digits_split_never_changes_and_keeps_the_classes_in_proportion() -> None:
    first, second = Digits(Path("nowhere"), 4), Digits(Path("elsewhere"), 8)
    assert torch.equal(first.train.input_N, second.train.input_N) and torch.equal(
        first.test.label_N, second.test.label_N
    )
    assert first.test.label_N[:10].tolist() == DIGITS_FIRST_TEST_LABELS
    assert md5(first.test.input_N.numpy().tobytes()) == DIGITS_TEST_MD5
    share = np.bincount(first.test.label_N) / (np.bincount(first.test.label_N) + np.bincount(first.train.label_N))
    assert np.abs(share - 0.2).max() < 0.01


def test_digits_mean_and_std_are_those_of_the_training_set() -> None:
    mean, std = channel_statistics(Digits(Path("nowhere"), 4).train, Digits.scale)
    assert mean == pytest.approx(Digits.mean, abs=1e-4) and std == pytest.approx(Digits.std, abs=1e-4)


# ---------------------------------------------------------------------------------------------- CIFAR


def small_cifar(root: Path, cls: type[cifar._CIFAR], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The publisher's files with one row in ten thousand, real in form, random in content."""
    monkeypatch.setattr(cifar, "TEST_ROWS", 1)
    monkeypatch.setattr(cls, "rows_per_train_file", cls.rows_per_train_file // 10_000)
    folder = root / cls.folder
    folder.mkdir(parents=True)
    draw = random.Random(0)
    for name in cls.train_files + cls.test_files:
        rows = 1 if name in cls.test_files else cls.rows_per_train_file
        labels = [
            [draw.randrange(20), draw.randrange(100)] if cls is CIFAR100 else [draw.randrange(10)] for _ in range(rows)
        ]
        (folder / name).write_bytes(b"".join(bytes(label) + draw.randbytes(3072) for label in labels))
    return folder


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100])
def test_cifar_rows_are_read_as_published(
    cls: type[cifar._CIFAR], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_cifar(tmp_path, cls, monkeypatch)
    assert cls.locate(tmp_path) == folder
    data = cls(tmp_path, 4)
    content = b"".join((folder / name).read_bytes() for name in cls.train_files)
    width = 3073 if cls is CIFAR10 else 3074
    assert len(data.train) == 5 and len(data.test) == 1
    for n in range(5):
        row = content[n * width : (n + 1) * width]
        *_, label = row[: width - 3072]
        assert int(data.train.label_N[n]) == label
        for c, y, x in ((0, 0, 0), (0, 0, 31), (1, 17, 3), (2, 31, 31)):
            assert int(data.train.input_N[n, c, y, x]) == row[width - 3072 + 1024 * c + 32 * y + x]


@pytest.mark.parametrize("cut", [1, 3073, 3073 * 5000])
def test_a_truncated_cifar_file_is_named(cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small_cifar(tmp_path, CIFAR10, monkeypatch) / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-cut])
    assert f"{file} is broken" in refusal(CIFAR10, tmp_path, 4)


def test_a_cifar_label_out_of_range_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small_cifar(tmp_path, CIFAR10, monkeypatch) / "test_batch.bin"
    file.write_bytes(bytes([10]) + file.read_bytes()[1:])
    message = refusal(CIFAR10, tmp_path, 4)
    assert str(file) in message and "label 10" in message


def test_an_unreadable_cifar_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small_cifar(tmp_path, CIFAR10, monkeypatch) / "data_batch_1.bin"

    def refuse(path: Path, dtype: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(np, "fromfile", refuse)
        assert f"cannot read {file}: Permission denied" in refusal(CIFAR10, tmp_path, 4)
    file.unlink()
    file.mkdir()
    assert f"cannot read {file}" in refusal(CIFAR10, tmp_path, 4)


def test_one_missing_cifar_file_is_the_one_that_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small_cifar(tmp_path, CIFAR10, monkeypatch) / "data_batch_5.bin"
    file.unlink()
    assert CIFAR10.locate(tmp_path) is None
    assert f"{file} is not there" in refusal(CIFAR10, tmp_path, 4)


def test_cifar100_has_100_names_in_the_order_of_the_alphabet() -> None:
    assert len(CIFAR100.class_names) == 100 and list(CIFAR100.class_names) == sorted(CIFAR100.class_names)


def test_real_cifar10_has_5000_of_each_class_and_the_stated_mean_and_std(real_data: Path) -> None:
    data = CIFAR10(real(real_data, CIFAR10), 4)
    assert data.train.input_N.shape == (50_000, 3, 32, 32) and data.train.input_N.is_contiguous()
    assert torch.bincount(data.train.label_N).tolist() == [5000] * 10
    assert torch.bincount(data.test.label_N).tolist() == [1000] * 10
    mean, std = channel_statistics(data.train, CIFAR10.scale)
    assert mean == pytest.approx(CIFAR10.mean, abs=2e-4) and std == pytest.approx(CIFAR10.std, abs=2e-4)
    with open(real_data / "cifar-10-batches-bin" / "data_batch_4.bin", "rb") as source:
        source.seek(1234 * 3073)
        label, *pixels = source.read(3073)
    assert int(data.train.label_N[31_234]) == label and data.train.input_N[31_234].flatten().tolist() == pixels


# ---------------------------------------------------------------------------------------------- MNIST kinds


def small_idx(root: Path, cls: type[mnist._IDX], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The publisher's four packed files with 6 and 4 random images."""
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
def test_mnist_kinds_are_read_as_published_packed_or_not(
    cls: type[mnist._IDX], packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_idx(tmp_path, cls, monkeypatch)
    images, labels = (
        gzip.decompress((folder / f"train-{name}-ubyte.gz").read_bytes()) for name in ("images-idx3", "labels-idx1")
    )
    if not packed:
        for file in folder.iterdir():
            file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
            file.unlink()
    before = files_below(tmp_path)
    assert cls.locate(tmp_path) == folder
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
    resources = [(name, md5(content) if name == file.name else "") for name, _ in MNIST.reader.resources]
    monkeypatch.setattr(MNIST.reader, "resources", resources)
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


# ---------------------------------------------------------------------------------------------- N-MNIST


def recording(*events: tuple[int, int, int, int]) -> bytes:
    """Events (x, y, polarity, microseconds) as the publisher packs them."""
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for x, y, p, t in events)


def decoded(content: bytes) -> list[tuple[int, int, int, int]]:
    words = (int.from_bytes(content[start : start + 5], "big") for start in range(0, len(content), 5))
    return [(word >> 32, word >> 24 & 255, word >> 23 & 1, word & 0x7FFFFF) for word in words]


def counted(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def small_nmnist(root: Path) -> Path:
    for part in ("Train", "Test"):
        for digit in range(10):
            folder = root / "NMNIST" / part / str(digit)
            folder.mkdir(parents=True)
            for number in (20, 3):
                (folder / f"{number:05}.bin").write_bytes(recording((digit, number, 1, 5), (33, 33, 0, 900)))
    return root / "NMNIST"


def test_events_fall_into_frames_of_equal_duration() -> None:
    content = recording((1, 2, 0, 100), (33, 0, 1, 349), (0, 33, 1, 350), (5, 5, 1, 1099), (5, 5, 1, 1099))
    found = frames(counted(content), 4)  # 1,000 microseconds, 250 a frame
    assert found.shape == (4, 2, 34, 34) and found.dtype == np.uint8 and found.sum() == 5
    assert found[0, 0, 2, 1] == found[0, 1, 0, 33] == found[1, 1, 33, 0] == 1 and found[3, 1, 5, 5] == 2


def test_the_order_of_events_in_a_file_does_not_matter() -> None:
    events = [(x, 33 - x, x % 2, 8_388_607 - 1000 * x) for x in range(34)]
    assert np.array_equal(frames(counted(recording(*events)), 5), frames(counted(recording(*events[::-1])), 5))


def test_a_single_event_is_in_the_first_frame() -> None:
    assert frames(counted(recording((3, 4, 1, 7))), 10)[0, 1, 4, 3] == 1


def test_counts_stop_at_255() -> None:
    assert frames(counted(recording(*[(0, 0, 1, 0)] * 300)), 1)[0, 1, 0, 0] == 255


def test_recordings_are_in_the_order_of_digit_and_id(tmp_path: Path) -> None:
    folder = small_nmnist(tmp_path)
    (folder / "Train" / "0" / "._00003.bin").write_bytes(b"left by an unpacker")
    assert NMNIST.locate(tmp_path) == folder
    data = NMNIST(tmp_path, 2)
    assert data.train.label_N.tolist() == [digit for digit in range(10) for _ in range(2)]
    for row, digit in enumerate(data.train.label_N.tolist()):
        assert data.train.input_N[row, 0, 1, (3, 20)[row % 2], digit] == 1
    assert data.train.has_events and data.train.input_shape == (2, 34, 34)


@pytest.mark.parametrize(
    "content", [b"", recording((1, 1, 1, 1))[:-1], recording((1, 1, 1, 1), (34, 0, 1, 2)), recording((0, 240, 0, 1))]
)
def test_a_broken_recording_is_named(content: bytes, tmp_path: Path) -> None:
    file = small_nmnist(tmp_path) / "Test" / "7" / "00020.bin"
    file.write_bytes(content)
    assert f"{file} is broken" in refusal(NMNIST, tmp_path, 4)


def test_an_empty_or_missing_class_folder_is_named(tmp_path: Path) -> None:
    folder = small_nmnist(tmp_path) / "Train" / "4"
    for file in folder.iterdir():
        file.unlink()
    assert f"{folder} has no recordings" in refusal(NMNIST, tmp_path, 4)
    folder.rmdir()
    assert NMNIST.locate(tmp_path) is None
    message = refusal(NMNIST, tmp_path, 4)
    assert f"{folder} is not there" in message and nmnist.PUBLISHER in message


def test_real_nmnist_frames_equal_a_plain_decoding(real_data: Path) -> None:
    root = real(real_data, NMNIST) / "NMNIST"
    data = NMNIST(real_data, 4)
    files = sorted(root.glob("Train/*/*.bin"))
    assert data.train.input_N.shape == (len(files), 4, 2, 34, 34)
    for row in (0, len(files) // 2, len(files) - 1):
        events = decoded(files[row].read_bytes())
        assert int(data.train.label_N[row]) == int(files[row].parent.name)
        first, last = min(t for *_, t in events), max(t for *_, t in events)
        cells = Counter(((t - first) * 4 // (last - first + 1), p, y, x) for x, y, p, t in events)
        found = data.train.input_N[row]
        assert int(found.sum()) == len(events)
        assert {cell: int(found[cell]) for cell in cells} == dict(cells)
