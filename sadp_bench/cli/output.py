"""The output of commands: the result on stdout after success, and lines on stderr.

A run can last for hours. Neither a closed stream nor a reader that has ended may stop it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable


class Result(NamedTuple):
    """The result of a command.

    Attributes:
        shown: A table or a list that is printed as one line of JSON, or a function that prints.
        code: The exit code.
        why: The reason for an exit code that is not 0, for stderr.
    """

    shown: dict[str, Any] | list[Any] | Callable[[], None]
    code: int = 0
    why: str = ""


def say(line: str) -> None:
    """Prints a line on stderr without control characters, which names of files may contain."""
    print(printable(line), file=sys.stderr, flush=True)


def show(result: Result) -> None:
    """Prints a result on stdout. The reader may close it early: `sadp-bench report | head -1`.

    Raises:
        BadInput: stdout cannot be written, for example on a full disk.
    """
    try:
        if callable(result.shown):
            result.shown()
        else:
            print(json.dumps(result.shown, allow_nan=False))
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise BadInput(f"can't write the result to stdout: {error.strerror}; records are kept") from None


def open_closed() -> None:
    """Replaces each closed standard stream by the null device. Otherwise a run's file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def silence(stream: TextIO) -> None:
    """Replaces a stream's file by the null device, because Python writes buffered text again at its exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class Lasting:
    """A stderr that drops text when it cannot be written, such as after its reader has ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text, or drops it."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            silence(self._stream)
            return len(text)

    def flush(self) -> None:
        """Writes buffered text, or drops it."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
