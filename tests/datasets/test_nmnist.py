"""N-MNIST against an independent decoding of its recordings, and the messages about bad ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sadp_bench.datasets import events, nmnist
from sadp_bench.datasets.event_formats import read_atis
from sadp_bench.datasets.nmnist import NMNIST
from tests.datasets.helpers import real, refusal

pytestmark = pytest.mark.usefixtures("no_network")


def recording(*events: tuple[int, int, int, int]) -> bytes:
    """Returns the publisher's bytes of events (x, y, polarity, microseconds)."""
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for x, y, p, t in events)


def decoded(content: bytes) -> list[tuple[int, int, int, int]]:
    words = (int.from_bytes(content[start : start + 5], "big") for start in range(0, len(content), 5))
    return [(word >> 32, word >> 24 & 255, word >> 23 & 1, word & 0x7FFFFF) for word in words]


def counted(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def frames(content: np.ndarray, timesteps: int) -> np.ndarray:
    return events.frames(read_atis(content), timesteps, (34, 34))


def small_nmnist(root: Path) -> Path:
    for part in ("Train", "Test"):
        for digit in range(10):
            folder = root / "NMNIST" / part / str(digit)
            folder.mkdir(parents=True)
            for number in (20, 3):
                (folder / f"{number:05}.bin").write_bytes(recording((digit, number, 1, 5), (33, 33, 0, 900)))
    return root / "NMNIST"


def test_events_fall_into_frames_of_equal_duration() -> None:
    content = recording((1, 2, 0, 100), (33, 0, 1, 349), (0, 33, 1, 350), (5, 5, 1, 1099), (5, 5, 1, 1099))
    found = frames(counted(content), 4)  # 1,000 microseconds, 250 a frame
    assert found.shape == (4, 2, 34, 34) and found.dtype == np.uint8 and found.sum() == 5
    assert found[0, 0, 2, 1] == found[0, 1, 0, 33] == found[1, 1, 33, 0] == 1 and found[3, 1, 5, 5] == 2


def test_the_order_of_events_in_a_file_does_not_matter() -> None:
    made = [(x, 33 - x, x % 2, 8_388_607 - 1000 * x) for x in range(34)]
    assert np.array_equal(frames(counted(recording(*made)), 5), frames(counted(recording(*made[::-1])), 5))


def test_a_single_event_is_in_the_first_frame() -> None:
    assert frames(counted(recording((3, 4, 1, 7))), 10)[0, 1, 4, 3] == 1


def test_counts_stop_at_255() -> None:
    assert frames(counted(recording(*[(0, 0, 1, 0)] * 300)), 1)[0, 1, 0, 0] == 255


def test_recordings_are_in_the_order_of_digit_and_id(tmp_path: Path) -> None:
    folder = small_nmnist(tmp_path)
    (folder / "Train" / "0" / "._00003.bin").write_bytes(b"left by an unpacker")
    assert NMNIST.locate(tmp_path) == folder
    data = NMNIST(tmp_path, 2)
    assert data.train.label_N.tolist() == [digit for digit in range(10) for _ in range(2)]
    for row, digit in enumerate(data.train.label_N.tolist()):
        assert data.train.input_N[row, 0, 1, (3, 20)[row % 2], digit] == 1
    assert data.train.input_N.dim() == 5 and data.train.input_shape == (2, 34, 34)


def test_a_broken_recording_is_named(tmp_path: Path) -> None:
    file = small_nmnist(tmp_path) / "Test" / "7" / "00020.bin"
    whole, outside = recording((1, 1, 1, 1)), recording((1, 1, 1, 1), (34, 0, 1, 2))
    for content in (b"", whole[:-1], outside, recording((0, 240, 0, 1))):
        file.write_bytes(content)
        assert f"{file} is broken" in refusal(NMNIST, tmp_path, 4)


def test_an_empty_or_missing_class_folder_is_named(tmp_path: Path) -> None:
    folder = small_nmnist(tmp_path) / "Train" / "4"
    for file in folder.iterdir():
        file.unlink()
    assert f"{folder} has no recordings" in refusal(NMNIST, tmp_path, 4)
    folder.rmdir()
    assert NMNIST.locate(tmp_path) is None
    message = refusal(NMNIST, tmp_path, 4)
    assert f"{folder} is not there" in message and nmnist.PUBLISHER in message


def test_real_nmnist_frames_equal_a_plain_decoding(real_data: Path) -> None:
    root = real(real_data, NMNIST) / "NMNIST"
    data = NMNIST(real_data, 4)
    files = sorted(root.glob("Train/*/*.bin"))
    assert data.train.input_N.shape == (len(files), 4, 2, 34, 34)
    for row in (0, len(files) // 2, len(files) - 1):
        made = decoded(files[row].read_bytes())
        assert int(data.train.label_N[row]) == int(files[row].parent.name)
        first, last = min(t for *_, t in made), max(t for *_, t in made)
        cells = Counter(((t - first) * 4 // (last - first + 1), p, y, x) for x, y, p, t in made)
        found = data.train.input_N[row]
        assert int(found.sum()) == len(made)
        assert {cell: int(found[cell]) for cell in cells} == dict(cells)
