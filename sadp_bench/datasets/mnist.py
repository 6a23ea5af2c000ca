"""MNIST and Fashion-MNIST, read from the publishers' files."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets.base import Dataset, check_labels, check_size, download, read_bytes
from sadp_bench.datasets.examples import Examples

HEADERS = {  # big-endian numbers: the kind of file, then the shape of the content
    "train-images-idx3-ubyte": (2051, 60_000, 28, 28),
    "train-labels-idx1-ubyte": (2049, 60_000),
    "t10k-images-idx3-ubyte": (2051, 10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (2049, 10_000),
}


class _IDX(Dataset):
    """Four files, packed (.gz) or not, in `root/<name of the class>/raw`, as in torchvision, or in the folder above."""

    mirror: ClassVar[str]

    def __init__(self, root: Path, timesteps: int) -> None:
        folder = self._folder(root)
        self._complete(folder)
        self.train = self._read(folder, "train")
        self.test = self._read(folder, "t10k")

    @classmethod
    def locate(cls, root: Path) -> Path | None:
        """Returns the folder of the files, `raw` where they lie in both folders; None where a file is absent."""
        files = [_find(cls._folder(root), name) for name in HEADERS]
        return None if None in files else min((file.parent for file in files if file), key=lambda at: at.name != "raw")

    @classmethod
    def _folder(cls, root: Path) -> Path:
        return root / cls.__name__ / "raw"

    def _complete(self, folder: Path) -> None:
        """Downloads each file that is absent, packed and unpacked, and checks torchvision's checksums."""
        if self.locate(folder.parents[1]):
            return
        import torchvision  # takes as long as the import of torch

        for packed_name, md5 in getattr(torchvision.datasets, type(self).__name__).resources:
            if _find(folder, packed_name.removesuffix(".gz")) is None:
                download(self.mirror + packed_name, md5, folder / packed_name)

    def _read(self, folder: Path, part: str) -> Examples:
        """Returns the images and labels of a part: "train" or "t10k"."""
        found = []
        for name, header in HEADERS.items():
            if name.startswith(part):
                content = _content(_find(folder, name) or folder / name, header, len(self.class_names))
                found.append(torch.frombuffer(content, dtype=torch.uint8, offset=4 * len(header)).view(header[1:]))
        image_N, label_N = found
        return Examples(image_N.unsqueeze(1), label_N.long())


def _find(folder: Path, name: str) -> Path | None:
    """Returns a file in the folder or else in the folder above, unpacked or else packed; None where it is absent."""
    places = (at / file for at in (folder, folder.parent) for file in (name, f"{name}.gz"))
    return next((file for file in places if os.path.exists(file)), None)


def _content(file: Path, header: tuple[int, ...], num_classes: int) -> bytearray:
    """Returns a file's unpacked content, after a check of header, size and labels."""
    content = read_bytes(file).tobytes()
    if file.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{file} is broken: {error}; delete it to get it anew") from error
    _, *shape = header
    start = struct.pack(f">{len(header)}I", *header)
    if content[: len(start)] != start:
        raise BadInput(f"{file} is broken: its header is not that of {shape} bytes; delete it to get it anew")
    check_size(file, len(content), len(start) + int(np.prod(shape)))
    if len(shape) == 1:
        check_labels(file, np.frombuffer(content, np.uint8, offset=len(start)), num_classes)
    return bytearray(content)  # a tensor can share it


class FashionMNIST(_IDX):
    """70,000 pictures of clothes, 28x28 grey: 60,000 to train, 10,000 to test, 10 classes; a download of 31 MB.

    Source: H. Xiao, K. Rasul and R. Vollgraf, 2017: Fashion-MNIST, arXiv 1708.07747, https://github.com/zalandoresearch/fashion-mnist
    """

    mirror = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
    augment = "crop-flip"
    mean = (0.2860,)
    std = (0.3530,)
    class_names = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


class MNIST(_IDX):
    """70,000 handwritten digits, 28x28 grey: 60,000 to train, 10,000 to test, 10 classes; a download of 12 MB.

    Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, 1998, http://yann.lecun.com/exdb/mnist/
    The paper is Gradient-Based Learning Applied to Document Recognition.

    The download is from torchvision's mirror, because the publisher's page has no https.
    """

    mirror = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    augment = "crop"
    mean = (0.1307,)
    std = (0.3081,)
    class_names = tuple("0123456789")
