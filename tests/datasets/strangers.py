"""Data sets as strangers write them: one that keeps the contract, and a breach of each of its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples


def pixels(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def labels(number: int, classes: int = 4) -> Tensor:
    return torch.arange(number) % classes


class Images(Dataset):
    """64 random images of 8x8: 40 to train, 24 to test, 4 classes.

    Source: generated.
    """

    epochs, batch_size, timesteps = 1, 8, 2
    scale, mean, std = 1.0, (0.5,), (0.25,)
    class_names = ("a", "b", "c", "d")
    train_input, train_labels = pixels(40, 1, 8, 8), labels(40)
    test_input, test_labels = pixels(24, 1, 8, 8), labels(24)

    def __init__(self, root: Path, timesteps: int) -> None:
        self.train = Examples(self.train_input, self.train_labels)
        self.test = Examples(self.test_input, self.test_labels)

    @classmethod
    def locate(cls, root: Path) -> Path | None:
        return root


class Recordings(Images):
    """The same images as recordings, cut into the requested number of frames."""

    events = True
    frames: int | None = None  # of every recording, whatever number is requested
    mean, std = (0.0, 0.0), (1.0, 1.0)

    def __init__(self, root: Path, timesteps: int) -> None:
        frames = self.frames or timesteps
        self.train = Examples(pixels(40, frames, 2, 1, 8), self.train_labels)
        self.test = Examples(pixels(24, frames, 2, 1, 8), self.test_labels)


def changed(value: Any, place: Any, new: Any) -> Any:
    copy = value.clone()
    copy[place] = new
    return copy


TRAIN = {"train": None, "__init__": lambda self, root, timesteps: setattr(self, "test", None)}
NO_TEST = {"test_input": pixels(0, 1, 8, 8), "test_labels": labels(0)}
NAN, INFINITE = (changed(Images.train_input, (17, 0, 3, 4), value) for value in (float("nan"), float("inf")))
COLOUR = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
# Attributes that a class derived from `Images` or `Recordings` changes, and words of the refusal, by broken rule.
BREACHES: list[tuple[type[Dataset], dict[str, Any], tuple[str, ...]]] = [
    (Images, TRAIN, ("`train`", "Examples")),
    (Images, {"train_input": np.zeros((40, 1, 8, 8))}, ("Examples.input_N", "ndarray")),
    (
        Images,
        {"train_input": Images.train_input.double()},
        ("Examples.input_N", "torch.float32", "not", "torch.float64"),
    ),
    (Images, {"test_input": Images.test_input.half()}, ("torch.float32", "torch.float16")),
    (Images, {"train_input": pixels(40, 8, 8)}, ("[N, C, H, W]", "[40, 8, 8]")),
    (Images, {"train_input": Images.train_input.clone().requires_grad_()}, ("without gradient",)),
    (Images, {"train_labels": labels(40).int()}, ("Examples.label_N", "torch.int64", "torch.int32")),
    (Images, {"train_labels": labels(40).float()}, ("Examples.label_N", "torch.float32")),
    (Images, {"train_labels": labels(40)[:, None]}, ("Examples.label_N", "[40, 1]")),
    (Images, {"train_labels": labels(39)}, ("40 inputs", "39 labels")),
    (Images, NO_TEST, ("`test` is empty",)),
    (Images, {"test_input": pixels(24, 1, 8, 9)}, ("one shape", "[1, 8, 9]")),
    (Images, {"test_input": (255 * Images.test_input).byte()}, ("one shape and type", "torch.uint8")),
    (Images, {"train_input": pixels(40, 1, 0, 8), "test_input": pixels(24, 1, 0, 8)}, ("length 0",)),
    (Images, {"events": True}, ("`events` is True", "[N, T, C, H, W]")),
    (Recordings, {"events": False}, ("`events` is False", "[N, C, H, W]")),
    (Recordings, {"frames": 5}, ("`timesteps`", "2", "5")),
    (Images, {"train_labels": labels(40) + 1}, ("labels are 0 to 3", "example 3 of `train` is 4")),
    (Images, {"test_labels": changed(labels(24), 11, -1)}, ("labels are 0 to 3", "example 11 of `test` is -1")),
    (Images, {"class_names": np.array(["a", "b", "c", "d"])}, ("`class_names` is a tuple of texts",)),
    (Images, {"class_names": (0, 1, 2, 3)}, ("`class_names` is a tuple of texts",)),
    (Images, {"class_names": "abcd"}, ("`class_names` is a tuple of texts",)),
    (Images, {"class_names": None}, ("`class_names` is a tuple of texts",)),
    (Images, {"class_names": ("a",), "train_labels": 0 * labels(40)}, ("two classes at least",)),
    (Images, {"class_names": ("crane", "b", "crane", "d")}, ("distinct", "'crane' stands for labels 0 and 2")),
    (Images, {"class_names": ("a", "no\xa0break", "c", "d")}, ("U+00A0", "label 1")),
    (Images, {"class_names": ("a", "b", "tab\t", "d")}, ("U+0009", "label 2")),
    (Images, {"class_names": ("a", "b", "c", "\ud800")}, ("U+D800", "label 3")),
    (Images, {"class_names": ("a", "b", "c", " ")}, ("no name for label 3",)),
    (Images, COLOUR, ("`mean`", "each channel", "1")),
    (Images, {"std": (0.2, 0.2, 0.2)}, ("`std`", "each channel", "1")),
    (Images, {"mean": 0.5}, ("`mean`", "each channel")),
    (Images, {"mean": (float("nan"),)}, ("`mean`", "finite")),
    (Images, {"std": (float("inf"),)}, ("`std`", "finite")),
    (Images, {"std": (0.0,)}, ("`std` is above 0", "channel 0 is 0")),
    (Recordings, {"std": (1.0, -1.0)}, ("`std` is above 0", "channel 1 is -1")),
    (Images, {"std": (1e-17,)}, ("`std` is above 0", "rounding")),
    (Images, {"scale": 0.0}, ("`scale`", "above 0")),
    (Images, {"train_input": NAN}, ("inputs are finite", "example 17 of `train` has nan")),
    (Images, {"test_input": changed(Images.test_input, 23, float("inf"))}, ("finite", "example 23 of `test`")),
    (Images, {"train_input": changed(Images.train_input, 5, 3e38)}, ("inputs are finite", "example 5", "3e+38")),
    (Images, {"train_input": INFINITE}, ("inputs are finite", "example 17 of `train`", "inf")),
]


def breach(base: type[Dataset], declared: dict[str, Any]) -> type[Dataset]:
    return type("Stranger", (base,), declared)
