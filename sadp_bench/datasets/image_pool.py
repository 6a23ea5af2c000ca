"""Processes all images of a folder by several threads, with a progress bar. The end reports all broken images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sadp_bench.core.cores import available_threads
from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import count
from sadp_bench.datasets.progress import bar, say

CHUNK = 256  # images that are processed together, and then yielded
SHOWN = 3  # broken files that a message names
Made = TypeVar("Made")


def made_of_each(
    folder: Path, names: Sequence[str], make: Callable[[Path], Made], done: int = 0
) -> Iterator[list[Made]]:
    """Yields the result of each image, in order, a chunk at a time.

    From the first broken image on it yields nothing, and only checks the other images.

    Args:
        folder: Folder of the images.
        names: Paths of the files below the folder.
        make: Returns the result of a file; raises ValueError where the file is broken. Several threads call it.
        done: Number of files at the start that are skipped.

    Raises:
        BadInput: Images are broken. It is raised after all images are checked, and names up to `SHOWN` of them.
    """

    def made(name: str) -> Made | str:
        try:
            return make(folder / name)
        except ValueError as error:
            return f"{folder / name} {error}"

    broken: list[str] = []
    with bar("decoding", len(names), done) as advance, ThreadPoolExecutor(available_threads()) as pool:
        for start in range(done, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            found = list(pool.map(made, chunk))
            faults = [one for one in found if isinstance(one, str)]
            if faults and not broken:
                say(f"{faults[0]}; looking for others that are broken")
            broken += faults
            if not broken:
                yield [one for one in found if not isinstance(one, str)]
            advance(len(chunk))
    if broken:
        more = f", and {count(len(broken) - SHOWN, 'more file')}" if len(broken) > SHOWN else ""
        raise BadInput(f"{'; '.join(broken[:SHOWN])}{more}; mend or remove what is broken")
