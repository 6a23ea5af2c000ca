"""A folder of images becomes the pixels that PIL reads from it, by a split and a cache that follow from the files alone."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sadp_bench.datasets import decoding, image_pool, pixel_cache
from sadp_bench.datasets.image_files import find_images
from sadp_bench.datasets.imagefolder import ImageFolder
from sadp_bench.datasets.loading import load
from sadp_bench.datasets.splits import hashed_split
from sadp_bench.runs.material import load_material
from sadp_bench.runs.resolve import resolve
from sadp_bench.testing import check_dataset
from sadp_bench.training.augmentation import draw_augmentation
from sadp_bench.training.data import Loader
from tests.commands import TINY, command, the_record
from tests.datasets.helpers import channel_statistics, files_below, refusal
from tests.datasets.images import classes, encoded, picture, write

SETTINGS = {"folder": "mine", "side": 8, "split": "", "sha256": "", "test_list": ""}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of decoded images, which is this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sadp-bench" / "images"


def loaded(root: Path, **settings: Any) -> Any:
    return load(ImageFolder, "imagefolder", root, 4, SETTINGS | settings)


def by_pil(file: Path, side: int) -> np.ndarray:
    """Returns the central square as PIL resizes it, [C, side, side]."""
    image = Image.open(file).convert("RGB")
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return np.asarray(square.resize((side, side), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def difference(found: torch.Tensor, file: Path, side: int) -> int:
    return int(np.abs(found.numpy().astype(int) - by_pil(file, side)).max())


def test_train_and_val_are_the_folders_of_that_name_and_pixels_are_pils(tmp_path: Path) -> None:
    files = {
        "train/cat/1.png": encoded(picture(20, 30)),
        "train/cat/deep er/2.jpg": encoded(picture(33, 21, seed=1), "JPEG", quality=95),
        "train/dög/3.webp": encoded(picture(16, 16, seed=2), "WEBP", lossless=True),
        "val/dög/4.PNG": encoded(picture(8, 8, seed=3)),
        "val/.hidden/5.png": b"",
        "val/readme.txt": b"",
    }
    folder = write(tmp_path / "mine", files)
    data = loaded(tmp_path)
    assert data.class_names == ("cat", "dög") and data.found["split"] == "train/val"
    assert data.train.label_N.tolist() == [0, 0, 1] and data.test.label_N.tolist() == [1]
    names = ["train/cat/1.png", "train/cat/deep er/2.jpg", "train/dög/3.webp"]
    for found, name in zip(data.train.input_N, names, strict=True):
        assert found.dtype == torch.uint8 and found.shape == (3, 8, 8)
        assert difference(found, folder / name, 8) <= (2 if name.endswith("jpg") else 1), name
    assert difference(data.test.input_N[0], folder / "val/dög/4.PNG", 8) == 0  # has that size already
    mean, std = channel_statistics(data.train, 255.0)
    assert data.mean == pytest.approx(mean) and data.std == pytest.approx(std)


def test_one_folder_is_split_by_the_hashes_of_its_names(tmp_path: Path) -> None:
    write(tmp_path / "mine", classes(12, 1, 30))
    data = loaded(tmp_path)
    names = sorted(files_below(tmp_path / "mine"))
    names = [name for name in names if name.endswith(".png")]
    _, test = hashed_split(names, [ord(name[0]) for name in names])
    assert data.found["split"] == "sha1-9:1" and len(test) == 1 + 0 + 3
    assert [data.class_names[label] for label in data.test.label_N] == [names[place][0] for place in test]
    for found, place in zip(data.test.input_N, test, strict=True):
        assert difference(found, tmp_path / "mine" / names[place], 8) <= 1
    write(tmp_path / "more", {f"train/{name}": content for name, content in classes(2, 2).items()})
    assert "sha1-9:1" in refusal(find_images, tmp_path / "more")
    assert find_images(tmp_path / "more" / "train", "sha1-9:1").class_names == ("a", "b")


def test_test_is_taken_where_val_has_no_classes_and_either_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", classes(3, 2, prefix="train/") | classes(1, 1, prefix="test/"))
    (folder / "val").mkdir()
    assert find_images(folder).split == "train/test"
    write(folder, classes(0, 1, prefix="val/"))
    assert find_images(folder).split == "train/val" and find_images(folder, "train/test").split == "train/test"
    assert [file.label for file in find_images(folder).test] == [1]
    assert "dataset.split is train/val, train/test, sha1-9:1" in refusal(find_images, folder, "val/train")


def test_names_and_sizes_make_the_run_wherever_the_folder_lies(tmp_path: Path) -> None:
    write(tmp_path / "mine", classes(12, 12))
    shutil.copytree(tmp_path / "mine", tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    run: dict[str, Any] = {"method": "full", "ratio": 0.0, "dataset": "imagefolder", "batch_size": 4, "device": "cpu"}
    network: dict[str, Any] = {"backbone.width": 4, "dataset.side": 8}
    specs = [
        resolve({**run, "set": {**network, "dataset.folder": place}}, tmp_path)[0]
        for place in ("mine", str(tmp_path / "copy"))
    ]
    assert specs[0].key == specs[1].key and specs[0].dataset_options["test_list"]
    other = {**run, "set": {**network, "dataset.folder": "mine", "dataset.side": 12}}
    assert resolve(other, tmp_path)[0].key != specs[0].key
    (tmp_path / "copy" / "a" / "000.png").unlink()
    again = {**run, "set": {f"dataset.{name}": value for name, value in specs[1].dataset_options.items()}}
    assert "has other images: its sha256 is" in refusal(resolve, again, tmp_path)
    check_dataset("imagefolder", {"folder": "mine", "side": 8}, data=tmp_path)
    assert ImageFolder.locate(tmp_path, folder="mine") == tmp_path / "mine" and ImageFolder.locate(tmp_path) is None


class Counting:
    """Stands in for `decode_file`, counts its calls, and fails at one of them."""

    def __init__(self, error: type[BaseException] | None = None, at: int = -1) -> None:
        self.files: list[Path] = []
        self.error, self.at, self.lock = error, at, threading.Lock()

    def __call__(self, file: Path, side: int) -> torch.Tensor:
        with self.lock:
            self.files.append(file)
            number = len(self.files)
        if self.error is not None and number == self.at:
            raise self.error
        return decoding.decode_file(file, side)


def test_the_second_load_decodes_nothing_and_a_changed_file_is_decoded_anew(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "mine", classes(6, 6))
    first, counting = loaded(tmp_path), Counting()
    monkeypatch.setattr(pixel_cache, "decode_file", counting)
    again = loaded(tmp_path)
    assert not counting.files and again.train.digest().digest() == first.train.digest().digest()
    assert [file.suffix for file in sorted(cache.iterdir())] == [".u8", ".lock"]
    os.utime(folder / "a" / "000.png", ns=(1, 1))
    loaded(tmp_path)
    assert len(counting.files) == 12 and len(list(cache.glob("*.u8"))) == 2


def test_an_interrupted_cache_goes_on_where_it_was(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "mine", classes(9, 9))
    expected = loaded(tmp_path).train.digest().digest()
    for torn in (0, 5):  # bytes of a row that a kill left
        shutil.rmtree(cache)
        monkeypatch.setattr(image_pool, "CHUNK", 4)
        monkeypatch.setattr(pixel_cache, "decode_file", Counting(KeyboardInterrupt, at=11))
        with pytest.raises(KeyboardInterrupt):
            loaded(tmp_path)
        [part] = cache.glob("*.part")
        assert part.stat().st_size == 8 * 8 * 8 * 3 and not list(cache.glob("*.u8"))
        with part.open("ab") as sink:
            sink.write(b"x" * torn)
        capsys.readouterr()
        counting = Counting()
        monkeypatch.setattr(pixel_cache, "decode_file", counting)
        assert loaded(tmp_path).train.digest().digest() == expected and len(counting.files) == 18 - 8
        assert "18 images of" in (said := capsys.readouterr().err) and "8 are there" in said
        assert not list(cache.glob("*.part"))


def test_a_cache_larger_than_memory_stays_on_the_disk_and_gives_the_same_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine", classes(30, 30))
    whole = loaded(tmp_path)
    monkeypatch.setattr(pixel_cache, "MEMORY_SHARE", 0.0)
    mapped = loaded(tmp_path)
    assert whole.train.row_N is None and mapped.train.row_N is not None
    assert mapped.test.input_N.data_ptr() == mapped.train.input_N.data_ptr()
    for on, limit in (("test", None), ("validation", None), ("test", 11), ("validation", 11)):
        parts = [load_material(data, "imagefolder", on, limit) for data in (whole, mapped)]
        assert parts[0].sha256 == parts[1].sha256, (on, limit)
        assert parts[1].train.input_N.data_ptr() == mapped.train.input_N.data_ptr()
        loaders = [Loader(part.train, 255.0, whole.mean, whole.std, torch.device("cpu")) for part in parts]
        drawn = draw_augmentation(
            "crop-flip", len(loaders[0]), loaders[0].padding, loaders[0].sides, torch.Generator().manual_seed(0)
        )
        index_B = torch.tensor([3, 0, 10, 3])
        assert torch.equal(loaders[0].input(index_B, drawn), loaders[1].input(index_B, drawn))
        assert loaders[1]._input_N.data_ptr() == mapped.train.input_N.data_ptr()


def test_runs_on_a_mapped_and_on_a_whole_cache_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine", classes(30, 30))
    words = [
        "run",
        "--method",
        "sadp",
        "--ratio",
        0.3,
        "--dataset",
        "imagefolder",
        *TINY,
        "--quiet",
        "--data",
        tmp_path,
    ]
    words += ["--train-examples", 50, "--batch-size", 8, "--set", "dataset.folder=mine", "--set", "dataset.side=8"]
    records = []
    for share in (0.25, 0.0):
        monkeypatch.setattr(pixel_cache, "MEMORY_SHARE", share)
        answer = command(*words, "--out", tmp_path / f"runs {share}")
        assert answer.code == 0, answer.err
        records.append(the_record(tmp_path / f"runs {share}", "sadp")[1])
    for name in ("key", "spec", "data_sha256", "test_accuracy", "visits"):
        assert records[0][name] == records[1][name], name
    losses = [[row["train_loss"] for row in record["epochs"]] for record in records]
    assert losses[0] == losses[1] and records[0]["spec"]["dataset_options"]["split"] == "sha1-9:1"
    report = command("report", tmp_path / "runs 0.0", "--format", "markdown")
    test_list = records[0]["spec"]["dataset_options"]["test_list"]
    assert f"Split of imagefolder: sha1-9:1; test list {test_list}." in " ".join(report.out.split()), report


def test_of_several_processes_one_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine", classes(6, 6))
    counting = Counting()
    monkeypatch.setattr(pixel_cache, "decode_file", counting)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(loaded(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(counting.files) == 12
    assert len({data.train.digest().digest() for data in found}) == 1


def test_a_cache_that_cannot_be_written_or_is_broken_is_one_line(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine", classes(6, 6))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 7))  # type: ignore[attr-defined]
    assert "needs 0.00 GiB in" in refusal(loaded, tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    loaded(tmp_path)
    [file] = cache.glob("*.u8")
    file.write_bytes(b"short")
    assert f"{file} is broken: 5 bytes instead of 2,304; delete it" in refusal(loaded, tmp_path)
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))
    assert "set XDG_CACHE_HOME to another folder" in refusal(loaded, tmp_path)
    for side in (3, 1025):
        assert f"dataset.side is from 4 to 1024 pixels, not {side}" in refusal(
            lambda at: loaded(tmp_path, side=at), side
        )


def test_tiny_imagenet_is_read_as_pil_reads_it(real_data: Path) -> None:
    folder = real_data / "tiny-imagenet"
    if not folder.is_dir():
        pytest.skip("SADP_BENCH_DATA has no tiny-imagenet")
    data = load(ImageFolder, "imagefolder", real_data, 4, SETTINGS | {"folder": "tiny-imagenet", "side": 64})
    names = [file.name for file in find_images(folder).train]
    assert len(data.class_names) == len(os.listdir(folder / "train")) and len(data.train) == len(names)
    for place in range(0, len(names), len(names) // 40):
        assert difference(data.train.input_N[place], folder / names[place], 64) <= 2, names[place]
