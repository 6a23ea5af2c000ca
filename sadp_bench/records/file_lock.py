"""A lock on a run: one process at a time, on one machine or on several that share a folder.

`filelock.SoftFileLease` is the lock itself. A holder that died on this machine loses it at once. A holder on another
machine, or one that was stopped, loses it after `dead_after` seconds without a heartbeat. Each contender measures these
by its own clock. `Lock` adds the count of starts, one-line messages for problems, and rules for files of killed processes.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import read_bytes

BEAT_SECONDS = 5.0  # seconds between two heartbeats
DEAD_AFTER_SECONDS = 90.0  # seconds; network file systems show another machine's writes up to a minute late
MAX_STARTS = 1 << 16
LEASE = ".lease"  # suffix of the library's file beside the lock's, which exists while the lock is held


class Lock:
    """A lock on the work of one file, such as a record. The lock's file has a line for each start of the work.

    The file stays until the work is done.

    Args:
        path: The lock's file.
        beat: Seconds between two heartbeats.
        dead_after: Seconds without a heartbeat after which another process takes the lock over.

    Attributes:
        starts: How often the work was begun, with this time; valid while the lock is held.
    """

    def __init__(self, path: Path, *, beat: float = BEAT_SECONDS, dead_after: float = DEAD_AFTER_SECONDS) -> None:
        self.path = path
        self.starts = 0
        self._marker, self._dead_after = path.with_name(f"{path.name}{LEASE}"), dead_after
        self._lease = SoftFileLease(
            self._marker,
            timeout=0,
            thread_local=False,
            lease_duration=dead_after,
            heartbeat_interval=min(beat, dead_after / 2),
        )
        self._seen: tuple[int, ...] = ()
        self._seen_since = 0.0

    def acquire(self) -> bool:
        """Takes the lock if it is free or its holder is dead, and counts the start. Does not wait.

        Returns:
            Whether this process holds the lock now. False: another process holds it. The same object detects a stopped
            heartbeat only when it tries again later.

        Raises:
            BadInput: The folder or the lock's files cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._taken():
                return False
            try:
                self.starts = _count_start(self.path)
            except BaseException:
                self._lease.release()
                raise
        except (OSError, LeaseSettingsMismatch) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BadInput(f"can't lock {self.path}: {reason}; choose another folder") from None
        return True

    def _taken(self) -> bool:
        for path in (self.path, self._marker):
            _check_regular(path)
        try:
            self._lease.acquire()
        except Timeout:
            self._break_if_nobodys()
            return False
        return True

    def _break_if_nobodys(self) -> None:
        """Removes a marker that is no lease and has not changed for long. The library would wait for it forever.

        A holder leaves an empty marker if it is killed between the file's creation and its first line. Any other content
        comes from a program that does not use these locks.
        """
        owner = self._lease.owner
        try:
            state = self._marker.lstat()
        except FileNotFoundError:
            return
        seen, now = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns), time.monotonic()
        if seen != self._seen or (owner is not None and owner.mode == "lease"):
            self._seen, self._seen_since = seen, now
        elif now - self._seen_since >= self._dead_after:
            self._lease.force_break()

    def release(self, *, finished: bool) -> None:
        """Frees the lock.

        Args:
            finished: Whether the work is done; then the lock's file is removed. Otherwise it stays, for the count of starts.
        """
        if finished and self.is_mine():
            self.path.unlink(missing_ok=True)
        self._lease.release()

    def is_held(self) -> bool:
        """Returns whether another process holds the lock and is alive, as far as is known by now."""
        try:
            if not os.path.lexists(self._marker):
                return False
            if not self._taken():
                return True
        except (OSError, LeaseSettingsMismatch) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BadInput(f"can't read the lock {self.path}: {reason}; choose another folder") from None
        self._lease.release()
        return False

    def is_mine(self) -> bool:
        """Returns whether this object still holds the lock. A process that was stopped too long may have lost it."""
        owner = self._lease.owner
        return owner is not None and owner.token is not None and owner.token == self._lease.token

    def is_gone(self) -> bool:
        """Returns whether no process holds the lock, because its file or its folder was removed or renamed."""
        return not os.path.lexists(self._marker)


def _check_regular(path: Path) -> None:
    """Raises OSError for a file that is no regular one, such as a pipe, whose reader may wait forever."""
    with suppress(FileNotFoundError):  # The holder may remove the file at any moment.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(None, f"{path.name} is no regular file")


def _count_start(path: Path) -> int:
    """Adds a line to the lock's file, and returns the number of lines. A line is one byte, so it is never cut.

    A file with any other content counts no starts, and begins anew.
    """
    kept = b""
    with suppress(BadInput):  # The file does not exist yet, or is larger than any number of starts.
        before = read_bytes(path, MAX_STARTS)
        kept = b"" if before.strip(b"\n") else before
    with path.open("ab" if kept else "wb") as file:
        file.write(b"\n")
    return len(kept) + 1
