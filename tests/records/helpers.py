"""Locks that other processes hold or left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOLDER = """
import socket, sys
from pathlib import Path
from sadp_bench.records.file_lock import Lock
path, beat, dead_after, host = sys.argv[1:]
if host:
    socket.gethostname = lambda: host
lock = Lock(Path(path), beat=float(beat), dead_after=float(dead_after))
print(lock.acquire(), flush=True)
for line in sys.stdin:
    print(lock.is_mine(), flush=True)
"""


@contextmanager
def held(path: Path, beat: float = 5.0, dead_after: float = 90.0, host: str = "") -> Iterator[Any]:
    """Yields another process, which holds the lock. It answers each line with whether it still holds the lock.

    Args:
        path: Path of the lock.
        beat: Argument of `Lock`.
        dead_after: Argument of `Lock`.
        host: The name of another machine, which the process takes itself to be on.
    """
    words = [sys.executable, "-c", HOLDER, path, str(beat), str(dead_after), host]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "True\n"
            yield process
        finally:
            process.kill()


def left_by_a_killed_process(path: Path) -> None:
    with held(path):
        pass
