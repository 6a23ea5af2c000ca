"""N-Caltech101: event recordings of Caltech101's images, cut into frames."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable
from sadp_bench.datasets.archives import first_there, members
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.event_formats import read_atis
from sadp_bench.datasets.events import absent
from sadp_bench.datasets.recordings import Clip, Recordings
from sadp_bench.datasets.splits import HASHED, check_hashed, checked_list, hashed_split

SENSOR = 180, 240  # rows and columns, pixels
MARKER_ROW = 240  # row of the events that mark an overflow of the clock
PUBLISHER = "https://www.garrickorchard.com/datasets/n-caltech101"


class NCaltech101(Dataset):
    """8,709 event recordings of objects, 240x180, 2 polarities: a tenth of each of 101 classes to test.

    Source: G. Orchard, A. Jayawant, G. Cohen and N. Thakor, 2015, https://www.garrickorchard.com/datasets/n-caltech101
    The paper is Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades.

    The files are the publisher's (CC BY 4.0), downloaded by hand: `N-Caltech101/Caltech101.zip`, or its folder
    `N-Caltech101/Caltech101`. All recordings found there are used, in the order of class and name. The classes are the
    folders. Each recording becomes T frames (see `events.frames`). The sensor's 240x180 pixels become side x side.
    The publisher has no split. The test set is a tenth of each class, chosen by the SHA-1 of CLASS/FILE.

    Args:
        root: The folder of all data sets.
        timesteps: T, the frames of a recording.
        by: How a recording is cut into T frames: by "time" into equal durations, by "number" into equal numbers of events.
        side: Pixels of each side of a frame; a pixel counts the events of the sensor's pixels that it covers.
        split: The rule that chooses the test recordings; there is only this one.
        test_list: Hash of the list of test recordings, a part of the run's key; filled in when the run is resolved.
    """

    events = True
    batch_size = 64
    timesteps = 10
    scale = 1.0
    mean = (0.0, 0.0)
    std = (1.0, 1.0)

    def __init__(
        self,
        root: Path,
        timesteps: int,
        *,
        by: str = "time",
        side: int = 48,
        split: str = HASHED,
        test_list: str = "",
    ) -> None:
        decode = partial(read_atis, marker_row=MARKER_ROW)
        recordings = Recordings("N-Caltech101", PUBLISHER, decode, SENSOR, (side, side), timesteps, by)
        check_hashed(split)
        source = self.locate(root)
        if source is None:
            raise absent(root / "N-Caltech101" / "Caltech101.zip", PUBLISHER, root / "N-Caltech101")
        files = sorted(_class_and_file(member.path) for member in members(source) if member.path.suffix == ".bin")
        self.class_names = tuple(sorted({file.partition("/")[0] for file in files}))
        if len(self.class_names) < 2:
            raise BadInput(f"{printable(str(source))} has no folders of two classes; get it anew from {PUBLISHER}")
        label_N = [self.class_names.index(file.partition("/")[0]) for file in files]
        _, test = hashed_split(files, label_N)
        self.found = {"test_list": checked_list(test_list, [files[place] for place in test])}
        held = set(test)
        clips = {file: [Clip("test" if place in held else "train", label_N[place])] for place, file in enumerate(files)}
        self.train, self.test = recordings.examples([source], clips, _class_and_file)

    @classmethod
    def locate(cls, root: Path, **settings: Any) -> Path | None:
        """Returns the folder of the recordings, or the publisher's archive; None where neither exists."""
        folder = root / "N-Caltech101"
        return first_there([folder / "Caltech101", folder / "Caltech101.zip"])


def _class_and_file(path: PurePosixPath) -> str:
    return "/".join(path.parts[-2:])
