"""scikit-learn's handwritten digits: the data set that needs no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples

HELD_OUT = 360  # test examples


class Digits(Dataset):
    """1,797 handwritten digits, 8x8 grey: 1,437 to train, 360 to test, 10 classes; comes with scikit-learn.

    Source: E. Alpaydin and C. Kaynak, 1998: Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49

    These are the 1,797 test digits of that collection, as scikit-learn ships them. They come without a split. The test set
    is a fixed random fifth, with each class in proportion. Values are 0 to 16.
    """

    batch_size = 64
    scale = 16.0
    mean = (0.3054,)
    std = (0.3761,)
    class_names = tuple("0123456789")

    def __init__(self, root: Path, timesteps: int) -> None:
        value_NV = np.loadtxt(_file(), dtype=np.uint8, delimiter=",")
        examples = Examples(
            torch.from_numpy(value_NV[:, :-1]).reshape(-1, 1, 8, 8), torch.from_numpy(value_NV[:, -1].astype(np.int64))
        )
        train_K, test_K = _split(value_NV[:, -1])
        self.train = examples.take(torch.from_numpy(train_K))
        self.test = examples.take(torch.from_numpy(test_K))

    @classmethod
    def locate(cls, root: Path) -> Path | None:
        """Returns scikit-learn's file."""
        return _file()


def _file() -> Path:
    """Returns the file's path. It does not import scikit-learn, which would take longer than a short run."""
    spec = find_spec("sklearn")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"


def _split(label_N: Any) -> tuple[Any, Any]:
    """Returns the split of scikit-learn's `train_test_split(test_size=0.2, stratify=label_N, random_state=0)`."""
    draw, count_C = np.random.RandomState(0), np.bincount(label_N)
    train_C = _in_proportion(count_C, len(label_N) - HELD_OUT, draw)
    test_C = _in_proportion(count_C - train_C, HELD_OUT, draw)
    train, test = [], []
    for label, (num_train, num_test) in enumerate(zip(train_C, test_C, strict=True)):
        member_K = draw.permutation(np.flatnonzero(label_N == label))
        train.append(member_K[:num_train])
        test.append(member_K[num_train : num_train + num_test])
    return draw.permutation(np.concatenate(train)), draw.permutation(np.concatenate(test))


def _in_proportion(count_C: Any, total: int, draw: np.random.RandomState) -> Any:
    """Returns the examples of each class. The rest goes to the largest remainders, at random among equal ones."""
    share_C = count_C / count_C.sum() * total
    number_C = np.floor(share_C).astype(int)
    rest_C = share_C - number_C
    for rest in np.unique(rest_C)[::-1]:
        if missing := total - number_C.sum():
            tied = np.flatnonzero(rest_C == rest)
            number_C[draw.choice(tied, min(len(tied), missing), replace=False)] += 1
    return number_C
