"""Spiking Heidelberg Digits and Spiking Speech Commands: spoken words as spikes of 700 units of an ear model."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import opened
from sadp_bench.core.text import printable
from sadp_bench.datasets.archives import first_there, members
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.events import absent, check_by, counted, room
from sadp_bench.datasets.examples import Examples

UNITS = 700
PUBLISHER = "https://zenkelab.org/datasets/"
FAULTS = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)  # raised by h5py for a broken file
NO_H5PY = "is HDF5, which needs h5py: pip install 'sadp-bench[hdf5]'"


class _Spoken(Dataset):
    """Two files of recordings. A recording is spikes, each with time and unit. It becomes T frames of F groups of units.

    Args:
        root: The folder of all data sets.
        timesteps: T, the frames of a recording.
        by: How a recording is cut into T frames: by "time" into equal durations, by "number" into equal numbers of spikes.
        units: F, the number of groups; each sums neighbouring ones of the 700 units.
    """

    folder: ClassVar[str]

    events = True
    vectors = True
    backbone = "mlp"
    batch_size = 64
    timesteps = 100
    scale = 1.0
    mean = (0.0,)
    std = (1.0,)

    def __init__(self, root: Path, timesteps: int, *, by: str = "time", units: int = 140) -> None:
        check_by(by)
        if not 1 <= units <= UNITS or UNITS % units:
            raise BadInput(f"dataset.units divides {UNITS}, such as 140, 350 and 700, and is not {units}")
        parts = []
        for part in ("train", "test"):
            source = _source(root, self.folder, part)
            if source is None:
                name = f"{self.folder.lower()}_{part}.h5.zip"
                raise absent(root / self.folder / name, PUBLISHER, root / self.folder)
            parts.append(_read(source, len(self.class_names), timesteps, by, units))
        self.train, self.test = parts

    @classmethod
    def locate(cls, root: Path, **settings: Any) -> Path | None:
        """Returns the folder of the files; None where a file is absent, packed and unpacked."""
        there = all(_source(root, cls.folder, part) for part in ("train", "test"))
        return root / cls.folder if there else None


class SHD(_Spoken):
    """10,420 spoken digits as spikes of 700 units: 8,156 to train, 2,264 to test, 20 classes.

    Source: B. Cramer, Y. Stradmann, J. Schemmel and F. Zenke, 2020: The Heidelberg Spiking Data Sets, https://zenkelab.org/datasets/

    The files are the publisher's (CC BY 4.0), downloaded by hand: `SHD/shd_{train,test}.h5`, or the same with .zip. Two
    speakers are in the test set alone. A recording becomes T frames (see `events.frame_of`). The 700 units are
    summed in groups of neighbours.
    """

    folder = "SHD"
    class_names = tuple(
        "zero one two three four five six seven eight nine null eins zwei drei vier fünf sechs sieben acht neun".split()
    )


class SSC(_Spoken):
    """95,848 spoken words as spikes of 700 units: 75,466 to train, 20,382 to test, 35 classes.

    Source: B. Cramer, Y. Stradmann, J. Schemmel and F. Zenke, 2020: The Heidelberg Spiking Data Sets, https://zenkelab.org/datasets/

    The files are the publisher's (CC BY 4.0), downloaded by hand: `SSC/ssc_{train,test}.h5`, or the same with .zip. The 9,981
    recordings for validation are not read: `--evaluate-on validation` holds out a tenth of the training set. Frames are made
    as for `SHD`. The names of the classes are numbers.
    """

    folder = "SSC"
    class_names = tuple(f"word {number}" for number in range(35))


def _source(root: Path, folder: str, part: str) -> Path | None:
    name = f"{folder.lower()}_{part}.h5"
    return first_there([root / folder / name, root / folder / f"{name}.zip"])


def _read(source: Path, num_classes: int, timesteps: int, by: str, units: int) -> Examples:
    """Returns the recordings of a file as frames [N, T, 1, 1, F].

    Raises:
        BadInput: h5py is absent, or the file is broken.
    """
    place = printable(str(source))
    label_N, recordings = _content(source, place)
    if len(label_N) == 0 or len(label_N) != len(recordings):
        raise _broken(place, f"it has {len(recordings):,} recordings and {len(label_N):,} labels")
    if label_N.min() < 0 or label_N.max() >= num_classes:
        raise _broken(place, f"labels are 0 to {num_classes - 1}, and it has {label_N.min()} to {label_N.max()}")
    input_N = room(len(label_N), (timesteps, 1, 1, units), source.name)
    for row, (seconds, unit) in enumerate(recordings):
        try:
            microseconds, group = _spikes(seconds, unit, units)
            input_N[row, :, 0, 0] = counted(group, microseconds, timesteps, by, units)
        except ValueError as error:
            raise _broken(place, f"recording {row}: {error}") from error
    return Examples(torch.from_numpy(input_N), torch.from_numpy(label_N))


def _spikes(seconds: NDArray[Any], unit: NDArray[Any], units: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the time of each spike in microseconds, and its group of units. The file has float16 seconds."""
    if seconds.shape != unit.shape or seconds.ndim != 1:
        raise ValueError(f"it has {seconds.size:,} times and {unit.size:,} units")
    time = seconds.astype(np.float64)
    if not np.isfinite(time).all() or time.min(initial=0) < 0:
        raise ValueError("its times are not finite, or below 0")
    if unit.min(initial=0) < 0 or unit.max(initial=0) >= UNITS:
        raise ValueError(f"units are 0 to {UNITS - 1}, and it has {unit.min()} to {unit.max()}")
    return np.round(time * 1e6).astype(np.int64), unit.astype(np.int64) * units // UNITS


def _content(source: Path, place: str) -> tuple[NDArray[np.int64], list[tuple[NDArray[Any], NDArray[Any]]]]:
    """Returns the labels, and times and units of each recording."""
    try:
        import h5py
    except ImportError as error:
        raise BadInput(f"{place} {NO_H5PY}") from error
    for file in _opened(source):
        try:
            with h5py.File(file, "r") as content:
                label_N = np.asarray(content["labels"]).astype(np.int64)
                times, units = content["spikes"]["times"][:], content["spikes"]["units"][:]
                return label_N, [(np.asarray(t), np.asarray(u)) for t, u in zip(times, units, strict=True)]
        except FAULTS as error:
            raise _broken(
                place, f"it is no HDF5 file of spikes/times, spikes/units and labels ({_reason(error)})"
            ) from error
    raise _broken(place, "it has no .h5 file")


def _opened(source: Path) -> Iterator[Any]:
    """Yields the open HDF5 file, which may be packed."""
    if source.suffix != ".zip":
        with opened(source) as file:
            yield file
        return
    for member in members(source):
        if member.path.suffix == ".h5":
            yield io.BytesIO(member.read().tobytes())


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _broken(place: str, why: str) -> BadInput:
    return BadInput(f"{place} is broken: {printable(why)}; get it anew from {PUBLISHER}")
