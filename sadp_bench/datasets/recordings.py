"""Reads files of recordings, one by one, into frames in memory, and keeps the frames for the next start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable
from sadp_bench.datasets.archives import Member, members
from sadp_bench.datasets.events import Events, check_by, frames, room
from sadp_bench.datasets.examples import Examples
from sadp_bench.datasets.frame_cache import cached_frames, state_of
from sadp_bench.datasets.progress import bar

PARTS = ("train", "test")
DECODING = 1  # the version of `events.frames` and of the readers; another version makes other frames


class Clip(NamedTuple):
    """An example: a recording, or a part of it.

    Attributes:
        part: "train" or "test".
        label: The class.
        start: The first microsecond of the part; None: the example is the whole recording.
        end: The microsecond after the part's last; not used without a start.
    """

    part: str
    label: int
    start: int | None = None
    end: int = 0


@dataclass(frozen=True)
class Recordings:
    """Turns the recordings of a data set into frames [T, 2, H, W].

    Args:
        what: The data set's name, for messages.
        publisher: The publisher's address, for messages.
        decode: Returns the events of a file's content, or raises ValueError.
        sensor: Rows and columns of the sensor.
        sides: H and W of a frame; see `events.frames`.
        timesteps: T.
        by: See `events.frame_of`.
    """

    what: str
    publisher: str
    decode: Callable[[NDArray[np.uint8]], Events]
    sensor: tuple[int, int]
    sides: tuple[int, int]
    timesteps: int
    by: str

    def __post_init__(self) -> None:
        check_by(self.by)
        for side, most in zip(self.sides, self.sensor, strict=True):
            if not 1 <= side <= most:
                raise BadInput(f"dataset.side is 1 to {min(self.sensor)} pixels for {self.what}, not {side}")

    def examples(
        self, sources: Sequence[Path], clips: Mapping[str, Sequence[Clip]], name: Callable[[PurePosixPath], str]
    ) -> list[Examples]:
        """Returns the examples to train on and those to test on.

        Args:
            sources: Folders or archives.
            clips: The examples of each file to read, in the order of the examples.
            name: Returns a file's key in `clips` for its path within the source.

        Raises:
            BadInput: A file is absent or broken.
        """
        label_N: dict[str, list[int]] = {part: [] for part in PARTS}
        rows: dict[str, list[tuple[Clip, int]]] = {}
        for key, of_file in clips.items():
            rows[key] = []
            for clip in of_file:
                rows[key].append((clip, len(label_N[clip.part])))
                label_N[clip.part].append(clip.label)
        shape = self.timesteps, 2, *self.sides
        both = room(sum(map(len, label_N.values())), shape, self.what)
        input_N = {"train": both[: len(label_N["train"])], "test": both[len(label_N["train"]) :]}

        def make() -> None:
            with bar(f"reading {self.what}", len(rows)) as advance:
                for member in chain.from_iterable(map(members, sources)):
                    of_member = rows.pop(name(member.path), [])
                    for clip, row, frames_T in self._frames(member, of_member):
                        input_N[clip.part][row] = frames_T
                    advance(bool(of_member))
            for key in rows:
                wanted = printable(f"{sources[-1]}/{key}")
                raise BadInput(f"{wanted} is not there, or is no regular file; get it anew from {self.publisher}")

        state = [f"{DECODING} {self.what} {self.sides} {self.timesteps} {self.by}", repr(clips)]
        for source in sources:
            state += [str(source.resolve()), *sorted(state_of(source))]
        cached_frames(self.what, state, both, make)
        return [
            Examples(torch.from_numpy(input_N[part]), torch.tensor(label_N[part], dtype=torch.int64)) for part in PARTS
        ]

    def _frames(
        self, member: Member, rows: Sequence[tuple[Clip, int]]
    ) -> Iterable[tuple[Clip, int, NDArray[np.uint8]]]:
        """Yields the examples of a file with their rows and frames. A file without examples is not read."""
        if not rows:
            return
        content = member.read()
        with_place = ""
        try:
            events = self.decode(content)
            for clip, row in rows:
                with_place = "" if clip.start is None else f"from {clip.start} to {clip.end} us "
                of_clip = events if clip.start is None else events.between(clip.start, clip.end)
                yield clip, row, frames(of_clip, self.timesteps, self.sensor, self.by, self.sides)
        except ValueError as error:
            raise self.broken(member, with_place + str(error)) from error

    def broken(self, member: Member, why: str) -> BadInput:
        """Returns the error for a broken file."""
        return BadInput(f"{printable(member.place)} is broken: {why}; get it anew from {self.publisher}")


def text_of(member: Member) -> str:
    """Returns the content of a text file. Raises ValueError where it is no UTF-8."""
    return member.read().tobytes().decode("utf-8-sig")
