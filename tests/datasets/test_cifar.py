"""CIFAR-10 and CIFAR-100 against an independent reading of their files, and the messages about bad ones."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sadp_bench.datasets import cifar
from sadp_bench.datasets.cifar import CIFAR10, CIFAR100
from tests.datasets.helpers import channel_statistics, real, refusal

pytestmark = pytest.mark.usefixtures("no_network")


def small_cifar(root: Path, cls: type[cifar._CIFAR], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes the publisher's files with one row in ten thousand, real in form, random in content."""
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


def test_a_truncated_cifar_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small_cifar(tmp_path, CIFAR10, monkeypatch) / "data_batch_3.bin"
    for cut in (1, 3073):
        file.write_bytes(file.read_bytes()[:-cut])
        assert f"{file} is broken" in refusal(CIFAR10, tmp_path, 4), cut


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
        assert f"can't read {file}: Permission denied" in refusal(CIFAR10, tmp_path, 4)
    file.unlink()
    file.mkdir()
    assert f"can't read {file}" in refusal(CIFAR10, tmp_path, 4)


@pytest.mark.usefixtures("unpacks")
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
