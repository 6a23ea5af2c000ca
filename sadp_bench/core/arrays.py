"""Reads arrays of a `.npz` or `.npy` file from anywhere: it builds no Python object, and limits the size."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

MOST_BYTES = 1 << 32  # bytes of an archive's arrays, unpacked
Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]


def unpacked(content: bytes, wanted: Callable[[str], bool] = lambda name: True) -> Arrays:
    """Returns the arrays of a `.npz` file, by name.

    Args:
        content: The file's content.
        wanted: Returns whether to read the array of a name.

    Raises:
        Exception: The file is damaged, has Python objects, or is too large. The exception is of many kinds.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        size = sum(part.file_size for part in found.zip.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES:,} bytes, unpacked")
        return {name: found[name] for name in found.files if wanted(name)}


def single(content: bytes) -> Array:
    """Returns the array of a `.npy` file. Raises errors of many kinds, as `unpacked` does."""
    found: Array = np.load(io.BytesIO(content), allow_pickle=False)
    return found


def is_npz(content: bytes) -> bool:
    """Returns whether a content begins as an archive does."""
    return content[:2] == b"PK"


def is_npy(content: bytes) -> bool:
    """Returns whether a content begins as the file of one array does."""
    return content[:6] == b"\x93NUMPY"
