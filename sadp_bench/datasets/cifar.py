"""CIFAR-10 and CIFAR-100, read from the publisher's binary version (no pickles)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from sadp_bench.datasets.base import Dataset, check_labels, check_size, download_archive, first_missing, read_bytes
from sadp_bench.datasets.examples import Examples

PIXEL_BYTES = 3 * 32 * 32
TEST_ROWS = 10_000


class _CIFAR(Dataset):
    """Files of rows. A row has `label_bytes` labels, of which the last is used, then the red, green and blue plane."""

    folder: ClassVar[str]
    url: ClassVar[str]
    md5: ClassVar[str]
    train_files: ClassVar[tuple[str, ...]]
    test_files: ClassVar[tuple[str, ...]]
    rows_per_train_file: ClassVar[int]
    label_bytes: ClassVar[int]

    augment = "crop-flip"
    epochs = 30

    def __init__(self, root: Path, timesteps: int) -> None:
        missing = first_missing(self._files(root))
        if missing is not None:
            download_archive(self.url, self.md5, missing, root)
        folder = root / self.folder
        self.train = self._read([folder / name for name in self.train_files], self.rows_per_train_file)
        self.test = self._read([folder / name for name in self.test_files], TEST_ROWS)

    @classmethod
    def locate(cls, root: Path) -> Path | None:
        """Returns the folder of the files; None where one is absent."""
        return root / cls.folder if first_missing(cls._files(root)) is None else None

    @classmethod
    def _files(cls, root: Path) -> list[Path]:
        return [root / cls.folder / name for name in cls.train_files + cls.test_files]

    def _read(self, files: list[Path], rows_per_file: int) -> Examples:
        row_bytes = self.label_bytes + PIXEL_BYTES
        parts = []
        for file in files:
            content = read_bytes(file)
            check_size(file, content.size, rows_per_file * row_bytes)
            parts.append(content.reshape(rows_per_file, row_bytes))
            check_labels(file, parts[-1][:, self.label_bytes - 1], len(self.class_names))
        pixel_N = np.concatenate([part[:, self.label_bytes :] for part in parts])
        label_N = np.concatenate([part[:, self.label_bytes - 1] for part in parts]).astype(np.int64)
        return Examples(torch.from_numpy(pixel_N).reshape(-1, 3, 32, 32), torch.from_numpy(label_N))


class CIFAR10(_CIFAR):
    """60,000 photographs, 32x32 RGB: 50,000 to train, 10,000 to test, 10 classes; a download of 162 MB.

    Source: A. Krizhevsky, 2009: Learning Multiple Layers of Features from Tiny Images, https://www.cs.toronto.edu/~kriz/cifar.html
    """

    folder = "cifar-10-batches-bin"
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    md5 = "c32a1d4ab5d03f1284b67883e8d87530"
    train_files = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
    test_files = ("test_batch.bin",)
    rows_per_train_file = 10_000
    label_bytes = 1
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR100(_CIFAR):
    """60,000 photographs, 32x32 RGB: 50,000 to train, 10,000 to test, 100 classes; a download of 161 MB.

    Source: A. Krizhevsky, 2009: Learning Multiple Layers of Features from Tiny Images, https://www.cs.toronto.edu/~kriz/cifar.html

    The labels are the 100 fine ones, not the 20 coarse ones.
    """

    folder = "cifar-100-binary"
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    md5 = "03b5dce01913d631647c71ecec9e9cb8"
    train_files = ("train.bin",)
    test_files = ("test.bin",)
    rows_per_train_file = 50_000
    label_bytes = 2
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    class_names = tuple(
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
        "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
        "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
        "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
        "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
        "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
        "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm".split()
    )
