"""One process at a time: a lock file that its holder's death sets free.

On one machine the kernel tells (flock): a dead holder's lock is free at once. Between machines that share a folder a
heartbeat tells: the file's time moves on while its holder lives, and whoever sees it stand still for `dead_after`
seconds of its own clock takes the lock over. No clocks are compared, so none has to be right.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput

BEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 90.0  # network file systems show another machine's writing up to a minute late
SETTLE_SECONDS = 2.0


class Lock:
    """A lock on the work that `path` stands for. The file stays until the work is finished, and counts its starts.

    starts: how often the work was begun, this time included; known while the lock is held.
    """

    def __init__(self, path: Path, *, beat: float = BEAT_SECONDS, dead_after: float = DEAD_AFTER_SECONDS) -> None:
        self.path = path
        self.starts = 0
        self._beat, self._dead_after = beat, dead_after
        self._token = uuid.uuid4().hex
        self._file: int | None = None
        self._over = threading.Event()
        self._last_beat: tuple[float, float] | None = None  # the file's time as last seen to move, and when that was

    def acquire(self) -> bool:
        """Takes the lock if it is free or its holder is dead; False where another holds it. Does not wait, except for
        a moment where another machine held it last: ask again to learn that a heartbeat has stopped. BadInput where the
        folder can't be written."""
        assert self._file is None
        try:
            file = self._created()
            if file is None:
                file = self._taken()
        except OSError as error:
            raise BadInput(f"can't lock {self.path}: {error.strerror}; choose another folder") from None
        if file is None:
            return False
        self._file = file
        self._over.clear()
        threading.Thread(target=self._keep_alive, args=(self._over,), daemon=True).start()
        return True

    def _created(self) -> int | None:
        """The lock's file if it is new: linked into its place with its content, so that none ever sees it empty."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.{self._token}.part")
        file = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(file)
            self.starts = 1
            _write(file, self._note(held=True))
            os.link(beside, self.path)
        except (FileExistsError, FileNotFoundError):  # another holds it, and may have cleared this one's part away
            os.close(file)
            return None
        except OSError as error:
            os.close(file)
            if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            return self._created_without_links()
        finally:
            beside.unlink(missing_ok=True)
        return file

    def _created_without_links(self) -> int | None:
        """The same on a file system that has no hard links; for a moment others see it empty, and wait."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        _flock(file)
        _write(file, self._note(held=True))
        return file

    def _taken(self) -> int | None:
        """The lock's file if its holder has left it or is dead."""
        try:
            file = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return None  # finished this moment
        if not self._may_take(file):
            os.close(file)
            return None
        note = _read(file)
        self.starts = int(note.get("starts", 1)) + 1
        _write(file, self._note(held=True))
        if note.get("machine") != machine() or not _flock(file):
            time.sleep(SETTLE_SECONDS)  # another one may have done the same just now; the last word counts
            if not self.is_mine():
                os.close(file)
                return None
        return file

    def _note(self, *, held: bool) -> dict[str, Any]:
        return {"token": self._token, "machine": machine(), "held": held, "starts": self.starts}

    def release(self, *, finished: bool) -> None:
        """finished: the work is done, and the file goes; otherwise it stays and remembers the starts."""
        assert self._file is not None
        self._over.set()
        file, self._file = self._file, None
        if self.is_mine():
            if finished:
                self.path.unlink(missing_ok=True)
            else:
                _write(file, self._note(held=False))
        os.close(file)

    def is_held(self) -> bool:
        """Whether another holds it and lives, as far as can be seen by now. Changes nothing."""
        try:
            file = os.open(self.path, os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise BadInput(f"can't look at the lock {self.path}: {error.strerror}; choose another folder") from None
        try:
            return not self._may_take(file)
        finally:
            os.close(file)

    def _may_take(self, file: int) -> bool:
        """Free, or its holder dead. Where the kernel knows, it holds the file against others of this machine now."""
        kernel_knows = _flock(file)
        if kernel_knows is False:
            return False
        if not self._is_at_path(file):
            return False  # finished, or taken over, since it was opened
        note = _read(file)
        if not note.get("held", True) or (kernel_knows and note.get("machine") == machine()):
            return True
        return not self._beats(file)

    def _beats(self, file: int) -> bool:
        moved, now = os.fstat(file).st_mtime, time.monotonic()
        if self._last_beat is None or self._last_beat[0] != moved:
            self._last_beat = (moved, now)
        return now - self._last_beat[1] < self._dead_after

    def _keep_alive(self, over: threading.Event) -> None:
        while not over.wait(self._beat):
            try:
                if self.is_mine():
                    os.utime(self.path)
            except OSError:
                pass  # a folder that is away for a while; the next beat may get through

    def is_mine(self) -> bool:
        """Whether it is still held here: whoever slept too long may find that another has taken it over."""
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:
            return _read(file).get("token") == self._token
        finally:
            os.close(file)

    def _is_at_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False


def machine() -> str:
    """The same for all processes of a running kernel, containers included, and another one elsewhere."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{uuid.getnode():x}"


def _flock(file: int) -> bool | None:
    """Whether this process has it now; None where the file system knows no such locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _read(file: int) -> dict[str, Any]:
    """Empty where the file is damaged."""
    try:
        note = json.loads(os.pread(file, 4096, 0))
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _write(file: int, note: dict[str, Any]) -> None:
    text = json.dumps(note).encode()
    os.pwrite(file, text + b" " * max(0, os.fstat(file).st_size - len(text)), 0)
    os.fsync(file)
