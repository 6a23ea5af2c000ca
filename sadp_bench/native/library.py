"""Finds and loads the C core, or states why it is absent.

The core has no threads of its own. It runs on the team of the OpenMP that torch itself runs on, because two pools of
threads would compete for the cores.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

NAME = "libcore"
SUFFIXES = (".so", ".dylib", ".dll")
BUILD = "install sadp-bench where there is a C compiler, such as gcc"


class Block(ctypes.Structure):
    """`block` of norm_pool_lif.c, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("timesteps", "examples", "height", "width", "channels")),
        *((name, ctypes.c_int32) for name in ("pool", "still", "bf16", "soft", "surrogate")),
        *((name, ctypes.c_int32) for name in ("normed", "training", "threads")),
        *((name, ctypes.c_float) for name in ("keep", "gain", "threshold", "momentum")),
        ("eps", ctypes.c_double),
        ("start", ctypes.c_void_p),
        *(
            (name, ctypes.c_void_p)
            for name in ("y", "weight", "bias", "share", "running_mean", "running_var", "mean", "inverse")
        ),
        *(
            (name, ctypes.c_void_p)
            for name in ("before", "after", "spikes", "error", "inner", "dy", "dweight", "dbias", "squares")
        ),
    ]


class Conv(ctypes.Structure):
    """`conv` of spike_conv.c, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs", "rows", "columns", "outputs")),
        *((name, ctypes.c_int32) for name in ("size", "stride", "padding", "threads")),
        *((name, ctypes.c_void_p) for name in ("start", "x", "weight", "bias", "y", "dy", "dweight")),
    ]


STRUCTURES: dict[str, type[ctypes.Structure]] = {"norm_pool_lif": Block, "spike_conv": Conv}


class Unavailable(Exception):
    """The C core can't be used here; the message states why."""


@cache
def core() -> ctypes.CDLL:
    """Returns the loaded library. Raises Unavailable."""
    folder = Path(__file__).parent
    file = next((file for suffix in SUFFIXES if (file := folder / f"{NAME}{suffix}").exists()), None)
    if file is None:
        raise Unavailable(f"the C core was not built: {BUILD}")
    try:
        library = ctypes.CDLL(str(file))
        sizes = {name: getattr(library, f"{name}_size") for name in STRUCTURES}
    except (OSError, AttributeError) as error:
        raise Unavailable(f"the C core does not load ({error}): {BUILD}") from None
    for name, size in sizes.items():
        size.restype = ctypes.c_int64
        if size() != ctypes.sizeof(STRUCTURES[name]):
            raise Unavailable("the C core was built from another version of its source: install sadp-bench again")
        for side in ("forward", "backward"):
            getattr(library, f"{name}_{side}").argtypes = [ctypes.c_void_p]
    return library


def call(function: str, structure: Block | Conv) -> None:
    """Runs a function of the core on torch's threads. Raises MemoryError where it finds no memory."""
    structure.threads, structure.start = torch.get_num_threads(), team()
    if getattr(core(), function)(ctypes.byref(structure)):
        raise MemoryError(f"{function} found no memory")


@cache
def team() -> int:
    """Returns the address of GOMP_parallel in the OpenMP that torch runs on. Raises Unavailable."""
    libraries = Path(torch.__file__).parent / "lib"
    file = next((file for suffix in SUFFIXES if (file := libraries / f"libtorch_cpu{suffix}").exists()), None)
    try:
        # The dynamic linker looks the name up in torch's library and in those that it depends on.
        address = ctypes.cast(ctypes.CDLL(str(file)).GOMP_parallel, ctypes.c_void_p).value if file else None
    except (OSError, AttributeError):
        address = None
    if address is None:
        raise Unavailable("the C core needs a torch that runs on OpenMP, such as the wheels for Linux")
    return address


def absence() -> str | None:
    """Returns why the C core can't be used here; None where it can."""
    try:
        core()
        team()
    except Unavailable as reason:
        return str(reason)
    return None


def channels_last(x: Tensor) -> Tensor:
    """Returns images with channels last in memory, as the core reads them."""
    return x.contiguous(memory_format=torch.channels_last)


def address(x: Tensor | None) -> int | None:
    """Returns the address of a tensor's first number; None for no tensor."""
    return None if x is None else x.data_ptr()
