"""Every set of images trains: SADP, random and InfoBatch at half of the visits learn bars at the places of their classes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sadp_bench.datasets import cifar, mnist
from sadp_bench.datasets.cifar import CIFAR10, CIFAR100
from tests.commands import command
from tests.datasets.images import encoded, write
from tests.datasets.test_event_runs import above_chance, trained

TRAIN, TEST, SIDE = 200, 50, 32
RUN: dict[str, Any] = {"backbone": "mlp", "timesteps": 2, "epochs": 8, "augment": "none", "learning_rate": 0.05}
SETTINGS = {"backbone.width": 32}
Images = dict[str, tuple[np.ndarray, np.ndarray]]


def bars(classes: int = 10, side: int = SIDE, channels: int = 3) -> Images:
    """Returns images [N, H, W, C] and labels [N] of "train" and "test": noise and a bar at the class's place."""
    draw, parts = np.random.default_rng(0), {}
    for part, number in (("train", TRAIN), ("test", TEST)):
        label_N = np.arange(number) % classes
        image_N = draw.integers(0, 100, (number, side, side, channels), np.uint8)
        for image, label in zip(image_N, label_N, strict=True):
            image[:, label * side // classes : (label + 1) * side // classes] += 100
        parts[part] = image_N, label_N
    return parts


def write_npz(root: Path, _: pytest.MonkeyPatch) -> dict[str, Any]:
    arrays = {f"{axis}_{part}": of for part, pair in bars().items() for axis, of in zip("xy", pair, strict=True)}
    np.savez(root / "data.npz", **arrays)
    return {}


def write_folder(root: Path, _: pytest.MonkeyPatch) -> dict[str, Any]:
    for part, (image_N, label_N) in bars().items():
        folder = "train" if part == "train" else "val"
        rows = enumerate(zip(image_N, label_N, strict=True))
        write(root / "imagefolder", {f"{folder}/{label}/{row}.png": encoded(image) for row, (image, label) in rows})
    return {"dataset.side": SIDE}


def write_pack(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    write_folder(root, patch)
    assert command("pack", root / "imagefolder", "--side", SIDE, "--to", root / "it.pack").code == 0
    return {"dataset.file": "it.pack"}


def write_idx(folder: str) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    """Returns a maker of MNIST's four files, unpacked, with as many images."""

    def make(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        raw = root / folder / "raw"
        raw.mkdir(parents=True)
        headers: dict[str, tuple[int, ...]] = {}
        for part, (image_N, label_N) in bars(side=28, channels=1).items():
            name = "train" if part == "train" else "t10k"
            for kind, header, content in (
                ("images-idx3-ubyte", (2051, len(image_N), 28, 28), image_N.tobytes()),
                ("labels-idx1-ubyte", (2049, len(label_N)), label_N.astype(np.uint8).tobytes()),
            ):
                headers[f"{name}-{kind}"] = header
                (raw / f"{name}-{kind}").write_bytes(struct.pack(f">{len(header)}I", *header) + content)
        patch.setattr(mnist, "HEADERS", headers)
        return {}

    return make


def write_cifar(cls: type[cifar._CIFAR], classes: int) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    """Returns a maker of CIFAR's binary files with as many images."""

    def make(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        (root / cls.folder).mkdir()
        rows = TRAIN // len(cls.train_files)
        patch.setattr(cifar, "TEST_ROWS", TEST)
        patch.setattr(cls, "rows_per_train_file", rows)
        images = bars(classes)
        for part, files in (("train", cls.train_files), ("test", cls.test_files)):
            for number, name in enumerate(files):
                of_file = slice(number * rows, (number + 1) * rows) if part == "train" else slice(None)
                pairs = zip(*(column[of_file] for column in images[part]), strict=True)
                head = b"\0" if cls is CIFAR100 else b""
                content = [head + bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in pairs]
                (root / cls.folder / name).write_bytes(b"".join(content))
        return {}

    return make


MADE: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "npz": write_npz,
    "imagefolder": write_folder,
    "pack": write_pack,
    "mnist": write_idx("MNIST"),
    "fashion-mnist": write_idx("FashionMNIST"),
    "torchvision:MNIST": write_idx("MNIST"),
    "cifar10": write_cifar(CIFAR10, 10),
    "cifar100": write_cifar(CIFAR100, 10),
}


@pytest.mark.parametrize("dataset", MADE)
def test_methods_at_half_of_the_visits_learn_above_chance(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = RUN | {"set": SETTINGS | MADE[dataset](tmp_path, monkeypatch)}
    for method in ("sadp", "random", "infobatch"):
        accuracy, tested = trained(method, dataset, tmp_path, wanted)
        assert above_chance(accuracy, 10, tested), f"{method}: {accuracy:.2f} of {tested}"
