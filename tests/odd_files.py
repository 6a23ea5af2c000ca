"""Odd things in the place of an expected file, and a time limit for code that would wait for them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(f"/proc/self/fd/{folder}/{path.name}")  # A socket's path has at most 107 characters.
    os.close(folder)


def _pipe_behind_a_link(path: Path) -> None:
    if not os.path.exists(f"{path}.pipe"):
        os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path}.pipe")


def _hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


# Functions that make an odd thing at an unused path, by name.
ODD_PLACES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a link to a pipe": _pipe_behind_a_link,
    "a folder": Path.mkdir,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a socket": _socket,
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a terabyte": _hole,
    "a file without a size": lambda path: path.symlink_to("/proc/self/maps"),
}


class TooSlow(BaseException):
    """A BaseException, which no `except Exception` under test catches."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises TooSlow where the context computes for longer, or waits for ten times as long.

    The first clock counts the process's CPU seconds, which other load on the machine does not lengthen.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"longer than {seconds} s")

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 10 * seconds)}
    before = {number: signal.signal(number, ring) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
