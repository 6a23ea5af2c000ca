"""Data sets of other libraries as examples in memory: `torchvision` and `hf`.

Both take data sets with one image and one class for each example. The library reads its files on the disk. Nothing is
downloaded.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sadp_bench.core.errors import BadInput
from sadp_bench.core.memory import check_room
from sadp_bench.core.strangers import described
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.decoding import central_square
from sadp_bench.datasets.examples import Examples
from sadp_bench.datasets.imagefolder import SIDES
from sadp_bench.datasets.own_files import channel_statistics

Item = tuple[Any, ...]  # an image (Pillow's, an array or a tensor), and its class


class Items(Protocol):
    """A sequence of examples."""

    def __len__(self) -> int:
        """Returns the number of examples."""

    def __getitem__(self, row: int) -> Item:
        """Returns the example at a place."""


def _check_side(side: int) -> None:
    if side and not SIDES[0] <= side <= SIDES[1]:
        raise BadInput(f"dataset.side is 0, or from {SIDES[0]} to {SIDES[1]} pixels, not {side}")


class _Adapted(Dataset):
    """Images of another library. A data set whose images all have one channel is grey; any other becomes RGB."""

    def _take(self, what: str, parts: Sequence[Items], names: Any, side: int, sha256: str) -> None:
        """Sets the attributes of a data set: examples, classes, statistics and hash.

        Args:
            what: The data set, for messages.
            parts: The training items and the test items.
            names: The library's names of the classes, if it has any.
            side: Pixels of each side; 0: the images' own.
            sha256: The hash in the run's spec; "": none.

        Raises:
            BadInput: The items are no labelled images of one size, or have another hash.
        """
        made = [_arrays(what, items, side) for items in parts]
        if any(pixels.shape[1] != 1 for pixels, _ in made):
            made = [(pixels.expand(-1, 3, -1, -1), labels) for pixels, labels in made]
        if made[0][0].shape[1:] != made[1][0].shape[1:]:
            raise BadInput(f"{what} has images of two sizes in its parts; give --set dataset.side=N")
        self.train, self.test = (Examples(pixels.contiguous(), labels) for pixels, labels in made)
        found = hashlib.sha256(self.train.digest().digest() + self.test.digest().digest()).hexdigest()
        if sha256 not in ("", found):
            raise BadInput(f"{what} has other images here: its hash is {found}, and the run's is {sha256}")
        self.found = {"sha256": found}
        number = int(max(labels.max() for _, labels in made)) + 1
        distinct = isinstance(names, list | tuple) and len(set(map(str, names))) == len(names) >= number
        self.class_names = tuple(map(str, names if distinct else range(number)))
        self.mean, self.std = channel_statistics(self.train.input_N)


class TorchvisionSet(_Adapted):
    """An image data set of torchvision, such as `--dataset torchvision:SVHN`; at least 2 classes.

    Source: https://docs.pytorch.org/vision/stable/datasets.html

    An example has one image and one class. The class takes `train` or `split` ("train" and "test", or "val"). Some classes
    of torchvision read pickles, which can run code: take files only from a publisher that you trust.

    Args:
        root: The folder of all data sets, torchvision's `root`.
        timesteps: Not used.
        name: The class in torchvision.datasets.
        side: Pixels of each side: central squares are resized. 0: all images have one size, and keep it.
        sha256: Hash of the examples, a part of the run's key; filled in when the run is resolved.
    """

    def __init__(self, root: Path, timesteps: int, *, name: str = "", side: int = 0, sha256: str = "") -> None:
        _check_side(side)
        import torchvision.datasets as sets

        kind = getattr(sets, name, None)
        if not isinstance(kind, type) or not issubclass(kind, sets.VisionDataset):
            raise BadInput(f"torchvision.datasets has no class '{name}'; write --dataset torchvision:SVHN, for example")
        parameters = inspect.signature(kind).parameters
        if "train" in parameters:
            words: list[dict[str, Any]] = [{"train": True}, {"train": False}]
        elif "split" in parameters:
            words = [{"split": "train"}, {"split": "test"}]
        else:
            raise BadInput(
                f"torchvision's {name} has neither `train` nor `split`; store it as images: --dataset imagefolder"
            )
        try:
            train = kind(root, **words[0])
            test = _second(lambda of: kind(root, **of), words[1])
        except Exception as error:
            python = f"torchvision.datasets.{name}({str(root)!r}, download=True)"
            raise BadInput(
                f"torchvision's {name} can't be read from {root}: {described(error)}; nothing is downloaded here: do it in "
                f"Python, {python}"
            ) from None
        self._take(f"torchvision's {name}", (train, test), getattr(train, "classes", None), side, sha256)

    @classmethod
    def locate(cls, root: Path, *, name: str = "", side: int = 0, sha256: str = "") -> Path | None:
        """Returns the folder of all data sets, in which the class finds its files; None without the name of a class."""
        return root if name and os.path.isdir(root) else None


class HuggingFaceSet(_Adapted):
    """An image data set of Hugging Face in the local cache, such as `--dataset hf:ylecun/mnist`; at least 2 classes.

    Source: https://huggingface.co/docs/datasets; needs `pip install 'sadp-bench[hf]'`.

    The data set has a column of images and a column of classes. Its splits are "train", and "test" or "validation". They are
    read from the library's cache, or from a folder of files that `datasets.load_dataset` takes.

    Args:
        root: Not used: the library has a cache of its own (`HF_HOME`).
        timesteps: Not used.
        name: The name on the hub, or the path of a folder.
        config: The configuration, where the data set has several.
        image: The column of images; "": the first column of that type.
        label: The column of classes; "": the first column of that type.
        side: Pixels of each side: central squares are resized. 0: all images have one size, and keep it.
        sha256: Hash of the examples, a part of the run's key; filled in when the run is resolved.
    """

    def __init__(
        self,
        root: Path,
        timesteps: int,
        *,
        name: str = "",
        config: str = "",
        image: str = "",
        label: str = "",
        side: int = 0,
        sha256: str = "",
    ) -> None:
        _check_side(side)
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"  # read when the library is imported
        try:
            import datasets  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise BadInput("--dataset hf needs the library datasets: pip install 'sadp-bench[hf]'") from None
        if not name:
            raise BadInput("--dataset hf:NAME names no data set; write --dataset hf:ylecun/mnist, for example")
        try:
            found = datasets.load_dataset(name, config or None)
        except Exception as error:
            raise BadInput(
                f"'{name}' is not in the cache of Hugging Face's datasets: {described(error)}; nothing is downloaded here: "
                f"do it in Python, datasets.load_dataset({name!r})"
            ) from None
        test = next((part for part in ("test", "validation") if part in found), None)
        if "train" not in found or test is None:
            raise BadInput(f"'{name}' has the splits {', '.join(found)}, and needs train, and test or validation")
        features = found["train"].features
        columns = [
            given or next((column for column, kind in features.items() if type(kind).__name__ == wanted), "")
            for given, wanted in ((image, "Image"), (label, "ClassLabel"))
        ]
        if any(column not in features for column in columns):
            raise BadInput(
                f"'{name}' has the columns {', '.join(features)}; name those of images and classes: --set "
                "dataset.image=A --set dataset.label=B"
            )
        parts = [_Rows(found[part], columns[0], columns[1]) for part in ("train", test)]
        self._take(f"'{name}'", parts, getattr(features[columns[1]], "names", None), side, sha256)

    @classmethod
    def locate(cls, root: Path, *, name: str = "", **settings: Any) -> Path | None:
        """Returns None: the library has a cache of its own."""
        return None


class _Rows:
    """The images and classes of a table of Hugging Face."""

    def __init__(self, table: Any, image: str, label: str) -> None:
        self._table, self._image, self._label = table, image, label

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int) -> Item:
        found = self._table[row]
        return found[self._image], found[self._label]


def _second(make: Any, words: dict[str, Any]) -> Any:
    """Returns the test part, or the part "val" where the class has no "test"."""
    try:
        return make(words)
    except ValueError:
        if words.get("split") != "test":
            raise
        return make({"split": "val"})


def _arrays(what: str, items: Items, side: int) -> tuple[Tensor, Tensor]:
    """Returns images, uint8 [N, C, H, W], and classes."""
    number = len(items)
    pixels: Tensor | None = None
    labels = []
    for row in range(number):
        image, label = items[row][:2]
        one = _pixels(image)
        if one is None:
            raise BadInput(f"{what} has a {type(image).__name__} for an image, at {row:,}; images of 8 bits are read")
        one = central_square(one, side) if side else one
        if pixels is None:
            check_room(number * one.numel(), f"{what}, in memory,", "take a smaller dataset.side")
            pixels = torch.empty(number, *one.shape, dtype=torch.uint8)
        elif one.shape[1:] != pixels.shape[2:]:
            shown = [f"{of.shape[-2]}x{of.shape[-1]}" for of in (pixels, one)]
            raise BadInput(f"{what} has images of {shown[0]} and {shown[1]} pixels; give --set dataset.side=N")
        elif len(one) > pixels.shape[1]:
            pixels = pixels.expand(-1, 3, -1, -1).clone()
        pixels[row] = one
        if not isinstance(label, int | np.integer) or isinstance(label, bool) or label < 0:
            raise BadInput(f"{what} has {str(label)[:40]!r} for a class, at {row:,}; classes are whole numbers from 0")
        labels.append(int(label))
    if pixels is None:
        raise BadInput(f"{what} has an empty part")
    return pixels, torch.tensor(labels)


def _pixels(image: Any) -> Tensor | None:
    """Returns an image as uint8 [1, H, W] or [3, H, W]; None where it is no image of 8 bits."""
    from PIL import Image

    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            return None
        array = np.array(image if image.mode == "L" else image.convert("RGB"))
        return torch.from_numpy(array)[None] if array.ndim == 2 else torch.from_numpy(array).permute(2, 0, 1)
    found = torch.as_tensor(image) if isinstance(image, Tensor | np.ndarray) else None
    if found is None or found.dtype != torch.uint8 or found.dim() != 3 or found.shape[0] not in (1, 3):
        return None
    return found
