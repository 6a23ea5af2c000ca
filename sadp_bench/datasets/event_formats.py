"""The three binary formats of event recordings. Each reader returns the events, or raises ValueError for broken content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sadp_bench.datasets.events import Events

ATIS_BYTES = 5  # bytes of an event
MARKER_MICROSECONDS = 1 << 13  # microseconds that a marker of overflow adds to the times of all later events
AEDAT2_BYTES = 8  # bytes of an event
SPECIAL = 0x8000_8000  # bits of a DVS128's address; one of them is set in an event that comes from no pixel (jAER)
DVS128_BITS = 15  # bits of an address
HEADER_BYTES = 1 << 16  # most bytes of a header line in AEDAT 2.0, and of the header in AEDAT 3.1
POLARITY, POLARITY_BYTES = 1, 8  # type of a packet of AEDAT 3.1; bytes of its events
PACKET = np.dtype(
    [
        ("type", "<i2"),
        ("source", "<i2"),
        ("size", "<i4"),  # bytes of an event
        ("offset", "<i4"),
        ("overflow", "<i4"),  # the upper bits of all times
        ("capacity", "<i4"),  # events that the packet has room for
        ("number", "<i4"),  # events in it; the rest is padding
        ("valid", "<i4"),
    ]
)
MOST_OVERFLOWS = 1 << 15  # overflows of the clock, 36 minutes each


def read_atis(content: NDArray[np.uint8], marker_row: int | None = None) -> Events:
    """Returns the events of a recording of N-MNIST or N-Caltech101.

    An event has 40 bits, big-endian: x (8), y (8), polarity (1 = on), microseconds (23).

    Args:
        content: The file's content.
        marker_row: Events in this row are markers of overflow, and no events; None: there are no markers.
    """
    if content.size == 0 or content.size % ATIS_BYTES:
        raise ValueError(f"{content.size:,} bytes are not a whole number of {ATIS_BYTES}-byte events")
    x, y, high, middle, low = content.reshape(-1, ATIS_BYTES).T.astype(np.int64)
    microseconds = (high & 127) << 16 | middle << 8 | low
    if marker_row is None:
        return Events(x, y, high >> 7, microseconds)
    marker = y == marker_row
    microseconds += np.cumsum(marker) * MARKER_MICROSECONDS
    return Events(x[~marker], y[~marker], high[~marker] >> 7, microseconds[~marker])


def read_aedat2(content: NDArray[np.uint8]) -> Events:
    """Returns the events of a DVS128 in AEDAT 2.0, in the sensor's own columns and rows.

    Lines that begin with # come first. Events of 64 bits follow, big-endian: address (32), microseconds (32). Bit 0 of an
    address is the polarity (1 = off), bits 1 to 7 are x, and bits 8 to 14 are y. Events that come from no pixel (`SPECIAL`)
    are left out. The clock overflows after 2^32 microseconds. The overflow is undone: a step between two events counts as
    less than 2^31.

    Source: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html
    """
    body = content[_end_of_comments(content) :]
    if body.size % AEDAT2_BYTES:
        raise ValueError(f"its last event is cut short: it has {body.size % AEDAT2_BYTES} of {AEDAT2_BYTES} bytes")
    address, clock = body.view(">u4").astype(np.uint32).reshape(-1, 2).T
    if clock.size:
        clock = np.append(np.int64(clock[0]), clock[0] + np.cumsum(np.diff(clock).view(np.int32), dtype=np.int64))
    pixel = (address & SPECIAL) == 0
    address, microseconds = address[pixel].astype(np.int64), clock[pixel].astype(np.int64)
    if (address >> DVS128_BITS).any():
        first = int((address >> DVS128_BITS != 0).argmax())
        raise ValueError(f"event {first} has the address {address[first]:#x}, and a DVS128's has {DVS128_BITS} bits")
    return Events(address >> 1 & 127, address >> 8 & 127, 1 - (address & 1), microseconds)


def _end_of_comments(content: NDArray[np.uint8]) -> int:
    """Returns the place of the first event of AEDAT 2.0.

    An event may begin with # too. So a line counts as header only if it is printable and ends within `HEADER_BYTES`.
    """
    if content[:10].tobytes() != b"#!AER-DAT2":
        raise ValueError("it does not begin with #!AER-DAT2, as AEDAT 2.0 does")
    line, place = re.compile(rb"#[\t\x20-\xff]*\r?\n"), 0
    while found := line.match(content[place : place + HEADER_BYTES].tobytes()):
        place += found.end()
    return place


def read_aedat3(content: NDArray[np.uint8]) -> Events:
    r"""Returns the valid polarity events of AEDAT 3.1, in the sensor's own columns and rows.

    Lines of text up to "#!END-HEADER\r\n" come first. Packets follow, each a header (`PACKET`) and room for `capacity`
    events. A polarity event has 64 bits, little-endian. Bit 0 of the first 32 is 1 in a valid event, bit 1 is the polarity
    (1 = on), bits 2 to 16 are y, and bits 17 to 31 are x. The other 32 have the lower 31 bits of the microseconds; the
    packet's overflow has the upper bits.

    Source: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html
    """
    mark = b"#!END-HEADER\r\n"
    end = content[:HEADER_BYTES].tobytes().find(mark)
    if content[:10].tobytes() != b"#!AER-DAT3" or end < 0:
        raise ValueError(
            "it does not begin with #!AER-DAT3 and a header that ends with #!END-HEADER, as AEDAT 3.1 does"
        )
    parts = [np.empty((0, 2), np.int64)]
    for place, packet in _packets(content, end + len(mark)):
        if packet["type"] == POLARITY and packet["number"]:
            start = place + PACKET.itemsize
            words = np.frombuffer(content, "<u4", 2 * int(packet["number"]), start).reshape(-1, 2).astype(np.int64)
            valid = words[words[:, 0] & 1 == 1]
            if (valid[:, 1] >> 31).any():
                raise ValueError(f"the packet at byte {place:,} has an event at a negative time")
            valid[:, 1] |= int(packet["overflow"]) << 31
            parts.append(valid)
    word, microseconds = np.concatenate(parts).T
    return Events(word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1, microseconds)


def _packets(content: NDArray[np.uint8], place: int) -> Iterator[tuple[int, Any]]:
    """Yields the place and the header of each packet of AEDAT 3.1. Raises ValueError where a packet is not whole."""
    while place < content.size:
        if content.size - place < PACKET.itemsize:
            raise ValueError(f"the packet at byte {place:,} is cut short")
        packet = np.frombuffer(content, PACKET, 1, place)[0]
        size, capacity, number, overflow = (int(packet[name]) for name in ("size", "capacity", "number", "overflow"))
        wrong_size = size != POLARITY_BYTES if packet["type"] == POLARITY else size < 1
        if wrong_size or not 0 <= number <= capacity or not 0 <= overflow < MOST_OVERFLOWS:
            raise ValueError(f"the packet at byte {place:,} has a header that no packet has")
        end = place + PACKET.itemsize + capacity * size
        if end > content.size:
            raise ValueError(f"the packet at byte {place:,} is cut short")
        yield place, packet
        place = end
