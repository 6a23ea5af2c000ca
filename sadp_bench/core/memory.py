"""The memory of this machine."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sadp_bench.core.errors import BadInput

GIB = 2**30
CONTROL_GROUPS = Path("/proc/self/cgroup")  # cgroups(7)
GROUP_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def uncollected() -> Iterator[None]:
    """Suspends the search for cyclic garbage within the context.

    Records have no cycles, and each search would visit all objects of thousands of records.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def machine_bytes() -> int | None:
    """Returns the machine's memory, or the limit of this process's control groups if it is lower; None: not known."""
    known = []
    with suppress(AttributeError, ValueError, OSError):  # no such call, or no such name, as on Windows
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in _group_limits():
        with suppress(OSError, ValueError):  # no such file, or no limit: "max"
            known.append(int(file.read_text()))
    return min((limit for limit in known if limit > 0), default=None)


def _group_limits() -> Iterator[Path]:
    """Yields the files with the limits of this process's control groups; a group comes before the groups around it."""
    lines = []
    with suppress(OSError, ValueError):  # not on Linux
        lines = CONTROL_GROUPS.read_text().splitlines()
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers == "":  # version 2
            root, name = GROUP_ROOT, "memory.max"
        elif controllers == "memory":
            root, name = GROUP_ROOT / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = root / place.lstrip("/")
        yield from (at / name for at in (folder, *folder.parents) if at.is_relative_to(root))


def check_room(needed: float, what: str, remedy: str) -> None:
    """Raises BadInput where this machine has too little memory; the system would kill the process without a message.

    Args:
        needed: Bytes that are needed at least.
        what: The part that needs them, for the message.
        remedy: What the user can do, for the message.
    """
    room = machine_bytes()
    if room is not None and needed > room:
        raise BadInput(
            f"{what} needs at least {needed / GIB:,.1f} GiB of memory, and there are {room / GIB:,.1f}; {remedy}"
        )
