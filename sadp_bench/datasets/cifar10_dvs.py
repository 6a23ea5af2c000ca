"""CIFAR10-DVS: event recordings of moving CIFAR-10 pictures, cut into frames."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable
from sadp_bench.datasets.archives import first_there, members
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.event_formats import read_aedat2
from sadp_bench.datasets.events import Events, absent
from sadp_bench.datasets.recordings import Clip, Recordings
from sadp_bench.datasets.splits import HASHED, checked_list, hashed_split

SIDE = 128  # pixels of the sensor
PUBLISHER = "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _number(name: str) -> int:
    return int(name.rpartition("_")[2].partition(".")[0])


def _hashed(names: Sequence[str]) -> set[str]:
    """Returns a tenth of the files of a class, by the SHA-1 of their names."""
    return {names[place] for place in hashed_split(names, [0] * len(names))[1]}


def _sew(names: Sequence[str]) -> set[str]:
    """Returns the files of a class after the first 90 %, in the order of their names as texts.

    Source: Fang et al., "Deep Residual Learning in Spiking Neural Networks", NeurIPS 2021, by SpikingJelly's
    `split_to_train_test_set(0.9)`. In the whole data set, these are files 91 to 99 and 909 to 999.
    """
    return set(sorted(names)[math.ceil(0.9 * len(names)) :])


def _tebn(names: Sequence[str]) -> set[str]:
    """Returns the files 0 to 99 of a class. Source: Duan et al., "Temporal Effective Batch Normalization", NeurIPS 2022."""
    return {name for name in names if _number(name) < 100}


def _tet(names: Sequence[str]) -> set[str]:
    """Returns the files of a class from number 700 on.

    Source: Deng et al., "Temporal Efficient Training", ICLR 2022, by its script, https://github.com/aa-samad/conv_snn
    """
    return {name for name in names if _number(name) >= 700}


# Name of a split -> function that returns the test files among a class's files.
SPLITS: dict[str, Callable[[Sequence[str]], set[str]]] = {HASHED: _hashed, "sew": _sew, "tebn": _tebn, "tet": _tet}


class CIFAR10DVS(Dataset):
    """10,000 event recordings of CIFAR-10's pictures, 128x128, 2 polarities: 9,000 to train, 1,000 to test, 10 classes.

    Source: H. Li et al., 2017: CIFAR10-DVS, https://doi.org/10.3389/fnins.2017.00309

    The files are the publisher's (CC BY 4.0), downloaded by hand: `CIFAR10DVS/<class>.zip`, or its folder
    `CIFAR10DVS/<class>`. All recordings found there are used, in the order of class and number. Each becomes T frames (see
    `events.frames`), turned as in SpikingJelly.
    The publisher has no split. By default the test set is a tenth of each class, chosen by the SHA-1 of the files' names.

    Args:
        root: The folder of all data sets.
        timesteps: T, the frames of a recording.
        by: How a recording is cut into T frames: by "time" into equal durations, by "number" into equal numbers of events.
        side: Pixels of each side of a frame; a pixel counts the events of the sensor's pixels that it covers.
        split: The rule that chooses the test recordings: "sha1-9:1", or a paper's rule: "sew", "tebn" or "tet".
        test_list: Hash of the list of test recordings, a part of the run's key; filled in when the run is resolved.
    """

    events = True
    batch_size = 64
    timesteps = 10
    scale = 1.0
    mean = (0.0, 0.0)
    std = (1.0, 1.0)
    class_names = CLASSES

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
        recordings = Recordings("CIFAR10-DVS", PUBLISHER, turned, (SIDE, SIDE), (side, side), timesteps, by)
        if split not in SPLITS:
            raise BadInput(f"dataset.split is one of {', '.join(SPLITS)}, not '{split}'")
        sources: list[Path] = []
        clips: dict[str, list[Clip]] = {}
        test: list[str] = []
        for label, (name, source) in enumerate(zip(CLASSES, _sources(root), strict=True)):
            if source is None:
                raise absent(root / "CIFAR10DVS" / f"{name}.zip", PUBLISHER, root / "CIFAR10DVS")
            sources.append(source)
            files = _files(source, name)
            of_test = SPLITS[split](files)
            clips |= {file: [Clip("test" if file in of_test else "train", label)] for file in files}
            test += of_test
        self.found = {"test_list": checked_list(test_list, test)}
        self.train, self.test = recordings.examples(sources, clips, _file_name)

    @classmethod
    def locate(cls, root: Path, **settings: Any) -> Path | None:
        """Returns the folder of the classes; None where a class has neither a folder nor an archive."""
        return root / "CIFAR10DVS" if all(_sources(root)) else None


def _sources(root: Path) -> list[Path | None]:
    """Returns the folder or the archive of each class; None where neither exists."""
    folder = root / "CIFAR10DVS"
    return [first_there([folder / name, folder / f"{name}.zip"]) for name in CLASSES]


def _file_name(path: PurePosixPath) -> str:
    return path.name


def _files(source: Path, name: str) -> list[str]:
    """Returns the recordings of a class in the order of their numbers."""
    files = [member.path.name for member in members(source) if member.path.suffix == ".aedat"]
    for file in files:
        if not re.fullmatch(rf"cifar10_{name}_\d{{1,4}}\.aedat", file):
            raise BadInput(
                f"{printable(f'{source}: {file}')} is no recording cifar10_{name}_<number>.aedat; move it away"
            )
    if not files:
        raise BadInput(f"{printable(str(source))} has no recordings (.aedat); get them from {PUBLISHER}")
    if len(set(files)) < len(files):
        raise BadInput(f"{printable(str(source))} has two recordings of one name; remove one")
    return sorted(files, key=_number)


def turned(content: NDArray[np.uint8]) -> Events:
    """Returns the events of a recording with its sides exchanged, as SpikingJelly has them."""
    events = read_aedat2(content)
    return dataclasses.replace(events, x=SIDE - 1 - events.y, y=SIDE - 1 - events.x)
