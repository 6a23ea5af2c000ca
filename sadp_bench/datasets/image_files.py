"""The image files below a folder of class folders, and their split into training and test images."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import listed
from sadp_bench.datasets.base import cause
from sadp_bench.datasets.splits import HASHED, hashed_split, list_hash

READ = (".jpg", ".jpeg", ".png", ".webp")
UNREAD = (".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".svg")
FOLDERS = {"train/val": ("train", "val"), "train/test": ("train", "test")}  # name of a split -> folders of its parts
MOST_DEPTH = 8  # folders below a class; links may lead in a circle


class ImageFile(NamedTuple):
    """One image file.

    Attributes:
        name: Its path below the data set's folder, with slashes.
        size: Bytes.
        changed: Time of the last change, nanoseconds.
        label: The place of its class in the sorted names of classes.
    """

    name: str
    size: int
    changed: int
    label: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The image files of a data set.

    Attributes:
        train: The training images, by class, then by name.
        test: The test images, in the same order.
        class_names: Names of the classes, by label.
        split: The split's name: a key of `FOLDERS`, or `HASHED`.
    """

    train: list[ImageFile]
    test: list[ImageFile]
    class_names: tuple[str, ...]
    split: str

    @property
    def sha256(self) -> str:
        """The hash of the names and sizes of all files. It identifies the data set in any folder."""
        return _hash(f"{file.name}\0{file.size}" for file in sorted([*self.train, *self.test]))

    @property
    def test_list(self) -> str:
        """The hash of the list of test images; see `list_hash`."""
        return list_hash(file.name for file in self.test)

    def state(self, *more: object) -> str:
        """Returns the hash of names, sizes and times of all files in their order, and of other values."""
        lines = (f"{file.name}\0{file.size}\0{file.changed}" for file in [*self.train, *self.test])
        return _hash([*map(str, more), *lines])


def find_images(folder: Path, split: str = "") -> Listing:
    """Returns the images of a data set.

    There are two layouts. The folder has the folders `train` and `val` (or `test`), each with a folder for each class. Or the
    folder itself has a folder for each class; then the hashes of the images' names split them (`hashed_split`). Images
    may lie deeper. Hidden files and files that are no images are left out.

    Args:
        folder: The data set's folder.
        split: A key of `FOLDERS`, or `HASHED`; "": the first that fits.

    Raises:
        BadInput: The folder has neither layout, or has images that can't be read or have no class.
    """
    if not os.path.isdir(folder):
        raise BadInput(
            f"{folder} is not there, or is no folder; name a folder of class folders: --set dataset.folder=PATH"
        )
    split = split or _fitting(folder)
    if split == HASHED:
        names, files = _classes(folder, "")
        train_K, test_K = hashed_split([file.name for file in files], [file.label for file in files])
        return Listing([files[place] for place in train_K], [files[place] for place in test_K], tuple(names), split)
    if split not in FOLDERS:
        raise BadInput(
            f"dataset.split is {', '.join([*FOLDERS, HASHED])}, or nothing: the first that fits; not '{split}'"
        )
    train_folder, test_folder = FOLDERS[split]
    names, train = _classes(folder / train_folder, f"{train_folder}/")
    test_names, test = _classes(folder / test_folder, f"{test_folder}/")
    if unknown := [name for name in test_names if name not in names]:
        raise BadInput(
            f"{folder / test_folder} has a class that {train_folder} lacks: {ascii(unknown[0])}; sort its images into "
            f"folders that are named as those of {train_folder}"
        )
    labels = [names.index(name) for name in test_names]
    return Listing(train, [file._replace(label=labels[file.label]) for file in test], tuple(names), split)


def _fitting(folder: Path) -> str:
    """Returns the first split whose folders exist."""
    if not os.path.isdir(folder / "train"):
        return HASHED
    for split, (_, test) in FOLDERS.items():
        if os.path.isdir(folder / test) and any(_is_dir(entry) for entry in _visible(folder / test)):
            return split
    tests = [test for _, test in FOLDERS.values()]
    raise BadInput(
        f"{folder} has the folder train, and no class folders in {listed(tests)}; add one of the two, or split a folder of "
        f"class folders: --set dataset.split={HASHED}"
    )


def _classes(folder: Path, prefix: str) -> tuple[list[str], list[ImageFile]]:
    """Returns the sorted names of the class folders, and their images by class and name."""
    if not os.path.isdir(folder):
        raise BadInput(f"{folder} is not there, or is no folder")
    entries = _visible(folder)
    if loose := next((entry.name for entry in entries if _is_image(entry.name) and not _is_dir(entry)), None):
        raise BadInput(f"{folder / loose} lies beside the class folders; put it into the folder of its class")
    names = [entry.name for entry in entries if _is_dir(entry)]
    if not names:
        raise BadInput(f"{folder} has no class folders; give each class a folder of its images")
    files = []
    for label, name in enumerate(names):
        found = list(_images(folder / name, f"{prefix}{name}/", label, MOST_DEPTH))
        if not found:
            raise BadInput(
                f"{folder / name} has no images ({', '.join(READ)}); every folder here is a class: move it out"
            )
        files += sorted(found)
    return names, files


def _images(folder: Path, prefix: str, label: int, depth: int) -> Iterator[ImageFile]:
    if depth == 0:
        raise BadInput(f"{folder} is more than {MOST_DEPTH} folders deep, or a link leads in a circle; move it out")
    for entry in _visible(folder):
        if _is_dir(entry):
            yield from _images(folder / entry.name, f"{prefix}{entry.name}/", label, depth - 1)
        elif _is_image(entry.name):
            yield _image(entry, f"{prefix}{entry.name}", label)


def _image(entry: os.DirEntry[str], name: str, label: int) -> ImageFile:
    try:
        found = entry.stat()
    except OSError as error:
        raise BadInput(f"cannot read {entry.path}: {cause(error)}; mend or remove it") from None
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{entry.path} is no regular file; remove it")
    return ImageFile(name, found.st_size, found.st_mtime_ns, label)


def _is_image(name: str) -> bool:
    """Returns whether a file's name is an image's. Raises BadInput for an image format that isn't read."""
    end = os.path.splitext(name)[1].lower()
    if end in UNREAD:
        raise BadInput(f"{ascii(name)} is an image in {end}, and only {', '.join(READ)} are read; convert or remove it")
    return end in READ


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link that leads to itself
        raise BadInput(f"cannot read {entry.path}: {cause(error)}; mend or remove it") from None


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """Returns the entries of a folder, sorted by name, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise BadInput(f"cannot read {folder}: {cause(error)}") from error


def _hash(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
