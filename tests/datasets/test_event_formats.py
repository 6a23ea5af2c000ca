"""The readers of event formats against SpikingJelly's where those are right, else against a plain decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spikingjelly.datasets import cifar10_dvs as oracle_dvs
from spikingjelly.datasets import utils as oracle

from sadp_bench.datasets.cifar10_dvs import turned
from sadp_bench.datasets.event_formats import read_aedat2, read_aedat3, read_atis
from sadp_bench.datasets.events import Events
from tests.datasets.event_files import AEDAT3_HEADER, DVS_HEADER, Event, aedat2, aedat3, atis, other_packet, packet

PACKETS = 12  # of a real recording that SpikingJelly decodes, event by event
EVENTS: list[Event] = [(3, 120, 1, 10), (127, 0, 0, 10), (64, 64, 1, 9), (0, 127, 0, 5_000_000)]


def array(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def rows(events: Events) -> list[Event]:
    return list(zip(*(c.tolist() for c in (events.x, events.y, events.polarity, events.microseconds)), strict=True))


def theirs(events: dict[str, Any]) -> list[Event]:
    return list(zip(*(np.asarray(events[name], np.int64).tolist() for name in "xypt"), strict=True))


def broken(read: Any, content: bytes) -> str:
    with pytest.raises(ValueError) as caught:
        read(array(content))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_made_events_come_back_from_each_format_also_where_times_step_back() -> None:
    assert rows(read_atis(array(atis(EVENTS)))) == EVENTS
    assert rows(read_aedat2(array(aedat2(EVENTS)))) == EVENTS
    assert rows(read_aedat3(array(aedat3(packet(EVENTS[:1]), packet(EVENTS[1:]))))) == EVENTS


def test_made_files_read_as_by_spikingjelly(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    columns = [draw.integers(0, most, 500) for most in (128, 128, 2, 1 << 23)]
    events = list(zip(*(column.tolist() for column in columns), strict=True))
    file = tmp_path / "recording"
    file.write_bytes(atis(events))
    assert rows(read_atis(array(file.read_bytes()))) == theirs(oracle.load_ATIS_bin(file))
    file.write_bytes(aedat2(events))
    assert rows(turned(array(file.read_bytes()))) == theirs(oracle_dvs._load_origin_data(file))
    file.write_bytes(aedat3(packet(events[:200], overflow=3), other_packet(0, 8, 2), packet(events[200:])))
    assert rows(read_aedat3(array(file.read_bytes()))) == theirs(oracle.load_aedat_v3(file))


def test_real_recordings_read_as_by_spikingjelly(real_data: Path, tmp_path: Path) -> None:
    for file in sorted((real_data / "dvs128").glob("*.aedat")):
        mine, other = turned(np.fromfile(file, np.uint8)), oracle_dvs._load_origin_data(file)
        assert len(mine.x) > 100_000 and np.array_equal(mine.microseconds, other["t"])
        for name, column in (("x", mine.x), ("y", mine.y), ("p", mine.polarity)):
            assert np.array_equal(column, other[name]), (file, name)
    for file in sorted((real_data / "DvsGesture").glob("*.aedat")):
        content = file.read_bytes()
        start = content.index(b"#!END-HEADER\r\n") + 14
        part = tmp_path / file.name
        part.write_bytes(content[: start + PACKETS * (28 + 8 * 4096)])
        assert rows(read_aedat3(array(part.read_bytes()))) == theirs(oracle.load_aedat_v3(part))
    for file in sorted((real_data / "NMNIST" / "Test" / "0").glob("*.bin")):
        assert rows(read_atis(np.fromfile(file, np.uint8))) == theirs(oracle.load_ATIS_bin(file))


def test_markers_of_overflow_move_all_later_times_and_are_no_events() -> None:
    marker = (17, 240, 1, 8_000)
    content = array(atis([(1, 2, 0, 8_191), marker, (3, 4, 1, 5), marker, marker, (5, 6, 0, 7)]))
    wanted = [(1, 2, 0, 8_191), (3, 4, 1, 5 + 2**13), (5, 6, 0, 7 + 3 * 2**13)]
    assert rows(read_atis(content, marker_row=240)) == wanted
    assert len(rows(read_atis(content))) == 6  # N-MNIST has none; its sensor ends at row 33, and a frame refuses them


def test_invalid_events_and_padding_are_left_out() -> None:
    content = aedat3(
        packet(EVENTS, valid=[1, 0, 1, 0], padding=5), other_packet(2, 36, 3), packet(EVENTS[:1], padding=1)
    )
    assert rows(read_aedat3(array(content))) == [EVENTS[0], EVENTS[2], EVENTS[0]]
    assert rows(read_aedat3(array(aedat3(packet([], padding=2))))) == []


def test_a_time_overflow_of_aedat3_adds_two_to_the_31() -> None:
    content = aedat3(packet([(1, 1, 1, 2**31 - 1)]), packet([(1, 1, 1, 3)], overflow=1))
    assert [t for *_, t in rows(read_aedat3(array(content)))] == [2**31 - 1, 2**31 + 3]


def test_a_clock_that_runs_over_in_aedat2_goes_on_and_one_that_steps_back_steps_back() -> None:
    times = [2**32 - 5, 2**32 - 1, 2**32 + 7, 2**32 + 3, 2**32 + 9]
    content = aedat2([(1, 1, 1, time) for time in times])
    assert [t for *_, t in rows(read_aedat2(array(content)))] == times


def test_an_event_that_begins_like_a_comment_is_no_comment() -> None:
    special = b"#\x00\x80\x00" + b"\x00\x00\x00\x05"  # an event of the camera: bit 15 of its address
    assert rows(read_aedat2(array(DVS_HEADER + special + aedat2(EVENTS, header=b"")))) == EVENTS
    pixel = b"#\x00\x00\x00" + b"\x00\x00\x00\n"
    assert "0x23000000" in broken(read_aedat2, DVS_HEADER + pixel)


def test_events_of_the_camera_itself_are_left_out_of_aedat2() -> None:
    for special in (0x8000, 0x8000_0000, 0x8000_8001):
        content = aedat2(EVENTS[:2]) + special.to_bytes(4, "big") + bytes(4) + aedat2(EVENTS[2:], header=b"")
        assert rows(read_aedat2(array(content))) == EVENTS


def test_broken_content_is_refused_with_the_reason() -> None:
    good2, good3 = aedat2(EVENTS), aedat3(packet(EVENTS[:2]), packet(EVENTS[2:]))
    second = len(aedat3(packet(EVENTS[:2])))
    for read, content, words in (
        (read_atis, b"", "0 bytes"),
        (read_atis, atis(EVENTS)[:-1], "19 bytes are not a whole number of 5-byte events"),
        (read_aedat2, b"", "does not begin with #!AER-DAT2"),
        (read_aedat2, good3, "does not begin with #!AER-DAT2"),
        (read_aedat2, good2[:-3], "cut short: it has 5 of 8 bytes"),
        (read_aedat2, aedat2([(0, 256, 1, 1)]), "address 0x10000"),
        (read_aedat3, b"", "does not begin with #!AER-DAT3"),
        (read_aedat3, good2, "does not begin with #!AER-DAT3"),
        (read_aedat3, AEDAT3_HEADER[:-3], "ends with #!END-HEADER"),
        (read_aedat3, good3[:-1], f"the packet at byte {second} is cut short"),
        (read_aedat3, good3[: second + 20], f"the packet at byte {second} is cut short"),
        (read_aedat3, good3[:second] + other_packet(1, 16, 1), f"byte {second} has a header that no packet has"),
        (read_aedat3, good3[:second] + b"\xff" * 60, f"byte {second} has a header that no packet has"),
        (read_aedat3, good3[:second] + bytes(28), f"byte {second} has a header that no packet has"),
        (read_aedat3, aedat3(packet(EVENTS, overflow=2**30)), "a header that no packet has"),
        (read_aedat3, aedat3(packet([(1, 1, 1, -5)])), "a negative time"),
    ):
        assert words in broken(read, content), words
