"""The fused block on a GPU: batch norm, average pool and the neuron over all time steps, as Triton kernels.

`norm_pool_lif` imports Triton, so import it only where `compiles` returns True.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version

MOST_STEPS = 32  # time steps, which the kernels unroll: more take minutes to compile


@cache
def compiles(timesteps: int) -> bool:
    """Returns whether the kernels compile here: few enough steps, and a Triton that has tuples (since 3.3)."""
    try:
        found = re.match(r"(\d+)\.(\d+)", version("triton"))
    except PackageNotFoundError:
        return False
    return found is not None and (int(found[1]), int(found[2])) >= (3, 3) and timesteps <= MOST_STEPS
