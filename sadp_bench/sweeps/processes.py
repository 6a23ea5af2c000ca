"""Processes of runs: the start of one in a new interpreter, its last lines, and its end.

`warm` forks them from a process that has imported everything. Both run the same words of `sadp-bench`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Protocol

NUM_LINES = 20  # last lines of a process that are kept
MAX_LINE = 500  # characters of a line that are kept
STOP_SECONDS = 10.0  # seconds for a process to end by itself before it is killed
# With these variables a process has printed all its lines, even if it is killed or crashes in native code.
SPEAKING = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}


class Process(Protocol):
    """A process in its own group, which does not receive Ctrl-C of the terminal."""

    def poll(self) -> int | None:
        """Returns the exit code, or minus the signal's number; None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end and returns the exit code. Raises subprocess.TimeoutExpired after `timeout` seconds."""

    def terminate(self) -> None:
        """Sends SIGTERM to the process."""

    def kill(self) -> None:
        """Kills the process and all its children."""


class Child:
    """A process and its last lines.

    Args:
        process: The process.
        output: Its output, which is closed at its end.
    """

    def __init__(self, process: Process, output: IO[str]) -> None:
        self.lines: deque[str] = deque(maxlen=NUM_LINES)
        self._process, self._output = process, output
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._output:
            while line := self._output.readline(100 * MAX_LINE):
                if text := kept_line(line):
                    self.lines.append(text)

    def ended(self) -> int | None:
        """Returns the exit code; None while the process runs."""
        code = self._process.poll()
        if code is not None:
            self._reader.join(1.0)  # takes longer only where a grandchild keeps the pipe open
        return code

    def wait(self) -> int:
        """Waits for the process's end and returns the exit code."""
        code = self._process.wait()
        self._reader.join(1.0)
        return code

    def terminate(self) -> None:
        """Sends SIGTERM to the process."""
        self._process.terminate()

    def stop(self) -> None:
        """Waits for the end after `terminate()`, and kills the group if the process does not end."""
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


Start = Callable[[Sequence[str], Mapping[str, str]], Child]


def fresh(words: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Starts `sadp-bench words...` in a new interpreter.

    Args:
        words: The words after `sadp-bench`.
        environment: Further environment variables.

    Raises:
        OSError: The process cannot be started.
    """
    # Without -P, Python would import modules from the current folder, which may be untrusted.
    return launched([*tied(), sys.executable, "-P", "-m", "sadp_bench", *words], environment)


def finished(words: list[str]) -> tuple[int, list[str]]:
    """Trains a run in a new interpreter. Returns the exit code and the last lines."""
    child = fresh(words, {})
    try:
        code = child.wait()
    finally:  # the caller may have been cancelled
        child.terminate()
        child.stop()
    return code, list(child.lines)


def tied() -> list[str]:
    """Returns the words before a command that kill its process when this one ends; [] without `setpriv`."""
    return [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []


def launched(command: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Starts a command. Its arguments and errors are those of `fresh`."""
    process = _Group(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, **SPEAKING, **environment},
    )
    assert process.stdout is not None
    return Child(process, process.stdout)


class _Group(subprocess.Popen[str]):
    """A process whose `kill` also kills its children."""

    def kill(self) -> None:
        if hasattr(os, "killpg"):
            os.killpg(self.pid, signal.SIGKILL)
        else:  # on Windows
            super().kill()


def kept_line(line: str) -> str:
    """Returns a line without control characters, cut to `MAX_LINE` characters."""
    return "".join(sign for sign in line if sign.isprintable()).rstrip()[:MAX_LINE]
