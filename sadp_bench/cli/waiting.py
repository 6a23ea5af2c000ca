"""A line on a terminal that says what a command is doing, where it prints nothing for long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

PATIENCE_SECONDS = 2.0  # before which nothing is shown
REDRAW_SECONDS = 0.5
ERASE = "\r\x1b[K"


def loading(quiet: bool = False) -> AbstractContextManager[Callable[[str], None]]:
    """Shows at once that PyTorch loads, as long as the block's imports take: some seconds.

    Args:
        quiet: Whether nothing is shown.
    """
    return waiting("loading PyTorch", 0.0, quiet)


@contextmanager
def waiting(what: str, patience_seconds: float | None = None, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Shows in a line on stderr what goes on and for how long; the line is erased at the end.

    Only a terminal shows it. Nothing else may write to stderr in the block.

    Args:
        what: Goes on first.
        patience_seconds: Before which nothing is shown; None: `PATIENCE_SECONDS`.
        quiet: Whether nothing is shown at all.

    Yields:
        A function that is called with what goes on from then on.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda what: None
        return
    doing, over, start = [what], threading.Event(), time.monotonic()
    patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
    ticker = threading.Thread(target=_tick, args=(doing, over, start, patience), daemon=True)
    ticker.start()
    try:
        yield lambda what: doing.append(what)
    finally:
        over.set()
        ticker.join()


def _tick(doing: list[str], over: threading.Event, start: float, patience_seconds: float) -> None:
    if over.wait(patience_seconds):
        return
    ended = False
    while not ended:
        line = f"{doing[-1]} ({time.monotonic() - start:.0f} s)"
        sys.stderr.write(f"{ERASE}{line}")
        sys.stderr.flush()
        ended = over.wait(REDRAW_SECONDS)
    sys.stderr.write(ERASE)
    sys.stderr.flush()
