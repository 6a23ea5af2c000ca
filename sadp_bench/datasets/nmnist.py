"""N-MNIST: event recordings of MNIST's digits, cut into frames."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets.base import Dataset, cause
from sadp_bench.datasets.event_formats import read_atis
from sadp_bench.datasets.recordings import Clip, Recordings

SIDE = 34  # pixels of the sensor
PUBLISHER = "https://www.garrickorchard.com/datasets/n-mnist"


class NMNIST(Dataset):
    """70,000 event recordings of moving digits, 34x34, 2 polarities: 60,000 to train, 10,000 to test, 10 classes.

    Source: G. Orchard, A. Jayawant, G. Cohen and N. Thakor, 2015, https://www.garrickorchard.com/datasets/n-mnist
    The paper is Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades.

    The files are the publisher's, downloaded by hand: `NMNIST/{Train,Test}/<digit>/<id>.bin`. All recordings found there
    are used, in the order of digit and id. So a part of the files is a smaller data set. A recording becomes T frames (see
    `events.frames`).

    Args:
        root: The folder of all data sets.
        timesteps: T, the frames of a recording.
        by: How a recording is cut into T frames: by "time" into equal durations, by "number" into equal numbers of events.
    """

    events = True
    batch_size = 64
    scale = 1.0
    mean = (0.0, 0.0)
    std = (1.0, 1.0)
    class_names = tuple("0123456789")

    def __init__(self, root: Path, timesteps: int, *, by: str = "time") -> None:
        assert timesteps >= 1
        for folder in self._folders(root):
            if not os.path.isdir(folder):
                raise BadInput(
                    f"{folder} is not there and has no automatic download; get N-MNIST from {PUBLISHER}, unpack it to "
                    f"{root / 'NMNIST'}, or name another folder with --data, or take --dataset digits"
                )
        recordings = Recordings("N-MNIST", PUBLISHER, read_atis, (SIDE, SIDE), (SIDE, SIDE), timesteps, by)
        clips = {
            f"{part}/{digit}/{name}": [Clip(part.lower(), digit)]
            for part in ("Train", "Test")
            for digit in range(10)
            for name in _recordings(root / "NMNIST" / part / str(digit))
        }
        self.train, self.test = recordings.examples([root / "NMNIST"], clips, PurePosixPath.as_posix)

    @classmethod
    def locate(cls, root: Path, **settings: Any) -> Path | None:
        """Returns the folder of the recordings; None where a digit's is absent."""
        return root / "NMNIST" if all(os.path.isdir(folder) for folder in cls._folders(root)) else None

    @staticmethod
    def _folders(root: Path) -> list[Path]:
        return [root / "NMNIST" / part / str(digit) for part in ("Train", "Test") for digit in range(10)]


def _recordings(folder: Path) -> list[str]:
    """Returns the recordings of one digit in the order of their ids, which the publisher pads with zeros."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".bin") and not name.startswith("."))
    except OSError as error:
        raise BadInput(f"cannot read {folder}: {cause(error)}") from error
    if not names:
        raise BadInput(f"{folder} has no recordings (<id>.bin); get N-MNIST from {PUBLISHER}")
    return names
