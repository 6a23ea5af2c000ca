"""The visits of each training example, packed into few characters for the record."""

from __future__ import annotations

import base64
import binascii
import sys
import zlib
from array import array
from collections.abc import Iterable

from sadp_bench.core.errors import BadInput

MAX_VISITS = 2**16 - 1  # visits of one example, at most one an epoch
MAX_BYTES = 2**31  # bytes of the unpacked counts


def pack(counts: Iterable[int]) -> str:
    """Returns base64 of the zlib-compressed little-endian uint16 counts: for most methods under a byte per example."""
    return base64.b64encode(zlib.compress(_little(array("H", counts)).tobytes(), 9)).decode()


def unpack(packed: str, num_examples: int) -> list[int]:
    """Returns the counts of `num_examples` examples. Raises BadInput where `packed` has no such counts."""
    size = 2 * num_examples
    if size > MAX_BYTES:
        raise BadInput(f"the record's visits are of {num_examples:,} examples: more than can be read")
    try:
        whole = zlib.decompressobj()
        raw = whole.decompress(base64.b64decode(packed, validate=True), size + 1)
    except (binascii.Error, ValueError, zlib.error):
        raise BadInput("the record's visits can't be unpacked: damaged?") from None
    if len(raw) != size or not whole.eof:
        raise BadInput(f"the record's visits are not those of {num_examples:,} examples: damaged?")
    return _little(array("H", raw)).tolist()


def _little(counts: array[int]) -> array[int]:
    if sys.byteorder == "big":
        counts.byteswap()
    return counts
