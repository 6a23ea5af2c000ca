"""A pack holds the images of a folder as Pillow reads them, trains as they do in memory, and reads what an epoch keeps."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets import decoding, packing
from sadp_bench.datasets.examples import Examples
from sadp_bench.datasets.image_files import find_images
from sadp_bench.datasets.pack_file import HEADER, Pack
from sadp_bench.datasets.pack_reader import PackReader
from sadp_bench.datasets.packed import PackedImages
from sadp_bench.testing import check_dataset
from tests.commands import TINY, command, refused, the_record
from tests.datasets.helpers import channel_statistics, files_below, refusal
from tests.datasets.images import classes, encoded, picture, write
from tests.small_runs import make_trainer, numbers, resolved

SIDE = 8
RUN = ["--dataset", "pack", "--batch-size", 8, "--train-examples", 50, "--set", "dataset.file=8.pack", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a place with the folder `mine`, three classes of 30, 30 and 12 images, and their pack, `8.pack`."""
    place = tmp_path_factory.mktemp("packs")
    files = classes(30, 30, 10) | {"c/1 ö.jpg": encoded(picture(33, 21, seed=9), "JPEG", quality=95)}
    write(place / "mine", files | {"c/2.webp": encoded(picture(20, 30, seed=4), "WEBP", lossless=True)})
    answer = command("pack", place / "mine", "--side", SIDE, "--to", place / "8.pack")
    assert answer.code == 0 and "72 images (65 to train, 7 to test, 3 classes)" in answer.out, answer
    return place


class Decoded(PackedImages):
    """The same pixels in memory.

    Source: the tests.
    """

    def __init__(
        self,
        root: Path,
        timesteps: int,
        *,
        file: str = "",
        sha256: str = "",
        split: str = "",
        test_list: str = "",
    ) -> None:
        super().__init__(root, timesteps, file=file, sha256=sha256, split=split, test_list=test_list)
        pack = Pack(Path(file))
        pixel_N = torch.stack([pack.pixels(row) for row in range(len(pack))]).permute(0, 3, 1, 2)
        number = len(self.train)
        self.train = Examples(pixel_N[:number], self.train.label_N)
        self.test = Examples(pixel_N[number:], self.test.label_N)


def parsed(file: Path) -> tuple[list[bytes], list[int], dict[str, Any]]:
    """Returns the images, labels and facts of a pack, read by the format's description alone."""
    content = file.read_bytes()
    magic, version, number, begin, length, digest = struct.unpack("<8sQQQQ32s", content[:72])
    assert (magic, version) == (b"SADPPACK", 1) and hashlib.sha256(content[begin:]).digest() == digest
    offsets = struct.unpack(f"<{number + 1}q", content[begin : begin + 8 * number + 8])
    place = begin + 8 * number + 8
    sums = struct.unpack(f"<{number}I", content[place : place + 4 * number])
    labels = struct.unpack(f"<{number}i", content[place + 4 * number : place + 8 * number])
    assert place + 8 * number + length == len(content)
    images = [content[first:last] for first, last in zip(offsets, offsets[1:], strict=False)]
    assert [zlib.crc32(image) for image in images] == list(sums)
    return images, list(labels), json.loads(content[place + 8 * number :])


def test_a_pack_holds_every_image_once_as_pillow_reads_it(folder: Path) -> None:
    images, labels, facts = parsed(folder / "8.pack")
    listing = find_images(folder / "mine")
    files = [*listing.train, *listing.test]
    assert labels == [file.label for file in files] and facts["num_train"] == len(listing.train) == 65
    assert facts["images_sha256"] == hashlib.sha256(b"".join(images)).hexdigest()
    assert (facts["split"], facts["test_list"]) == ("sha1-9:1", listing.test_list)
    pack = Pack(folder / "8.pack")
    for row, (image, file) in enumerate(zip(images, files, strict=True)):
        stored = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
        assert int(np.abs(pack.pixels(row).numpy().astype(int) - stored).max()) <= 2, file.name
        plain = decoding.decode_file(folder / "mine" / file.name, SIDE).numpy()
        again = Image.open(io.BytesIO(encoded(plain, "JPEG", quality=90))).convert("RGB")
        assert int(np.abs(stored.astype(int) - np.asarray(again)).max()) <= 2, file.name
    data = PackedImages(folder, 4, file="8.pack")
    plain_N = torch.stack([decoding.decode_file(folder / "mine" / file.name, SIDE) for file in listing.train])
    mean, std = channel_statistics(Examples(plain_N.permute(0, 3, 1, 2), torch.zeros(65).long()), 255.0)
    assert data.mean == pytest.approx(mean) and data.std == pytest.approx(std)
    assert data.class_names == ("a", "b", "c") and (len(data.train), len(data.test)) == (65, 7)


def test_the_same_images_make_the_same_pack_and_the_contract_holds(folder: Path, tmp_path: Path) -> None:
    answer = command("pack", folder / "mine", "--side", SIDE, "--to", tmp_path / "again.pack", "--json")
    assert json.loads(answer.out)["sha256"] == Pack(folder / "8.pack").sha256
    assert (tmp_path / "again.pack").read_bytes() == (folder / "8.pack").read_bytes()
    check_dataset("pack", {"file": "8.pack"}, data=folder)
    keys = {
        resolved(dataset="pack", train_examples=50, batch_size=8, set={"dataset.file": str(place)})[0].key
        for place in (folder / "8.pack", tmp_path / "again.pack")
    }
    assert len(keys) == 1
    assert PackedImages.locate(folder, file="8.pack") == folder / "8.pack" and PackedImages.locate(folder) is None
    for name in ("sha256", "split", "test_list"):
        line = refusal(lambda at: PackedImages(folder, 4, file="8.pack", **{at: "other"}), name)
        assert f"has other images: its {name} is" in line


@pytest.mark.parametrize(
    "method, augment",
    [("random", "mixup"), ("sadp", "crop-flip"), ("selective-backprop", "crop-flip"), ("el2n", "crop-flip")],
)
def test_a_run_on_a_pack_is_the_run_on_its_pixels_in_memory(folder: Path, method: str, augment: str) -> None:
    """The methods include one that passes untrained examples forward, and one that scores before training."""
    records = []
    for dataset in ("pack", f"{__name__}:Decoded"):
        more: dict[str, Any] = {"dataset": dataset, "augment": augment, "batch_size": 8, "train_examples": 50}
        settings = {"dataset.file": str(folder / "8.pack")}
        spec, material = resolved(method=method, ratio=0.5, set=settings, **more)
        records.append(numbers(make_trainer(spec, material).run()))
    for record in records:
        for name in ("spec", "key", "data_sha256"):
            del record[name]
    assert records[0]["epochs"][1]["kept"] <= 50
    assert records[0] == records[1]


def test_an_epoch_reads_the_images_that_it_keeps_and_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    jpeg = Pack.jpeg
    monkeypatch.setattr(Pack, "jpeg", lambda self, row: read.append(row) or jpeg(self, row))  # type: ignore[func-returns-value]
    settings = {"dataset.file": str(folder / "8.pack")}
    for method, ratio in (("full", 0.0), ("random", 0.5), ("selective-backprop", 0.5)):
        spec, material = resolved(
            dataset="pack", method=method, ratio=ratio, batch_size=8, train_examples=50, set=settings
        )
        trainer = make_trainer(spec, material)
        trainer.prepare()
        read.clear()
        row_N = material.train.row_N
        for row in trainer.rows():
            shown = row["kept"] if method == "random" else 50  # the last passes all forward, and decodes each once
            assert len(read) == len(set(read)) == shown, (method, len(read))
            assert row_N is not None and set(read) <= set(row_N.tolist())
            assert 0 < row["data_seconds"] < row["seconds"]
            read.clear()


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_that_are_decoded_ahead_are_those_that_are_asked_for(
    folder: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    pack = Pack(folder / "8.pack")
    pixel_N = torch.stack([pack.pixels(row) for row in range(len(pack))])
    batches = list(torch.randperm(72, generator=torch.Generator().manual_seed(0)).split(10))
    for asked in (batches, batches[:3] + batches[5:] + batches[3:5], batches[1:]):  # as planned, and otherwise
        reader = PackReader(pack)
        reader.expect(batches)
        assert all(torch.equal(reader.read(row_B, True), pixel_N[row_B]) for row_B in asked)
        assert all(torch.equal(reader.read(row_B, False), pixel_N[row_B]) for row_B in batches)
    reader = PackReader(pack)
    reader.expect(batches)
    reader.read(batches[0], True)
    reader.expect(batches[4:])
    assert torch.equal(reader.read(batches[4], True), pixel_N[batches[4]])
    begun = reader.num_decoded
    assert torch.equal(reader.read(batches[4][2:5], True), pixel_N[batches[4][2:5]]) and reader.num_decoded == begun


def test_of_a_slow_source_the_report_states_the_wait_and_that_pruning_saves_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, pause = Pack.pixels, threading.Event()
    words = ["run", "--method", "random", "--ratio", 0.5, *TINY, *RUN, "--data", folder, "--out", tmp_path / "slow"]
    monkeypatch.setattr(Pack, "pixels", lambda self, row: pause.wait(0.02) or pixels(self, row))
    assert command(*words).code == 0
    report = " ".join(command("report", tmp_path / "slow", "--format", "markdown").out.split())
    assert "Share of the training seconds in which a step waits for data: full " in report, report
    assert "Reading and decoding limit the speed of full 0 %, random 50 %. Dropped examples are not read" in report, (
        report
    )
    rows = the_record(tmp_path / "slow", "random")[1]["epochs"]
    waits = [(row["data_seconds"], row["kept"]) for row in rows]
    assert all(seconds >= 0.019 * kept for seconds, kept in waits), waits
    answer = command("run", "--method", "random", "--ratio", 0.5, *TINY, "--out", tmp_path / "digits", "--quiet")
    assert answer.code == 0 and the_record(tmp_path / "digits", "full")[1]["epochs"][0]["data_seconds"] >= 0
    assert "limit the speed" not in command("report", tmp_path / "digits").out


def forged(content: bytes, change: Callable[[list[Any]], None]) -> bytes:
    """Returns a pack of the test folder with another index, whose hash fits."""
    begin = HEADER.unpack(content[: HEADER.size])[3]
    number = HEADER.unpack(content[: HEADER.size])[2]
    index = [
        np.frombuffer(content, "<i8", number + 1, begin).copy(),
        np.frombuffer(content, "<u4", number, begin + 8 * number + 8).copy(),
        np.frombuffer(content, "<i4", number, begin + 12 * number + 8).copy(),
        json.loads(content[begin + 16 * number + 8 :]),
    ]
    change(index)
    text = index[3] if isinstance(index[3], bytes) else json.dumps(index[3]).encode()
    tail = b"".join([*(part.tobytes() for part in index[:3]), text])
    head = HEADER.pack(b"SADPPACK", 1, number, begin, len(text), hashlib.sha256(tail).digest())
    return head + content[HEADER.size : begin] + tail


def put(index: list[Any], part: int, place: Any, value: Any) -> None:
    index[part][place] = value


# The changed content of a pack, and words of the refusal, by name.
DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "is no pack: it is empty"),
    "a JPEG": (lambda content: content[72:900], "is no pack: it begins with b'\\xff\\xd8\\xff"),
    "wrong magic": (lambda content: b"X" + content[1:], "is no pack"),
    "the magic alone": (lambda content: content[:8], "it ends within its header"),
    "half a header": (lambda content: content[:40], "it ends within its header"),
    "the header alone": (lambda content: content[:72], "it has 72 bytes, and its header gives"),
    "cut within the images": (lambda content: content[:5000], "and its header gives"),
    "cut by a byte": (lambda content: content[:-1], "and its header gives"),
    "a byte too long": (lambda content: content + b"\0", "and its header gives"),
    "no header yet": (lambda content: bytes(72) + content[72:], "is no pack"),
    "a later version": (
        lambda content: content[:8] + b"\7" + content[9:],
        "of version 7, and this sadp-bench reads 1",
    ),
    "no images": (lambda content: content[:16] + bytes(8) + content[24:], "and its header gives"),
    "huge number": (lambda content: content[:16] + b"\xff" * 8 + content[24:], "and its header gives"),
    "huge place": (lambda content: content[:24] + b"\xff" * 8 + content[32:], "and its header gives"),
    "index changed": (lambda content: content[:-3] + b"x" + content[-2:], "its index has another SHA-256"),
    "hash changed": (lambda content: content[:45] + b"!" + content[46:], "its index has another SHA-256"),
    "image changed": (
        lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],
        "has a wrong checksum",
    ),
    "offsets that fall": (lambda c: forged(c, lambda i: put(i, 0, 3, 73)), "its offsets do not ascend"),
    "offsets beyond": (lambda c: forged(c, lambda i: put(i, 0, -1, 1 << 40)), "its offsets do not ascend"),
    "offsets before": (lambda c: forged(c, lambda i: put(i, 0, 0, 0)), "its offsets do not ascend"),
    "label beyond": (
        lambda c: forged(c, lambda i: put(i, 2, 0, 7)),
        "labels are 0 to 2",
    ),
    "label below": (
        lambda c: forged(c, lambda i: put(i, 2, 0, -1)),
        "labels are 0 to 2",
    ),
    "facts no JSON": (
        lambda c: forged(c, lambda i: i.__setitem__(3, b"{")),
        "its facts can't be read",
    ),
    "a fact missing": (lambda c: forged(c, lambda i: i[3].pop("split")), "its facts can't be read"),
    "a fact too many": (lambda c: forged(c, lambda i: put(i, 3, "more", 1)), "its facts can't be read"),
    "facts a list": (lambda c: forged(c, lambda i: i.__setitem__(3, [1])), "its facts can't be read"),
    "side a text": (lambda c: forged(c, lambda i: put(i, 3, "side", "8")), "its facts can't be read"),
    "side of another": (lambda c: forged(c, lambda i: put(i, 3, "side", 9)), "has 8 x 8 pixels"),
    "nothing to train": (lambda c: forged(c, lambda i: put(i, 3, "num_train", 0)), "its offsets do not ascend"),
    "nothing to test": (lambda c: forged(c, lambda i: put(i, 3, "num_train", 72)), "has no test images"),
    "std 0": (lambda c: forged(c, lambda i: put(i, 3, "std", [0, 1, 1])), "`std` is above 0"),
    "a name that steers": (
        lambda c: forged(c, lambda i: put(i, 3, "class_names", ["a\33[2J", "b", "c"])),
        "which no record",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_pack_is_one_line(folder: Path, tmp_path: Path, name: str) -> None:
    change, words = DAMAGED[name]
    (tmp_path / "8.pack").write_bytes(change((folder / "8.pack").read_bytes()))
    words_of_run = ["run", "--method", "full", "--ratio", 0, *TINY, *RUN, "--train-examples", 60, "--data", tmp_path]
    refused(command(*words_of_run, "--out", tmp_path / "runs"), words)
    assert not list(tmp_path.glob("runs/*.json"))


def test_an_interrupted_or_refused_pack_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(file: Path, side: int) -> torch.Tensor:
        if "b/01" in str(file):
            if threading.current_thread() is not threading.main_thread():
                os.kill(os.getpid(), signal.SIGTERM)
        return decoding.decode_file(file, side)

    words = ["pack", folder / "mine", "--side", SIDE, "--to", tmp_path / "new" / "8.pack"]
    monkeypatch.setattr(packing, "decode_file", stopped)
    answer = command(*words)
    assert answer.code == 130 and "interrupted" in answer.err and files_below(tmp_path) == ["new"]
    monkeypatch.undo()
    refused(command(*words[:2], "--to", folder / "8.pack"), "8.pack exists already; remove it")
    refused(command(*words, "--side", 3), "--side is from 4 to 1024 pixels, not 3")
    refused(command(*words, "--quality", 0), "--quality is from 1 to 100, not 0")
    refused(command("pack", tmp_path / "no", "--to", tmp_path / "x"), "no is not there, or is no folder")
    write(tmp_path / "one", classes(3))
    refused(command("pack", tmp_path / "one", "--to", tmp_path / "x"), "has one class")
    write(tmp_path / "broken", classes(3, 3) | {"a/bad.jpg": b"\xff\xd8\xff\xe0 no image"})
    answer = command("pack", tmp_path / "broken", "--to", tmp_path / "x")
    assert answer.code == 2 and "mend or remove what is broken" in answer.err.splitlines()[-1]
    assert not [name for name in files_below(tmp_path) if name.endswith(("x", ".part", ".pack"))]
    refused(
        command("run", "--method", "full", "--ratio", 0, *TINY, *RUN, "--data", tmp_path),
        "make it: sadp-bench pack FOLDER",
    )


def test_a_damaged_image_found_by_a_thread_is_one_line(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "8.pack").read_bytes())
    content[1000] ^= 1
    (tmp_path / "8.pack").write_bytes(content)
    reader = PackReader(Pack(tmp_path / "8.pack"))
    with pytest.raises(BadInput, match=r"8\.pack is broken: image [0-9]+ has a wrong checksum; pack the images anew"):
        reader.read(torch.arange(72), True)
