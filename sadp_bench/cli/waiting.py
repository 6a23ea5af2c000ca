"""A line on a terminal that says what a long command is doing, from its third second on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 2.0  # before which nothing is shown
REDRAW_SECONDS = 0.5
ERASE = "\r\x1b[K"


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Shows in a line on stderr what goes on and for how long; the line is erased at the end.

    Only a terminal shows it. Nothing else may write to stderr in the block.

    Args:
        what: Goes on first.

    Yields:
        A function that is called with what goes on from then on.
    """
    if not sys.stderr.isatty():
        yield lambda what: None
        return
    doing, over, start = [what], threading.Event(), time.monotonic()
    ticker = threading.Thread(target=_tick, args=(doing, over, start), daemon=True)
    ticker.start()
    try:
        yield lambda what: doing.append(what)
    finally:
        over.set()
        ticker.join()


def _tick(doing: list[str], over: threading.Event, start: float) -> None:
    if over.wait(PATIENCE_SECONDS):
        return
    while not over.wait(REDRAW_SECONDS):
        line = f"{doing[-1]} ({time.monotonic() - start:.0f} s)"
        sys.stderr.write(f"{ERASE}{line}")
        sys.stderr.flush()
    sys.stderr.write(ERASE)
    sys.stderr.flush()
