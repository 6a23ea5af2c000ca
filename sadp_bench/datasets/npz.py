"""Arrays of a user's `.npz` file as a data set: images, or frames of events."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import opened
from sadp_bench.core.memory import check_room
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples
from sadp_bench.datasets.own_files import channel_statistics, file_sha256, own_place

NAMES = ("x_train", "y_train", "x_test", "y_test")
MOST_CHANNELS = 4  # channels: red, green, blue and another; a longer axis of images is a side
Array = np.ndarray[Any, np.dtype[Any]]


class _Fault(Exception):
    """A fault of a file; the message lacks the file's name."""


class NPZ(Dataset):
    """Arrays of your .npz file: x_train, y_train, x_test, y_test; at least 2 classes, images or frames of events.

    Source: the file's author; the format is https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

    Inputs are uint8: images [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 to 4 channels, or frames of events
    [N, T, C, H, W]. Labels are whole numbers [N] from 0, without gaps. Images are normalised by the mean and standard
    deviation of x_train. Counts of events are not normalised.

    Args:
        root: The folder of all data sets.
        timesteps: T, for frames of events.
        file: The path of the file. Where it does not exist, it is taken below the folder of all data sets.
        sha256: Hash of the file, which the run's key has in place of the path. It is filled in when the run is resolved.
            With another content the run is refused.
    """

    def __init__(self, root: Path, timesteps: int, *, file: str = "data.npz", sha256: str = "") -> None:
        place = own_place(file, root)
        if not os.path.exists(place):
            raise BadInput(
                f"{place} is not there; name a .npz file with the arrays {', '.join(NAMES)}: --set dataset.file=PATH"
            )
        found = file_sha256(place)
        if sha256 not in ("", found):
            raise BadInput(f"{place} is another file: its SHA-256 is {found}, and the run's is {sha256}")
        self.found = {"sha256": found}
        try:
            self.train, self.test = _examples(_arrays(place))
            self.class_names = tuple(map(str, range(_num_classes(self.train.label_N, self.test.label_N))))
        except _Fault as error:
            raise BadInput(f"{place} {error}") from None
        self.events = self.train.input_N.dim() == 5
        if self.events:
            self._set_events(place, timesteps)
        else:
            self.mean, self.std = channel_statistics(self.train.input_N)

    @classmethod
    def locate(cls, root: Path, *, file: str = "data.npz", sha256: str = "") -> Path | None:
        """Returns the file; None where it is absent."""
        place = own_place(file, root)
        return place if os.path.isfile(place) else None

    def _set_events(self, place: Path, timesteps: int) -> None:
        frames, channels = self.train.input_N.shape[1:3]
        if frames != timesteps:
            raise BadInput(f"{place} has recordings of {frames} frames, not {timesteps}; give --timesteps {frames}")
        self.scale, self.mean, self.std = 1.0, (0.0,) * channels, (1.0,) * channels


def _arrays(file: Path) -> dict[str, Array]:
    """Returns the four arrays. It builds no Python object. Raises _Fault where the file is broken."""
    try:
        with opened(file) as source, np.load(source, allow_pickle=False) as found:
            size = sum(part.file_size for part in found.zip.infolist())
            check_room(size, f"{file}, unpacked,", "store fewer or smaller examples")
            names, arrays = found.files, {name: found[name] for name in NAMES if name in found.files}
    except BadInput:
        raise
    except Exception as error:  # Damaged archives raise errors of many kinds, and a single array has no such members.
        raise _Fault(f"is no .npz file of {', '.join(NAMES)}: {' '.join(str(error).split())[:120]}") from None
    absent = [name for name in NAMES if name not in arrays]
    if absent:
        raise _Fault(f"lacks {', '.join(absent)}; it has {', '.join(map(ascii, names)) or 'nothing'}")
    return arrays


def _examples(arrays: dict[str, Array]) -> tuple[Examples, Examples]:
    """Returns the training and the test examples. Raises _Fault where the arrays do not fit each other."""
    train, test = (_inputs(name, arrays[name]) for name in ("x_train", "x_test"))
    if train.shape[1:] != test.shape[1:]:
        shapes = [list(arrays[name].shape[1:]) for name in ("x_train", "x_test")]
        raise _Fault(f"has examples of two shapes: {shapes[0]} in x_train, {shapes[1]} in x_test")
    parts = []
    for input_N, name in ((train, "train"), (test, "test")):
        label_N = _labels(f"y_{name}", arrays[f"y_{name}"])
        if len(label_N) != len(input_N):
            raise _Fault(f"has {len(input_N):,} examples in x_{name}, and {len(label_N):,} labels in y_{name}")
        parts.append(Examples(input_N, label_N))
    return parts[0], parts[1]


def _inputs(name: str, array: Array) -> Tensor:
    """Returns inputs as [N, C, H, W] or [N, T, C, H, W]."""
    shape = list(array.shape)
    if array.dtype != np.uint8:
        raise _Fault(f"has {name} in {array.dtype}; inputs are uint8: images from 0 to 255, or counts of events")
    if len(shape) not in (3, 4, 5) or 0 in shape:
        raise _Fault(
            f"has {name} of shape {shape}; it is [N, H, W], [N, H, W, C], [N, C, H, W], or frames of events [N, T, C, H, W]"
        )
    input_N = torch.from_numpy(array)
    if len(shape) == 3:
        return input_N.unsqueeze(1)
    if len(shape) == 5:
        if shape[2] > MOST_CHANNELS:
            raise _Fault(f"has {name} of shape {shape}; frames of events are [N, T, C, H, W] with 1 to 4 channels C")
        return input_N
    first, last = (shape[axis] <= MOST_CHANNELS for axis in (1, 3))
    if first == last:
        why = "both could be" if first else "neither is"
        raise _Fault(
            f"has {name} of shape {shape}; the channels, 1 to 4, are axis 1 or the last, and {why}; write grey images as "
            "[N, H, W]"
        )
    return input_N if first else input_N.permute(0, 3, 1, 2)


def _labels(name: str, array: Array) -> Tensor:
    if array.dtype.kind not in "iu" or array.shape[1:] not in ((), (1,)):
        raise _Fault(f"has {name} as {array.dtype} {list(array.shape)}; labels are whole numbers [N]")
    if array.size and not 0 <= array.min() <= array.max() < 2**63:
        raise _Fault(f"has {name} from {array.min()} to {array.max()}; labels are whole numbers from 0")
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def _num_classes(*parts: Tensor) -> int:
    """Returns the number of classes. Raises _Fault where no example has some label below the largest one."""
    there = torch.cat(parts).unique()  # ascending
    gap = next((place for place, label in enumerate(there.tolist()) if place != label), None)
    if gap is not None:
        raise _Fault(f"has labels up to {int(there[-1])}, and none of {gap}; number the classes without gaps")
    return len(there)
