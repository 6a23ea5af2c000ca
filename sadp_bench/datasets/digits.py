"""scikit-learn's handwritten digits: the data set that needs no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sklearn.datasets
import torch
from sklearn.model_selection import train_test_split

from sadp_bench.datasets.base import Dataset
from sadp_bench.examples import Examples


class Digits(Dataset):
    """1,797 handwritten digits, 8x8 grey: 1,437 to train, 360 to test, 10 classes; comes with scikit-learn.

    Source: E. Alpaydin and C. Kaynak, 1998: Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49
    These are the 1,797 test digits of that collection, as scikit-learn ships them. They have no split of their own:
    every fifth is held out here, at random but always alike and with each class in proportion.
    Values are 0 to 16.
    """

    batch_size = 64
    scale = 16.0
    mean = (0.3054,)
    std = (0.3761,)
    class_names = tuple("0123456789")

    def __init__(self, root: Path, timesteps: int) -> None:
        digits = sklearn.datasets.load_digits()
        input_N = torch.from_numpy(digits.images.astype(np.uint8)).unsqueeze(1)
        label_N = torch.from_numpy(digits.target.astype(np.int64))
        train_K, test_K = train_test_split(
            np.arange(len(label_N)), test_size=0.2, random_state=0, stratify=digits.target
        )
        examples = Examples(input_N, label_N)
        self.train = examples.take(torch.from_numpy(train_K))
        self.test = examples.take(torch.from_numpy(test_K))

    @classmethod
    def locate(cls, root: Path) -> Path | None:
        return Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
