"""The folder of a run's records, which somebody may remove, rename or replace while the run trains."""

from __future__ import annotations

import os
from pathlib import Path


class OutFolder:
    """A folder, as it was when this object was made.

    Args:
        path: The folder, which exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # An open folder can be found under its new name. Windows opens no folder, and forbids renaming one with open files.
        self._open = os.open(path, os.O_RDONLY) if hasattr(os, "O_DIRECTORY") else None
        self._was = _identity(path)

    def close(self) -> None:
        """Closes the folder."""
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def fault(self) -> str:
        """Returns a sentence on what happened to the folder and where a run in it can go on; "": it is still there."""
        if _identity(self.path) == self._was:
            return ""
        happened = "was removed or renamed" if not os.path.lexists(self.path) else "was replaced by another"
        place = self._place_now()
        if place is None:
            return f"the folder {self.path} {happened}; the same command goes on where --out names it as it is now"
        if place:
            return f"the folder {self.path} {happened}, and is {place} now; the same command with --out {place} goes on"
        return f"the folder {self.path} {happened}, and its checkpoints are gone with it; the same command begins anew"

    def _place_now(self) -> str | None:
        """Returns the folder's present path; "" where it is gone, and None where the system can't find it."""
        link = f"/proc/self/fd/{self._open}"
        if self._open is None or not os.path.lexists(link):
            return None
        place = os.readlink(link)
        return place if _identity(Path(place)) == self._was else ""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
