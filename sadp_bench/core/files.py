"""Opens every file that is read: regular files only, of a limited size.

A path may come from anyone. Opening a pipe may wait forever, a device has no end, and links may form a circle.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable

TEXT_BYTES = 64 << 20  # bytes of a text file; a record has about 20,000
STATE_BYTES = 1 << 35  # bytes of a checkpoint, or of scores
# Windows has no O_NONBLOCK, and its files are text without O_BINARY.
FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))


class Unreadable(BadInput):
    """A file that can't be read.

    Args:
        message: One line.
        reason: Why, without the path.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def _unreadable(path: Path, reason: str) -> Unreadable:
    return Unreadable(f"can't read {printable(str(path))}: {reason}", reason)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file for reading. Links are followed.

    Raises:
        Unreadable: The path leads to no regular file, or the context raises an OSError.
    """
    try:
        with os.fdopen(_descriptor(path), "rb") as file:
            yield file
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None


def _descriptor(path: Path) -> int:
    """Opens without waiting, then checks the open file, because the target of a path may change at any time."""
    try:
        descriptor = os.open(path, FLAGS)
    except ValueError as error:  # a null byte in the path
        raise _unreadable(path, str(error)) from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _unreadable(path, "no regular file")


def read_bytes(path: Path, limit: int = TEXT_BYTES) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: The file.
        limit: Bytes that it may have.

    Raises:
        Unreadable: The file is no regular file, is too large, or can't be read.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1) if size <= limit else b""
        # Files of the system, such as /proc, have the size 0, and a file may grow.
        while size < len(content) <= limit and (more := file.read(1 << 20)):
            content += more
        if max(size, len(content)) > limit:
            raise _unreadable(path, f"larger than {limit:,} bytes")
    return content


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """Returns the text of a UTF-8 file without a byte order mark, which some editors put at the start.

    Args:
        path: The file.
        limit: Bytes that it may have.

    Raises:
        Unreadable: The file is no regular file, is too large, is no UTF-8, or can't be read.
    """
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"no UTF-8 text (byte {error.start:,})") from None


def set_aside(path: Path) -> str:
    """Renames the file or folder at a path to `<name>.broken`. Returns the outcome in words."""
    aside = path.with_name(f"{path.name}.broken")
    try:
        path.replace(aside)
    except OSError as error:  # A folder is there, or the parent folder can't be written.
        return f"left there ({error.strerror})"
    return f"set aside as {aside.name}"


def remove(path: Path) -> None:
    """Removes a file or a link, where there is one. A folder stays, because another program made it."""
    with suppress(OSError):
        path.unlink()


def hash_fault(content: bytes, sha256: str) -> str:
    """Returns why a file's content is not that of a run, as a phrase; "": its hash is this one, or none was given."""
    found = hashlib.sha256(content).hexdigest()
    return "" if sha256 in ("", found) else f"is another file: its SHA-256 is {found}, and the run's is {sha256}"
