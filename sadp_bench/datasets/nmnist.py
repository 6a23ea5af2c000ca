"""N-MNIST: MNIST recorded by an event camera, cut into frames."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sadp_bench.core.errors import BadInput
from sadp_bench.core.memory import check_room
from sadp_bench.datasets.base import Dataset, cause, read_bytes
from sadp_bench.datasets.examples import Examples

SIDE = 34  # pixels
EVENT_BYTES = 5  # bytes of one event
PUBLISHER = "https://www.garrickorchard.com/datasets/n-mnist"


class NMNIST(Dataset):
    """70,000 event recordings of moving digits, 34x34, 2 polarities: 60,000 to train, 10,000 to test, 10 classes.

    Source: G. Orchard, A. Jayawant, G. Cohen and N. Thakor, 2015, https://www.garrickorchard.com/datasets/n-mnist
    The paper is Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades.
    The files are the publisher's, `NMNIST/{Train,Test}/<digit>/<id>.bin`, fetched by hand. All recordings that are
    there are used, in the order of digit and id, so a part of the files is a smaller data set.
    A recording becomes T frames of equal duration (see `frames`).
    """

    events = True
    batch_size = 64
    scale = 1.0
    mean = (0.0, 0.0)
    std = (1.0, 1.0)
    class_names = tuple("0123456789")

    def __init__(self, root: Path, timesteps: int) -> None:
        assert timesteps >= 1
        for folder in self._folders(root):
            if not os.path.isdir(folder):
                raise BadInput(
                    f"{folder} is not there and has no automatic download; get N-MNIST from {PUBLISHER}, unpack it to "
                    f"{root / 'NMNIST'}, or name another folder with --data, or take --dataset digits"
                )
        self.train = _load(root / "NMNIST" / "Train", timesteps)
        self.test = _load(root / "NMNIST" / "Test", timesteps)

    @classmethod
    def locate(cls, root: Path) -> Path | None:
        """Returns the folder of the recordings; None where a digit's is absent."""
        return root / "NMNIST" if all(os.path.isdir(folder) for folder in cls._folders(root)) else None

    @staticmethod
    def _folders(root: Path) -> list[Path]:
        return [root / "NMNIST" / part / str(digit) for part in ("Train", "Test") for digit in range(10)]


def frames(content: NDArray[np.uint8], timesteps: int) -> NDArray[np.uint8]:
    """Returns the events of a recording, counted in frames [T, 2, 34, 34]: off and on events, up to 255 at a pixel.

    An event has 40 bits, big-endian: x (8), y (8), polarity (1), microseconds (23). The time from the first event to
    the last, both included, is cut into T equal parts: the event at t is in frame floor((t - first) T / (last - first
    + 1)).

    Args:
        content: The recording's bytes.
        timesteps: T.

    Raises:
        ValueError: For a content that is no such recording.
    """
    if content.size == 0 or content.size % EVENT_BYTES:
        raise ValueError(f"{content.size:,} bytes are not a whole number of {EVENT_BYTES}-byte events")
    x, y, high, middle, low = content.reshape(-1, EVENT_BYTES).T.astype(np.int64)
    outside = np.maximum(x, y).argmax()
    if max(x[outside], y[outside]) >= SIDE:
        raise ValueError(f"event {outside} at x={x[outside]}, y={y[outside]} is outside the {SIDE}x{SIDE} sensor")
    microseconds = (high & 127) << 16 | middle << 8 | low
    elapsed = microseconds - microseconds.min()
    frame = elapsed * timesteps // (elapsed.max() + 1)
    cell = ((frame * 2 + (high >> 7)) * SIDE + y) * SIDE + x
    count = np.bincount(cell, minlength=timesteps * 2 * SIDE * SIDE)
    return np.minimum(count, 255).astype(np.uint8).reshape(timesteps, 2, SIDE, SIDE)


def _load(folder: Path, timesteps: int) -> Examples:
    """Returns all recordings of `folder/<digit>`."""
    recordings = [(file, digit) for digit in range(10) for file in _recordings(folder / str(digit))]
    shape = len(recordings), timesteps, 2, SIDE, SIDE
    check_room(math.prod(shape), f"N-MNIST in {timesteps:,} frames", "lower --timesteps")
    input_N = np.empty(shape, np.uint8)
    for row, (file, _) in enumerate(recordings):
        content = read_bytes(file)
        try:
            input_N[row] = frames(content, timesteps)
        except ValueError as error:
            raise BadInput(f"{file} is broken: {error}; get it anew from {PUBLISHER}") from error
    label_N = torch.tensor([digit for _, digit in recordings], dtype=torch.int64)
    return Examples(torch.from_numpy(input_N), label_N)


def _recordings(folder: Path) -> list[Path]:
    """Returns the recordings of one digit in the order of their ids, which the publisher pads with zeros."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".bin") and not name.startswith("."))
    except OSError as error:
        raise BadInput(f"cannot read {folder}: {cause(error)}") from error
    if not names:
        raise BadInput(f"{folder} has no recordings (<id>.bin); get N-MNIST from {PUBLISHER}")
    return [folder / name for name in names]
