"""Writers of the publishers' formats of event recordings, word by word, and small data sets in their layouts."""

from __future__ import annotations

import struct
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Event = tuple[int, int, int, int]  # x, y, polarity (1 = on), microseconds
DVS_HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Timestamps tick: 1 us\r\n"
AEDAT3_HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def atis(events: Iterable[Event]) -> bytes:
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for x, y, p, t in events)


def aedat2(events: Iterable[Event], header: bytes = DVS_HEADER) -> bytes:
    """Returns a file of AEDAT 2 format; x and y are those of the address, not turned."""
    return header + b"".join(struct.pack(">II", y << 8 | x << 1 | 1 - p, t % 2**32) for x, y, p, t in events)


def packet(events: Sequence[Event], overflow: int = 0, valid: Sequence[int] | None = None, padding: int = 0) -> bytes:
    flags = [1] * len(events) if valid is None else valid
    words = [
        struct.pack("<Ii", x << 17 | y << 2 | p << 1 | flag, t)
        for (x, y, p, t), flag in zip(events, flags, strict=True)
    ]
    number = len(events)
    header = struct.pack("<hhiiiiii", 1, 1, 8, 4, overflow, number + padding, number, sum(flags))
    return header + b"".join(words) + b"\xff" * (8 * padding)


def other_packet(kind: int, size: int, number: int) -> bytes:
    """Returns a packet of other events: of frames, of an inertial sensor, or of the camera itself."""
    return struct.pack("<hhiiiiii", kind, 1, size, 4, 0, number, number, number) + b"\x01" * (size * number)


def aedat3(*packets: bytes, header: bytes = AEDAT3_HEADER) -> bytes:
    return header + b"".join(packets)


def bar(label: int, classes: int, sides: tuple[int, int], draw: np.random.Generator, start: int = 0) -> list[Event]:
    """Returns 300 events over 100 ms in a bar of rows at the class's place, which any network can separate."""
    height, width = sides
    low, high = height * label // classes, max(height * (label + 1) // classes, height * label // classes + 1)
    time = np.sort(draw.integers(0, 100_000, 300)) + start
    columns = [draw.integers(0, width, 300), draw.integers(low, high, 300), draw.integers(0, 2, 300), time]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def make_gesture(root: Path, trials: int = 3) -> Path:
    """Makes a data set of two persons to train and one to test, with so many trials of each of 11 gestures."""
    draw = np.random.default_rng(0)
    people = {"user01_lab": "train", "user02_led": "train", "user24_lab": "test"}
    folder = root / "DvsGesture"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        names = "".join(f"{name}.aedat\n" for name, of in people.items() if of == part)
        (folder / f"trials_to_{part}.txt").write_text(names + "\n")
    for name in people:
        lines, packets = ["class,startTime_usec,endTime_usec"], []
        for number in range(11 * trials):
            start = 200_000 * (number + 1)
            packets.append(packet(bar(number % 11, 11, (128, 128), draw, start)))
            lines.append(f"{number % 11 + 1},{start},{start + 100_000}")
        (folder / f"{name}.aedat").write_bytes(aedat3(*packets))
        (folder / f"{name}_labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_cifar10_dvs(root: Path, number: int = 20) -> Path:
    draw = np.random.default_rng(0)
    for label, name in enumerate(CIFAR10_CLASSES):
        folder = root / "CIFAR10DVS" / name
        folder.mkdir(parents=True)
        for row in range(number):
            (folder / f"cifar10_{name}_{row}.aedat").write_bytes(aedat2(bar(label, 10, (128, 128), draw)))
    return root / "CIFAR10DVS"


def make_n_caltech101(
    root: Path, names: Sequence[str] = ("BACKGROUND_Google", "ant", "yin_yang"), number: int = 20
) -> Path:
    draw = np.random.default_rng(0)
    for label, name in enumerate(names):
        folder = root / "N-Caltech101" / "Caltech101" / name
        folder.mkdir(parents=True)
        for row in range(number):
            (folder / f"image_{row + 1:04}.bin").write_bytes(atis(bar(label, len(names), (180, 240), draw)))
    return root / "N-Caltech101" / "Caltech101"


def write_spoken(file: Path, recordings: Sequence[tuple[Any, Any]], labels: Sequence[int]) -> None:
    import h5py

    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        for name, column, kind in (("times", 0, np.float16), ("units", 1, np.uint16)):
            rows = content.create_dataset(f"spikes/{name}", (len(recordings),), dtype=h5py.vlen_dtype(kind))
            for row, recording in enumerate(recordings):
                rows[row] = np.asarray(recording[column], kind)
        content["labels"] = np.asarray(labels, np.uint16)


def make_spoken(root: Path, folder: str, classes: int, train: int = 10, test: int = 3) -> Path:
    draw = np.random.default_rng(0)
    for part, number in (("train", train), ("test", test)):
        labels = [label for label in range(classes) for _ in range(number)]
        recordings = [
            (
                np.sort(draw.random(300)),
                draw.integers(700 * label // classes, 700 * (label + 1) // classes, 300),
            )
            for label in labels
        ]
        write_spoken(root / folder / f"{folder.lower()}_{part}.h5", recordings, labels)
    return root / folder


def zipped(folder: Path, archive: Path) -> None:
    """Zips the folder under its name, as publishers do, with the files that macOS adds."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*") if folder.is_dir() else [folder]):
            packed.write(file, file.relative_to(folder.parent))
        packed.writestr("__MACOSX/._left", b"left by a packer")


def tarred(folder: Path, archive: Path) -> None:
    """Packs the folder under its name, with its files in reverse order, as no order is promised."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        for file in sorted(folder.rglob("*"), reverse=True):
            packed.add(file, file.relative_to(folder.parent), recursive=False)
