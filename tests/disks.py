"""Real faults of a file system: one that is full, and one that belongs to somebody else."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

NOBODY = 65534


@contextmanager
def small_disk(size: str = "64k") -> Iterator[Path]:
    """Yields the folder of a small file system; skips the test where none may be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting a small tmpfs needs root on Linux")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    """Writes to the folder until nothing more fits."""
    with suppress(OSError), (folder / "filler").open("ab", buffering=0) as sink:
        while sink.write(bytes(4096)):
            pass


@contextmanager
def foreign_folder() -> Iterator[Path]:
    """Yields a readable folder that this process may not write to while `unprivileged`."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Removes the right to write to the folder within the block: root becomes nobody, others change its mode."""
    if not hasattr(os, "setresuid"):
        pytest.skip("needs Linux")
    if os.geteuid() == 0:
        os.setresuid(NOBODY, NOBODY, 0)
    else:
        os.chmod(folder, 0o555)
    try:
        yield
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
        else:
            os.chmod(folder, 0o755)
