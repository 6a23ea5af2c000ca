"""Calls of registered code of other packages (a stranger's code): its errors become one line that names it.

A stranger's methods, networks and data sets are called from many places. So one handler, around a whole command, finds in
an error's traceback whether a stranger's code raised it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sadp_bench.core.errors import BadInput, Stopped

OURS = ("sadp_bench", "baselines")
LONGEST = 300  # characters of an error's text
_loaded: dict[str, str] = {}  # package of a stranger -> the user's name for it, such as "method 'mypkg.mine:Mine'"


def is_ours(module: str) -> bool:
    """Returns whether a module of this name is part of this project."""
    return _package(module) in OURS


def note_loaded(module: str, name: str) -> None:
    """Notes that a module was loaded because a user named it.

    Args:
        module: The module's name.
        name: The user's name for its class, such as "method 'mypkg.mine:Mine'".
    """
    if not is_ours(module):
        _loaded[_package(module)] = name


@contextmanager
def calls_of_strangers() -> Iterator[None]:
    """Turns an error that a stranger's code raises within the context into BadInput; other errors pass."""
    try:
        yield
    except (BadInput, Stopped):
        raise
    except (Exception, SystemExit) as error:  # a stranger's sys.exit(0) would look like success
        frames = _frames_of_strangers(error)
        if not frames:
            raise
        package, called, _ = frames[0]
        raise BadInput(f"{_loaded[package]}: {called} raised {described(error, frames[-1][2])}") from error


def described(error: BaseException, where: str = "") -> str:
    """Returns an error as a line: its type, its text and its place, 'ValueError: too few (mine.py, line 12)'.

    Args:
        error: The error.
        where: File and line; "": the place of a syntax error, or of the innermost frame.
    """
    text = " ".join(str(getattr(error, "msg", "") or error).split())
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{Path(error.filename).name}, line {error.lineno}"
    elif not where:
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        where = _place(frame, line)
    return f"{type(error).__name__}{f': {text[:LONGEST]}' if text else ''} ({where})"


def _frames_of_strangers(error: BaseException) -> list[tuple[str, str, str]]:
    """Returns package, function and place of each call of a stranger's code in the traceback, outermost first."""
    found = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = _package(str(frame.f_globals.get("__name__", "")))
        if package in _loaded:
            found.append((package, frame.f_code.co_qualname, _place(frame, line)))
    return found


def _place(frame: FrameType, line: int) -> str:
    return f"{Path(frame.f_code.co_filename).name}, line {line}"


def _package(module: str) -> str:
    return module.partition(".")[0]
