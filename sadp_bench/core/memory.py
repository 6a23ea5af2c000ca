"""The memory that there is on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sadp_bench.core.errors import BadInput

GIB = 2**30
GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # v2, v1


def machine_bytes() -> int | None:
    """Returns the memory of the machine, or the limit of this process's control group; None where neither is known."""
    known = []
    with suppress(AttributeError, ValueError, OSError):  # no such call, or no such name, as on Windows
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in GROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or no limit: "max"
            known.append(int(file.read_text()))
    return min((limit for limit in known if limit > 0), default=None)


def check_room(needed: float, what: str, remedy: str) -> None:
    """Raises BadInput where this machine has less memory than is needed: the system would kill the process wordlessly.

    Args:
        needed: Bytes, at least.
        what: What needs them.
        remedy: What to do.
    """
    room = machine_bytes()
    if room is not None and needed > room:
        raise BadInput(
            f"{what} needs at least {needed / GIB:,.1f} GiB of memory, and there are {room / GIB:,.1f}; {remedy}"
        )
