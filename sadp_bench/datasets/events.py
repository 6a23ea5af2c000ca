"""Events, and frames of counts of events. E: events, T: frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sadp_bench.core.errors import BadInput
from sadp_bench.core.memory import check_room

BY = ("time", "number")
MOST = 255  # largest count of a pixel of a frame, as a uint8 holds no more
LONGEST = 1 << 40  # microseconds, 13 days; longer recordings are broken, and their product with T might overflow


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """The events of a recording, in the order of its file. Int64, [E].

    Attributes:
        x: Column, pixels.
        y: Row, pixels.
        polarity: 1 (on: brighter) or 0 (off: darker).
        microseconds: The time of each event. It may decrease.
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    polarity: NDArray[np.int64]
    microseconds: NDArray[np.int64]

    def between(self, start: int, end: int) -> Events:
        """Returns the events at start <= t < end, microseconds."""
        kept = (self.microseconds >= start) & (self.microseconds < end)
        return Events(self.x[kept], self.y[kept], self.polarity[kept], self.microseconds[kept])


def check_by(by: str) -> None:
    """Raises BadInput for an unknown rule of frames."""
    if by not in BY:
        raise BadInput(f"dataset.by is {' or '.join(BY)}, not '{by}'")


def frame_of(microseconds: NDArray[np.int64], timesteps: int, by: str) -> NDArray[np.int64]:
    """Returns the frame of each event, 0 to T - 1.

    The rule "time" cuts the time from the first event to the last, both included, into T equal parts. The event at t is in
    frame floor((t - first) T / (last - first + 1)). A part without events is an empty frame. The rule "number" cuts the
    events in the order of their times into T parts, whose sizes differ by one event at most. Events of equal time keep the
    order of the file.

    Args:
        microseconds: Times of the events, in any order. Int64, [E], not empty.
        timesteps: T.
        by: See `BY`.

    Raises:
        ValueError: The recording is longer than `LONGEST`.
    """
    if by == "number":
        frame = np.empty_like(microseconds)
        frame[microseconds.argsort(kind="stable")] = np.arange(len(frame)) * timesteps // len(frame)
        return frame
    elapsed = microseconds - microseconds.min()
    if elapsed.max() >= LONGEST:
        raise ValueError(f"its times span {elapsed.max() / 1e6:,.0f} seconds")
    return elapsed * timesteps // (elapsed.max() + 1)


def counted(
    cell: NDArray[np.int64], microseconds: NDArray[np.int64], timesteps: int, by: str, num_cells: int
) -> NDArray[np.uint8]:
    """Returns how many events each cell has in each frame, up to `MOST`. Uint8, [T, cells].

    Args:
        cell: The cell of each event, 0 to `num_cells` - 1. Int64, [E].
        microseconds: Times of the events.
        timesteps: T.
        by: See `frame_of`.
        num_cells: Number of cells of a frame.

    Raises:
        ValueError: There is no event, or the recording is too long.
    """
    if len(cell) == 0:
        raise ValueError("it has no events")
    place = frame_of(microseconds, timesteps, by) * num_cells + cell
    count = np.bincount(place, minlength=timesteps * num_cells)
    return np.minimum(count, MOST).astype(np.uint8).reshape(timesteps, num_cells)


def frames(
    events: Events,
    timesteps: int,
    sensor: tuple[int, int],
    by: str = "time",
    sides: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Returns the counts of a recording's events in frames [T, 2, H, W]: off and on events, up to `MOST` at a pixel.

    Args:
        events: Events of the recording.
        timesteps: T.
        sensor: Rows and columns of the sensor.
        by: See `frame_of`.
        sides: H and W; None: the sensor's. A pixel of a smaller frame counts the events of all pixels of the sensor that
            it covers. An event in column x counts in column floor(x W / columns).

    Raises:
        ValueError: There is no event, or one lies outside of the sensor.
    """
    rows, columns = sensor
    height, width = sides or sensor
    outside = (events.x < 0) | (events.x >= columns) | (events.y < 0) | (events.y >= rows)
    if outside.any():
        first = int(outside.argmax())
        place = f"x={events.x[first]}, y={events.y[first]}"
        raise ValueError(f"event {first} at {place} is outside the {columns}x{rows} sensor")
    y, x = events.y * height // rows, events.x * width // columns
    cell = (events.polarity * height + y) * width + x
    count = counted(cell, events.microseconds, timesteps, by, 2 * height * width)
    return count.reshape(timesteps, 2, height, width)


def room(number: int, shape: tuple[int, ...], what: str) -> NDArray[np.uint8]:
    """Returns an array for the frames of `number` recordings, not yet filled. Uint8, [number, *shape].

    Raises:
        BadInput: This machine has too little memory.
    """
    remedy = "lower --timesteps, or dataset.side where there is one"
    check_room(number * math.prod(shape), f"{what} in {shape[0]:,} frames", remedy)
    return np.empty((number, *shape), np.uint8)


def absent(wanted: Path, publisher: str, root: Path) -> BadInput:
    """Returns the error for absent files that a user must download by hand."""
    return BadInput(
        f"{wanted} is not there and has no automatic download; get it from {publisher} and put it into {root}, or name "
        "another folder with --data, or take --dataset digits"
    )
