"""Work on all images of a folder by several threads, with a bar; broken images are named together at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import count
from sadp_bench.datasets.progress import bar, say

CHUNK = 256  # images that are worked on, and then given together
SHOWN = 3  # broken files that a message names
Made = TypeVar("Made")


def made_of_each(
    folder: Path, names: Sequence[str], make: Callable[[Path], Made], done: int = 0
) -> Iterator[list[Made]]:
    """Yields what is made of each image, in order, a chunk at a time.

    From the first broken image on nothing is yielded; the others are only looked at.

    Args:
        folder: Where the images are.
        names: Of the files, below the folder.
        make: Returns a result for a file; raises ValueError where the file is broken. Called by several threads.
        done: The first so many files are left out.

    Raises:
        BadInput: Images are broken, after all were looked at; it names up to `SHOWN` of them.
    """

    def made(name: str) -> Made | str:
        try:
            return make(folder / name)
        except ValueError as error:
            return f"{folder / name} {error}"

    broken: list[str] = []
    with bar("decoding", len(names), done) as advance, ThreadPoolExecutor(_threads()) as pool:
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


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
