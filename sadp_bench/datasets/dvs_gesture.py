"""DVS128 Gesture: event recordings of hand and arm gestures, cut into frames."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable
from sadp_bench.datasets.archives import Member, first_there, members
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.event_formats import read_aedat3
from sadp_bench.datasets.events import absent
from sadp_bench.datasets.recordings import Clip, Recordings, text_of

SIDE = 128  # pixels of the sensor
LISTS = {"trials_to_train.txt": "train", "trials_to_test.txt": "test"}  # each line has a recording's name
TABLE = "_labels.csv"  # replaces .aedat in the name of a recording's table of trials
HEADER = "class,startTime_usec,endTime_usec"
PUBLISHER = "https://research.ibm.com/interactive/dvsgesture/"


class DVSGesture(Dataset):
    """1,464 event recordings of gestures, 128x128, 2 polarities: 1,176 to train, 288 to test, 11 classes.

    Source: A. Amir et al., CVPR 2017: A Low Power, Fully Event-Based Gesture Recognition System, https://research.ibm.com/interactive/dvsgesture/

    The files are the publisher's (CC BY 4.0), downloaded by hand: `DvsGesture.tar.gz`, or its folder `DvsGesture`. The split
    is the publisher's, by person: users 1 to 23 train, users 24 to 29 test. An example is a row of a recording's table of
    trials: the events at startTime <= t < endTime. It becomes T frames (see `events.frames`).

    Args:
        root: The folder of all data sets.
        timesteps: T, the frames of an example.
        by: How an example is cut into T frames: by "time" into equal durations, by "number" into equal numbers of events.
        side: Pixels of each side of a frame; a pixel counts the events of the sensor's pixels that it covers.
    """

    events = True
    batch_size = 16
    timesteps = 16
    scale = 1.0
    mean = (0.0, 0.0)
    std = (1.0, 1.0)
    class_names = (
        "hand clapping",
        "right hand wave",
        "left hand wave",
        "right arm clockwise",
        "right arm counter-clockwise",
        "left arm clockwise",
        "left arm counter-clockwise",
        "arm roll",
        "air drums",
        "air guitar",
        "other gestures",
    )

    def __init__(self, root: Path, timesteps: int, *, by: str = "time", side: int = SIDE) -> None:
        recordings = Recordings("DVS128 Gesture", PUBLISHER, read_aedat3, (SIDE, SIDE), (side, side), timesteps, by)
        source = self.locate(root)
        if source is None:
            raise absent(root / "DvsGesture.tar.gz", PUBLISHER, root)
        clips = _clips(source, recordings, len(self.class_names))
        self.train, self.test = recordings.examples([source], clips, _name)

    @classmethod
    def locate(cls, root: Path, **settings: Any) -> Path | None:
        """Returns the folder of the recordings, or the publisher's archive; None where neither exists."""
        return first_there([root / "DvsGesture", root / "DvsGesture.tar.gz"])


def _name(path: PurePosixPath) -> str:
    return path.name


def _clips(source: Path, recordings: Recordings, num_classes: int) -> dict[str, list[Clip]]:
    """Returns the trials of each recording, in the order of the publisher's lists.

    Raises:
        BadInput: A list or a table is absent or broken, or a recording is in both lists.
    """
    texts = {}
    for member in members(source):
        if member.path.name in LISTS or member.path.name.endswith(TABLE):
            try:
                texts[member.path.name] = member, text_of(member).splitlines()
            except UnicodeDecodeError as error:
                raise recordings.broken(member, "it is no UTF-8 text") from error
    clips: dict[str, list[Clip]] = {}
    for wanted, part in LISTS.items():
        if wanted not in texts:
            raise BadInput(f"{printable(str(source))} lacks {wanted}; get it anew from {PUBLISHER}")
        of_list, lines = texts[wanted]
        for name in filter(None, map(str.strip, lines)):
            if name in clips:
                raise recordings.broken(of_list, f"{printable(name)} is listed twice, there or in the other list")
            table = name.removesuffix(".aedat") + TABLE
            if table not in texts:
                raise BadInput(f"{printable(str(source))} lacks {printable(table)}; get it anew from {PUBLISHER}")
            clips[name] = _trials(*texts[table], part, recordings, num_classes)
    return clips


def _trials(member: Member, lines: list[str], part: str, recordings: Recordings, num_classes: int) -> list[Clip]:
    """Returns the trials of a recording's table."""
    if not lines or lines[0].strip() != HEADER:
        raise recordings.broken(member, f"its first line is not {HEADER}")
    trials = []
    for number, line in enumerate(lines[1:], 2):
        try:
            label, start, end = map(int, line.split(","))
        except ValueError as error:
            raise recordings.broken(member, f"line {number} has not three whole numbers") from error
        if not 1 <= label <= num_classes or not 0 <= start < end:
            raise recordings.broken(
                member, f"line {number} has class {label} from {start} to {end} us, and classes are 1 to {num_classes}"
            )
        trials.append(Clip(part, label - 1, start, end))
    return trials
