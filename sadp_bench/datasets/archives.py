"""Reads the files of a folder, a tar archive or a zip archive, without unpacking to the disk."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import opened
from sadp_bench.core.memory import check_room
from sadp_bench.core.text import printable
from sadp_bench.datasets.base import cause, read_bytes

FAULTS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


class Member(NamedTuple):
    """A regular file of a source.

    Attributes:
        path: The path within the source.
        place: The path with the source's, for messages.
        read: Returns the content; it is called before the iteration goes on to the next member.
    """

    path: PurePosixPath
    place: str
    read: Callable[[], NDArray[np.uint8]]


def members(source: Path) -> Iterator[Member]:
    """Yields the files of a folder in the order of their paths, or those of an archive in its own order.

    Names that begin with a dot, and macOS's `__MACOSX`, are left out.

    Args:
        source: A folder, a zip archive (`.zip`), or a tar archive, compressed or not.

    Raises:
        BadInput: The source is absent or broken. A member's `read` raises it too.
    """
    if os.path.isdir(source):
        found = _of_folder(source)
    else:
        found = _of_zip(source) if source.suffix == ".zip" else _of_tar(source)
    return (member for member in found if not any(_left_by_an_unpacker(part) for part in member.path.parts))


def first_there(candidates: list[Path]) -> Path | None:
    """Returns the first path that exists, among a folder and archives of the same content; None where none exists."""
    return next((path for path in candidates if os.path.exists(path)), None)


def _left_by_an_unpacker(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _of_folder(source: Path) -> Iterator[Member]:
    def refuse(error: OSError) -> None:
        raise BadInput(f"cannot read {printable(str(error.filename))}: {cause(error)}") from error

    walk = os.walk(source, onerror=refuse, followlinks=True)
    for file in sorted(Path(folder) / name for folder, _, names in walk for name in names):
        yield Member(PurePosixPath(file.relative_to(source).as_posix()), str(file), partial(read_bytes, file))


def _of_zip(source: Path) -> Iterator[Member]:
    with opened(source) as file, _faults(str(source)), zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                place = f"{source}: {info.filename}"
                read = partial(_content, partial(archive.open, info), info.file_size, place)
                yield Member(PurePosixPath(info.filename), place, read)


def _of_tar(source: Path) -> Iterator[Member]:
    with opened(source) as file, _faults(str(source)), tarfile.open(fileobj=file) as archive:
        for info in archive:
            if info.isreg():
                place = f"{source}: {info.name}"
                read = partial(_content, partial(archive.extractfile, info), info.size, place)
                yield Member(PurePosixPath(info.name.removeprefix("./")), place, read)


def _content(open_member: Callable[[], IO[bytes] | None], size: int, place: str) -> NDArray[np.uint8]:
    check_room(size, printable(place), "read the files of another folder")
    with _faults(place):
        file = open_member()
        assert file is not None  # it is a regular file
        with file:
            content = np.frombuffer(file.read(), np.uint8)
    if content.size != size:
        raise BadInput(f"{printable(place)} is broken: {content.size:,} bytes instead of {size:,}; get it anew")
    return content


@contextmanager
def _faults(place: str) -> Iterator[None]:
    """Turns an error that a reader of archives raises within the context into one line that names the place."""
    try:
        yield
    except BadInput:
        raise
    except FAULTS as error:
        raise BadInput(f"{printable(place)} is broken: {cause(error)}; get it anew") from error
