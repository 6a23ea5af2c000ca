"""The frames of a data set's recordings in one file of the user's cache folder. They are made once, then read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sadp_bench.core.files import opened
from sadp_bench.datasets.base import cache_folder, cause
from sadp_bench.datasets.progress import alone, say

KEY_DIGITS = 16  # digits of the state's hash, in the name of the cache's file


def cached_frames(what: str, state: Iterable[str], array: NDArray[np.uint8], make: Callable[[], None]) -> None:
    """Fills an array with frames, from the cache where it has them.

    Frames that can't be kept are made at each start, and a line on stderr reports it.

    Args:
        what: The data set's name.
        state: Lines with all that the frames depend on.
        array: The array to fill.
        make: Fills the array from the recordings. An error that it raises leaves no file.
    """
    key = hashlib.sha256("\n".join(state).encode(errors="surrogateescape")).hexdigest()[:KEY_DIGITS]
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', what).lower()}-{key}.u8"
    with ExitStack() as held:
        try:
            file = cache_folder() / "events" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(alone(file, "is reading these recordings"))
        except (OSError, RuntimeError) as error:
            make()
            _not_kept(what, error)
            return
        if _read(file, array):
            return
        make()
        try:
            _write(file, array)
        except OSError as error:
            _not_kept(what, error)


def state_of(source: Path) -> Iterator[str]:
    """Yields a line for each file of a folder, or one for an archive: name, size and time of the last change."""
    if not os.path.isdir(source):
        yield _line(source, source.name)
        return
    for folder, _, names in os.walk(source, followlinks=True):
        for name in names:
            yield _line(Path(folder) / name, os.path.relpath(os.path.join(folder, name), source))


def _line(file: Path, name: str) -> str:
    try:
        found = file.stat()
    except OSError:  # a link to nothing; the reader of the file reports it
        return name
    return f"{name}\0{found.st_size}\0{found.st_mtime_ns}"


def _read(file: Path, array: NDArray[np.uint8]) -> bool:
    """Fills the array from the file. Returns False where the file is absent or of another size."""
    if not os.path.exists(file) or file.stat().st_size != array.nbytes:
        return False
    with opened(file) as source:
        return source.readinto(array.data) == array.nbytes  # type: ignore[attr-defined]


def _write(file: Path, array: NDArray[np.uint8]) -> None:
    """Writes the array to a file beside the final one, and renames it. A failure leaves no file."""
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as sink:
            sink.write(array.data)
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(part, file)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _not_kept(what: str, error: BaseException) -> None:
    say(f"the frames of {what} are not kept for the next start: {cause(error)}; set XDG_CACHE_HOME to another folder")
