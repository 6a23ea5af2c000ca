"""The data sets: what all declare and refuse, and scikit-learn's digits against scikit-learn itself."""

from __future__ import annotations

import ast
import importlib
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sadp_bench.datasets import DATASETS
from sadp_bench.datasets.base import Dataset, data_root
from sadp_bench.datasets.cifar import CIFAR10, CIFAR100
from sadp_bench.datasets.digits import Digits
from sadp_bench.datasets.mnist import MNIST, FashionMNIST
from sadp_bench.datasets.nmnist import NMNIST
from sadp_bench.records.fields import canonical_augment
from tests.datasets.helpers import channel_statistics, md5, refusal
from tests.paths import ROOT

pytestmark = pytest.mark.usefixtures("no_network")
DIGITS_FIRST_TEST_LABELS = [7, 6, 3, 7, 7, 3, 2, 8, 9, 3]
DIGITS_TEST_MD5 = "480f96ac39ea1cda5059f267f6d90c2e"
CLASSES: list[type[Dataset]] = [
    getattr(importlib.import_module(path.partition(":")[0]), path.partition(":")[2]) for path in DATASETS.values()
]
OWN = ("imagefolder", "npz", "pack", "torchvision", "hf")  # whose files decide classes and statistics


def test_the_table_imports_nothing_heavy() -> None:
    code = "import sys, sadp_bench.datasets; print([m for m in ('torch', 'numpy', 'torchvision') if m in sys.modules])"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    shown = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    assert shown.stdout.decode().strip() == "[]", shown.stderr.decode()


def test_every_data_set_declares_what_a_run_needs() -> None:
    for name, cls in zip(DATASETS, CLASSES, strict=True):
        assert canonical_augment(cls.augment) == cls.augment
        assert cls.epochs > 0 and cls.batch_size > 0 and cls.timesteps > 0 and cls.learning_rate > 0 and cls.scale > 0
        if name in OWN:
            continue
        assert len(cls.mean) == len(cls.std) and min(cls.std) > 0
        names = getattr(cls, "class_names", None)  # N-Caltech101's are its folders
        assert names is None or len(set(names)) == len(names) in (10, 11, 20, 27, 35, 100)


def test_every_docstring_has_one_line_of_size_and_one_of_source() -> None:
    for path in DATASETS.values():
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


@pytest.mark.usefixtures("unpacks")
def test_an_absent_data_set_and_a_path_that_is_a_file_are_refused_without_network(tmp_path: Path) -> None:
    root, file = tmp_path / "data", tmp_path / "file"
    file.write_text("")
    assert str(file) in refusal(data_root, file)
    for cls in (CIFAR10, CIFAR100, FashionMNIST, MNIST, NMNIST):
        assert cls.locate(root) is cls.locate(file) is None
        message = refusal(cls, root, 4)
        assert all(part in message for part in (str(root), "https://", "--data", "--dataset digits")), message
        assert str(file) in refusal(cls, file, 4) and not root.exists()


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


def test_digits_split_is_scikit_learns_own() -> None:
    images, labels = load_digits(return_X_y=True)
    wanted = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    digits = Digits(Path("nowhere"), 4)
    for part, inputs, targets in ((digits.train, wanted[0], wanted[2]), (digits.test, wanted[1], wanted[3])):
        assert part.input_N.flatten(1).tolist() == inputs.tolist() and part.label_N.tolist() == targets.tolist()


def test_digits_mean_and_std_are_those_of_the_training_set() -> None:
    mean, std = channel_statistics(Digits(Path("nowhere"), 4).train, Digits.scale)
    assert mean == pytest.approx(Digits.mean, abs=1e-4) and std == pytest.approx(Digits.std, abs=1e-4)
