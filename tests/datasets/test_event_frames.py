"""Frames of events: equal durations or equal numbers, closed, without a gap and without an error on empty parts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from spikingjelly.datasets import utils as oracle

from sadp_bench.datasets.events import LONGEST, Events, frame_of, frames

SENSOR = 12, 16  # rows and columns
EVENTS = some.lists(
    some.tuples(some.integers(0, 15), some.integers(0, 11), some.integers(0, 1), some.integers(-50, 2000)),
    min_size=1,
    max_size=80,
)
STEPS = some.integers(1, 12)


def events_of(rows: list[tuple[int, int, int, int]]) -> Events:
    return Events(*np.array(rows, np.int64).T)


@given(EVENTS, STEPS)
def test_by_time_every_event_is_in_the_part_of_the_closed_duration_that_holds_it(rows: list, timesteps: int) -> None:
    times = [t for *_, t in rows]
    part = Fraction(max(times) - min(times) + 1, timesteps)  # microseconds; the last event's own is included
    wanted = Counter(next(f for f in range(timesteps) if part * f <= t - min(times) < part * (f + 1)) for *_, t in rows)
    found = frames(events_of(rows), timesteps, SENSOR).sum((1, 2, 3))
    assert {frame: int(number) for frame, number in enumerate(found) if number} == wanted


@given(EVENTS, STEPS)
def test_by_number_parts_follow_each_other_in_time_and_differ_by_one_event_at_most(rows: list, timesteps: int) -> None:
    frame = frame_of(np.array([t for *_, t in rows]), timesteps, "number")
    sizes = [int((frame == f).sum()) for f in range(timesteps)]
    assert sum(sizes) == len(rows) and max(sizes) - min(sizes) <= 1
    in_time = sorted(range(len(rows)), key=lambda row: rows[row][3])  # a stable sort
    assert [int(frame[row]) for row in in_time] == sorted(frame.tolist())


@given(EVENTS, STEPS, some.sampled_from(["time", "number"]))
def test_every_event_is_counted_once_at_its_pixel(rows: list, timesteps: int, by: str) -> None:
    found = frames(events_of(rows), timesteps, SENSOR, by)
    assert found.shape == (timesteps, 2, *SENSOR) and found.dtype == np.uint8
    summed = found.sum(0)
    wanted = Counter((p, y, x) for x, y, p, _ in rows)
    assert {place: int(summed[place]) for place in wanted} == wanted and summed.sum() == len(rows)


def test_by_number_equals_spikingjelly_where_the_parts_are_equal() -> None:
    draw = np.random.default_rng(0)
    columns = [draw.integers(0, most, 600) for most in (16, 12, 2)]
    made = Events(*columns, np.sort(draw.integers(0, 10**6, 600)))
    as_theirs = {"x": made.x, "y": made.y, "p": made.polarity, "t": made.microseconds}
    for timesteps in (1, 4, 10, 600):
        theirs = oracle.integrate_events_by_fixed_frames_number(as_theirs, "number", timesteps, *SENSOR)
        assert np.array_equal(frames(made, timesteps, SENSOR, "number"), theirs)


def test_empty_parts_and_equal_times_are_no_error() -> None:
    gap = events_of([(0, 0, 1, 0), (1, 1, 0, 1_000_000)])
    assert frames(gap, 5, SENSOR).sum((1, 2, 3)).tolist() == [1, 0, 0, 0, 1]
    at_once = events_of([(0, 0, 1, 77)] * 3)
    assert frames(at_once, 4, SENSOR).sum((1, 2, 3)).tolist() == [3, 0, 0, 0]
    assert frames(at_once, 4, SENSOR, "number").sum((1, 2, 3)).tolist() == [1, 1, 1, 0]


def test_a_smaller_frame_counts_the_events_of_the_pixels_that_it_covers() -> None:
    draw = np.random.default_rng(0)
    made = Events(draw.integers(0, 16, 300), draw.integers(0, 12, 300), draw.integers(0, 2, 300), np.arange(300))
    whole, half = frames(made, 3, SENSOR), frames(made, 3, SENSOR, sides=(6, 8))
    assert np.array_equal(half, whole.reshape(3, 2, 6, 2, 8, 2).sum((3, 5)))
    uneven = frames(made, 3, SENSOR, sides=(5, 7))
    wanted = np.zeros_like(uneven)
    for row in range(12):
        for column in range(16):
            wanted[..., row * 5 // 12, column * 7 // 16] += whole[..., row, column]
    assert np.array_equal(uneven, wanted)


def test_counts_stop_at_255() -> None:
    assert frames(events_of([(3, 2, 1, 0)] * 300), 1, SENSOR)[0, 1, 2, 3] == 255


def test_recordings_without_events_outside_of_the_sensor_or_without_end_are_refused() -> None:
    good = events_of([(0, 0, 1, 0), (15, 11, 1, 5)])
    for wrong, words in (
        (good.between(10, 20), "it has no events"),
        (dataclasses.replace(good, x=good.x + 1), "event 1 at x=16, y=11 is outside the 16x12 sensor"),
        (dataclasses.replace(good, y=good.y - 1), "event 0 at x=0, y=-1 is outside"),
        (dataclasses.replace(good, microseconds=good.microseconds * LONGEST), "its times span 5,497,558 seconds"),
    ):
        with pytest.raises(ValueError, match=words):
            frames(wrong, 4, SENSOR)
