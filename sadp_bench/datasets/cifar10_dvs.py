"""CIFAR10-DVS: pictures of CIFAR-10 moved before an event camera, cut into frames."""

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
    """Returns all files of a class but the first 90 % in the order of their names as texts.

    Source: Fang et al., "Deep Residual Learning in Spiking Neural Networks", NeurIPS 2021, by SpikingJelly's
    `split_to_train_test_set(0.9)`. Of all files, these are 91 to 99 and 909 to 999.
    """
    return set(sorted(names)[math.ceil(0.9 * len(names)) :])


def _tebn(names: Sequence[str]) -> set[str]:
    """Returns the files 0 to 99 of a class. Source: Duan et al., "Temporal Effective Batch Normalization", NeurIPS 2022."""
    return {name for name in names if _number(name) < 100}


def _tet(names: Sequence[str]) -> set[str]:
    """Returns the files from 700 on of a class.

    Source: Deng et al., "Temporal Efficient Training", ICLR 2022, by its script, https://github.com/aa-samad/conv_snn
    """
    return {name for name in names if _number(name) >= 700}


# By name, a function of a class's files that returns those of the test.
SPLITS: dict[str, Callable[[Sequence[str]], set[str]]] = {HASHED: _hashed, "sew": _sew, "tebn": _tebn, "tet": _tet}


class CIFAR10DVS(Dataset):
    """10,000 event recordings of CIFAR-10's pictures, 128x128, 2 polarities: 9,000 to train, 1,000 to test, 10 classes.

    Source: H. Li et al., 2017: CIFAR10-DVS, https://doi.org/10.3389/fnins.2017.00309
    The files are the publisher's (CC BY 4.0), `CIFAR10DVS/<class>.zip` or its folder `CIFAR10DVS/<class>`, fetched by
    hand. All recordings that are there are used, in the order of class and number. Each becomes T frames (see
    `events.frames`), turned as in SpikingJelly.
    The publisher has no split. The default holds out a tenth of each class by the SHA-1 of the files' names.

    Args:
        root: The folder of all data sets.
        timesteps: T.
        by: What cuts a recording into T frames: equal parts of its "time", or equal numbers of events ("number").
        side: Pixels of a side of the frames; the sensor's pixels are summed.
        split: The rule of the test recordings: "sha1-9:1", or that of a paper: "sew", "tebn" or "tet".
        test_list: The hash of the list of test recordings, by which the run is known; filled in when the run is resolved.
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
        """Returns the folder of the classes; None where one is absent, packed and unpacked."""
        return root / "CIFAR10DVS" if all(_sources(root)) else None


def _sources(root: Path) -> list[Path | None]:
    """Returns the folder or the archive of each class; None where neither is there."""
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
