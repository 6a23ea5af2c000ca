"""Sets of other libraries give the images that a plain reader finds in their files; nothing is downloaded."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sadp_bench.datasets import expanded
from sadp_bench.datasets.adapted import HuggingFaceSet, TorchvisionSet
from sadp_bench.testing import check_dataset
from tests.commands import TINY, command, refused, the_record
from tests.datasets.helpers import refusal
from tests.datasets.images import encoded, picture

DRAW = np.random.default_rng(0)
GREY = {"train": DRAW.integers(0, 256, (90, 28, 28), np.uint8), "t10k": DRAW.integers(0, 256, (20, 28, 28), np.uint8)}


def write_mnist(root: Path) -> Path:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, images in GREY.items():
        count = len(images)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        labels = bytes(row % 10 for row in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels)
    return root


def write_signs(root: Path) -> Path:
    """Traffic signs of two classes in GTSRB's layout: colour, of different sizes."""
    base = root / "gtsrb"
    table = ["Filename;ClassId"]
    for label in (0, 1):
        for number in range(6):
            for folder in (f"Training/{label:05}", "Final_Test/Images"):
                name = f"{label}{number}.ppm"
                file = base / "GTSRB" / folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture(16 + number, 16 + label, seed=number)).save(file)
            table.append(f"{name};{label}")
    (base / "GT-final_test.csv").write_text("\n".join(table))
    return root


def test_a_torchvision_set_has_the_pixels_of_its_files(tmp_path: Path) -> None:
    data = TorchvisionSet(write_mnist(tmp_path), 4, name="MNIST")
    for part, examples in (("train", data.train), ("t10k", data.test)):
        assert torch.equal(examples.input_N, torch.from_numpy(GREY[part])[:, None])
        assert examples.label_N.tolist() == [row % 10 for row in range(len(examples))]
    assert data.class_names[:2] == ("0 - zero", "1 - one") and len(data.class_names) == 10
    assert data.mean == pytest.approx((GREY["train"].mean() / 255,)) and data.std == pytest.approx(
        (GREY["train"].std() / 255,)
    )
    check_dataset("torchvision", {"name": "MNIST"}, data=tmp_path)
    assert "its hash is" in refusal(lambda root: TorchvisionSet(root, 4, name="MNIST", sha256="a"), tmp_path)


def test_images_of_many_sizes_need_a_side(tmp_path: Path) -> None:
    write_signs(tmp_path)
    line = refusal(lambda root: TorchvisionSet(root, 4, name="GTSRB"), tmp_path)
    assert "has images of 16x16 and 17x16 pixels; give --set dataset.side=N" in line
    data = TorchvisionSet(tmp_path, 4, name="GTSRB", side=16)
    assert data.train.input_N.shape == (12, 3, 16, 16) and data.class_names == ("0", "1")
    assert np.array_equal(data.train.input_N[0].numpy().transpose(1, 2, 0), picture(16, 16))
    for side in (3, 2000):
        assert "from 4 to 1024" in refusal(
            lambda root, at: TorchvisionSet(root, 4, name="GTSRB", side=at), tmp_path, side
        )


def test_a_run_by_the_adapters_name_is_the_run_by_its_setting(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    words = ["run", "--method", "random", "--ratio", 0.5, *TINY, "--train-examples", 80, "--batch-size", 8, "--quiet"]
    words += ["--data", tmp_path]
    for number, dataset in enumerate((["torchvision:MNIST"], ["torchvision", "--set", "dataset.name=MNIST"])):
        answer = command(*words, "--dataset", *dataset, "--out", tmp_path / f"runs{number}")
        assert answer.code == 0, answer
    records = [the_record(tmp_path / f"runs{number}", "random")[1] for number in (0, 1)]
    assert records[0]["key"] == records[1]["key"] and records[0]["spec"]["dataset"] == "torchvision"
    assert expanded("hf:a/b") == ("hf", {"name": "a/b"}) and expanded("mine:Class") == ("mine:Class", {})
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        '[[sweep]]\nmethod = "random"\nratio = 0.5\ndataset = "torchvision:MNIST"\ntrain_examples = 80\nbatch_size = 8\n'
    )
    answer = command("sweep", sweep, "--dry-run", "--data", tmp_path, "--out", tmp_path / "none")
    assert answer.code == 0 and "2 runs" in answer.out + answer.err, answer
    leaks = command("doctor", "--leaks", "torchvision:MNIST", "--data", tmp_path, "--json")
    assert leaks.code == 0 and json.loads(leaks.out)["train_examples"] == 90, leaks


@pytest.mark.parametrize(
    "name, words",
    [
        ("Nothing", "torchvision.datasets has no class 'Nothing'"),
        ("", "torchvision.datasets has no class ''"),
        ("ImageFolder", "has neither `train` nor `split`"),
        ("SVHN", "nothing is downloaded here: do it in Python, torchvision.datasets.SVHN("),
        ("VOCDetection", "has neither `train` nor `split`"),
        ("CelebA", "nothing is downloaded here"),
    ],
)
def test_other_sets_of_torchvision_are_refused_in_one_line(tmp_path: Path, name: str, words: str) -> None:
    assert words in refusal(lambda root: TorchvisionSet(root, 4, name=name), tmp_path)
    assert "dataset.side is 0" in refusal(lambda root: TorchvisionSet(root, 4, name=name, side=1), tmp_path)
    assert not list(tmp_path.iterdir())
    refused(
        command(
            "run",
            "--method",
            "full",
            "--ratio",
            0,
            *TINY,
            "--dataset",
            f"torchvision:{name or 'x'}",
            "--data",
            tmp_path,
        )
    )


def test_without_the_library_hf_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'sadp-bench[hf]'" in refusal(lambda root: HuggingFaceSet(root, 4, name="a/b"), tmp_path)


def test_a_folder_of_hugging_face_is_read_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="needs the extra hf")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    images = {}
    for part, number in (("train", 6), ("test", 2)):
        for label in ("cat", "dog"):
            for place in range(number):
                file = tmp_path / "set" / part / label / f"{place}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                images[part, label, place] = picture(12, 12, seed=10 * len(label) + place)
                file.write_bytes(encoded(images[part, label, place]))
    data = HuggingFaceSet(tmp_path, 4, name=str(tmp_path / "set"))
    assert data.class_names == ("cat", "dog") and (len(data.train), len(data.test)) == (12, 4)
    found = {
        (int(label), pixels.numpy().tobytes())
        for label, pixels in zip(data.train.label_N, data.train.input_N, strict=True)
    }
    wanted = {
        (int(label == "dog"), image.transpose(2, 0, 1).tobytes())
        for (part, label, _), image in images.items()
        if part == "train"
    }
    assert found == wanted
    missing = refusal(lambda root: HuggingFaceSet(root, 4, name="nobody/nothing"), tmp_path)
    assert "is not in the cache of Hugging Face's datasets" in missing and "nothing is downloaded" in missing
    wrong = refusal(lambda root: HuggingFaceSet(root, 4, name=str(tmp_path / "set"), image="picture"), tmp_path)
    assert "has the columns image, label" in wrong
