"""Places, hashes and image statistics of data sets that are a user's own files."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import torch
from torch import Tensor

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import opened

MOST_VALUES = 1 << 26  # values of training images from which the statistics are taken
LEAST_STD = 1e-4  # std of values from 0 to 1; a channel that varies less is constant, and is divided by 1


def own_place(given: str, root: Path) -> Path:
    """Returns the path of a user's file or folder; a path that does not exist is taken below the folder of the data."""
    try:
        place = Path(given).expanduser()
    except RuntimeError as error:
        raise BadInput(f"{given} is not to be found: {error}; write the whole path") from None
    return place if os.path.exists(place) else root / place


def file_sha256(file: Path) -> str:
    """Returns the SHA-256 of a file's content."""
    with opened(file) as source:
        return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]


def channel_statistics(input_N: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel, of values divided by 255. A constant channel has the std 1.

    They are those of all images, or of evenly spaced images with at most `MOST_VALUES` values.

    Args:
        input_N: uint8, [N, C, H, W].
    """
    every = max(1, math.ceil(input_N.numel() / MOST_VALUES))
    return statistics_of(value_counts(input_N[::every]))


def value_counts(input_N: Tensor) -> Tensor:
    """Returns how often each value from 0 to 255 occurs in each channel of some images, int64 [C, 256]."""
    return torch.stack([torch.bincount(of_channel.flatten(), minlength=256) for of_channel in input_N.unbind(1)])


def statistics_of(count_CV: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel from counts of its values; see `channel_statistics`."""
    value_V = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for count_V in count_CV.double():
        share_V = count_V / count_V.sum()
        mean = (share_V * value_V).sum()
        std = (share_V * (value_V - mean).square()).sum().sqrt()
        means.append(float(mean))
        stds.append(float(std) if std > LEAST_STD else 1.0)
    return tuple(means), tuple(stds)
