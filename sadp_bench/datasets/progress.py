"""Lines, a progress bar and a wait with a line on stderr, for data sets that take long to read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sadp_bench.core.text import printable


def say(line: str) -> None:
    """Prints a line on stderr, without control characters."""
    print(printable(line), file=sys.stderr, flush=True)


@contextmanager
def bar(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar in a terminal. Yields the function that advances it."""
    if not sys.stderr.isatty():
        yield lambda number: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda number: progress.advance(task, number)


@contextmanager
def alone(file: Path, doing: str) -> Iterator[None]:
    """Keeps other processes from building this file within the context, after a wait for one that does.

    Args:
        file: The file. A lock stands beside it.
        doing: What the other process does, such as "is decoding these images".
    """
    lock = FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process {doing}; waiting for {file}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
