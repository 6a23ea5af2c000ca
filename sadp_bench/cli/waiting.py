"""A line on a terminal about what a command is doing, while it prints nothing else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

PATIENCE_SECONDS = 2.0  # seconds before anything is shown
REDRAW_SECONDS = 0.5
ERASE = "\r\x1b[K"


def loading(quiet: bool = False) -> AbstractContextManager[Callable[[str], None]]:
    """Shows that PyTorch loads, during the block's imports, which take some seconds.

    Args:
        quiet: Whether to show nothing.
    """
    return waiting("loading PyTorch", 0.0, quiet)


@contextmanager
def waiting(what: str, patience_seconds: float | None = None, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Shows a line on stderr with the present step and the time so far. The line is erased at the end.

    The line appears only on a terminal. Nothing else may write to stderr in the block.

    Args:
        what: The first step, such as "reading records".
        patience_seconds: Seconds before the line appears; None for `PATIENCE_SECONDS`.
        quiet: Whether to show nothing.

    Yields:
        A function to call with the text of each later step.
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
