"""Braille letters, touched by a robot's fingertip: the temporal data set that needs no download.

The readings are those of S. F. Müller-Cleve, V. Fra, L. Khacef, A. Pequeño-Zurro, D. Klepatsch, E. Forno, D. G. Ivanovich,
S. Rastogi, G. Urgese, F. Zenke and C. Bartolozzi, https://doi.org/10.5281/zenodo.7050094, under CC BY 4.0. The file
`files/LICENSE-braille.txt` has the licence and the changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.events import room
from sadp_bench.datasets.examples import Examples
from sadp_bench.datasets.splits import HASHED, check_hashed, checked_list, hashed_split

FILE = Path(__file__).parent / "files" / "braille.npz"
TAXELS = 12


class Braille(Dataset):
    """1,350 touches of Braille letters by 12 taxels: 1,215 to train, 135 to test, 27 classes; comes with this package.

    Source: S. F. Müller-Cleve et al., 2022: Braille letter reading, Frontiers in Neuroscience 16, https://doi.org/10.3389/fnins.2022.951164

    A touch is 76 steps of 12 pressures, each from 0 to 255. It becomes T frames of equal duration: a frame is the mean
    pressure over its time (see `averaged`). Each of 27 letters, Space and A to Z, has 50 touches.
    The publisher has no split. The test set is a tenth of each letter's touches, chosen by the SHA-1 of LETTER/TOUCH.

    Args:
        root: The folder of all data sets.
        timesteps: T, the frames of a touch.
        split: The rule that chooses the test recordings; there is only this one.
        test_list: Hash of the list of test recordings, a part of the run's key; filled in when the run is resolved.
    """

    events = True
    vectors = True
    backbone = "mlp"
    batch_size = 64
    timesteps = 76
    mean = (0.9368,)
    std = (0.1794,)
    class_names = ("Space", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")

    def __init__(self, root: Path, timesteps: int, *, split: str = HASHED, test_list: str = "") -> None:
        check_hashed(split)
        with np.load(FILE) as file:
            taxel_NSF, label_N, touch_N = file["taxel"], file["label"].astype(np.int64), file["repetition"]
        names = [f"{self.class_names[label]}/{touch}" for label, touch in zip(label_N, touch_N, strict=True)]
        train, test = hashed_split(names, label_N.tolist())
        self.found = {"test_list": checked_list(test_list, [names[place] for place in test])}
        input_N = room(len(label_N), (timesteps, 1, 1, TAXELS), "Braille")
        input_N[:, :, 0, 0] = averaged(taxel_NSF, timesteps)
        examples = Examples(torch.from_numpy(input_N), torch.from_numpy(label_N))
        self.train, self.test = (examples.take(torch.tensor(part)) for part in (train, test))

    @classmethod
    def locate(cls, root: Path, **settings: Any) -> Path | None:
        """Returns the file, which is part of this package."""
        return FILE


def averaged(value_NSF: NDArray[np.uint8], timesteps: int) -> NDArray[np.uint8]:
    """Returns the mean of a signal over each of T equal parts of its time, rounded. Uint8, [N, T, F].

    The signal is constant during each of its S steps. So T = S does not change it, and a larger T repeats values.

    Args:
        value_NSF: The signal of F values at each of S steps.
        timesteps: T.
    """
    steps = value_NSF.shape[1]
    edge = np.arange(timesteps + 1) * steps / timesteps
    # The time that each part shares with each step, in steps.
    shared_TS = np.minimum(edge[1:, None], np.arange(1, steps + 1)) - np.maximum(edge[:-1, None], np.arange(steps))
    weight_TS = shared_TS.clip(0) * timesteps / steps
    return np.rint(np.einsum("ts,nsf->ntf", weight_TS, value_NSF)).astype(np.uint8)
