"""Leaks between the parts of a data set: near-equal examples, and windows of one recording, in training and test set.

Every test example is compared with every training example by small copies of both, whose correlation is one product of
matrices. The best few are then compared as they are stored. So 10,000 test examples against 50,000 take some seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples

NEAR = 0.98  # correlation from which two inputs are near-equal: the rest is at most 4 % of their variance
COARSE = 0.9  # correlation of small copies from which inputs are compared as they are stored
BEST = 3  # training examples that are compared so for each test example
FEATURES = 256  # values of a small copy, about
MOST_TRAIN, MOST_TEST = 100_000, 20_000  # inputs that are compared; of more, evenly spaced ones
LEAST_PIXELS = 256  # of a frame: fewer are alike by chance
LEAST_FILLED = 32  # values of a frame of events that are not 0, for the same reason
BLOCK = 256  # inputs that are copied, or compared, together


@dataclass(frozen=True, slots=True)
class Pair:
    """A test example and the training example that is most like it.

    Attributes:
        kind: "example": both are near-equal. "frame": the middle frame of the test example is near-equal to a frame of the
            training example: windows of one recording that overlap.
        test: The place of the test example.
        train: The place of the training example.
        correlation: Of the two, as they are stored.
    """

    kind: str
    test: int
    train: int
    correlation: float


@dataclass(frozen=True, slots=True)
class Leaks:
    """What was found.

    Attributes:
        num_test: Test examples that were compared.
        num_train: Training examples that were compared.
        pairs: By falling correlation; one for each test example and kind.
        shared_files: Files of which both parts have examples, where the data set states the files.
    """

    num_test: int
    num_train: int
    pairs: list[Pair]
    shared_files: list[str]


def find_leaks(dataset: Dataset) -> Leaks:
    """Returns the leaks of a loaded data set."""
    train, test = (_spaced(*of) for of in ((len(dataset.train), MOST_TRAIN), (len(dataset.test), MOST_TEST)))
    found = _near("example", _Inputs(dataset.train, train), _Inputs(dataset.test, test))
    height, width = dataset.train.input_shape[1:]
    if dataset.events and not dataset.vectors and height * width >= LEAST_PIXELS:
        known = {pair.test for pair in found}
        frames = _Frames(dataset.train, train, None), _Frames(dataset.test, test, [dataset.test.input_N.shape[1] // 2])
        found += [pair for pair in _near("frame", *frames) if pair.test not in known]
    files = [set(dataset.file_names.get(part, ())) for part in ("train", "test")]
    ranked = sorted(found, key=lambda pair: (-pair.correlation, pair.test))
    return Leaks(len(test), len(train), ranked, sorted(files[0] & files[1]))


def _spaced(number: int, most: int) -> Tensor:
    """Returns the places of all of so many examples, or of evenly spaced ones."""
    return torch.arange(number)[:: math.ceil(number / most)]


class _Inputs:
    """Examples as [B, C, H, W] in float32: time steps are channels; of vectors, each value is one, and its steps are rows.

    Attributes:
        places: Of the examples within their part.
    """

    def __init__(self, examples: Examples, places: Tensor) -> None:
        self._examples, self.places = examples, places

    def __len__(self) -> int:
        return len(self.places)

    def read(self, row_B: Tensor) -> Tensor:
        """Returns some of the inputs."""
        input_B = self._examples.inputs(self.places[row_B]).float()
        if input_B.dim() == 4:
            return input_B
        vectors = input_B.shape[2:4] == (1, 1)
        return input_B.flatten(2).transpose(1, 2).unsqueeze(3) if vectors else input_B.flatten(1, 2)


class _Frames:
    """Single frames of examples as [B, C, H, W] in float32. One with few events is all 0, and so like no other.

    Args:
        examples: The examples.
        places: Of those that are taken.
        steps: The time steps that are taken of each; None: all, or as many as keep the number of frames below `MOST_TRAIN`.

    Attributes:
        places: Of each frame's example within its part.
    """

    def __init__(self, examples: Examples, places: Tensor, steps: Sequence[int] | None) -> None:
        taken = range(examples.input_N.shape[1]) if steps is None else steps
        every = math.ceil(len(places) * len(taken) / MOST_TRAIN)
        self._examples = examples
        self.places = places[::every].repeat_interleave(len(taken))
        self._step_N = torch.tensor(list(taken)).repeat(len(places[::every]))

    def __len__(self) -> int:
        return len(self.places)

    def read(self, row_B: Tensor) -> Tensor:
        """Returns some of the frames."""
        place_M, at_B = self.places[row_B].unique(return_inverse=True)
        frame_B = self._examples.inputs(place_M)[at_B, self._step_N[row_B]].float()
        filled_B = (frame_B != 0).flatten(1).sum(1) >= LEAST_FILLED
        return frame_B * filled_B[:, None, None, None]


def _near(kind: str, train: _Inputs | _Frames, test: _Inputs | _Frames) -> list[Pair]:
    """Returns for each test input the training input that is most like it, where they are near-equal."""
    if not len(train) or not len(test):
        return []
    small_N = torch.cat([_small(train.read(row_B)) for row_B in _blocks(len(train))])
    pairs = []
    for row_B in _blocks(len(test)):
        input_B = test.read(row_B)
        coarse_BM, train_BM = (_small(input_B) @ small_N.T).topk(min(BEST, len(small_N)))
        for at in (coarse_BM[:, 0] >= COARSE).nonzero().flatten().tolist():
            like_M = _standard(train.read(train_BM[at]).flatten(2)) @ _standard(input_B[at : at + 1].flatten(2))[0]
            best = int(like_M.argmax())
            if float(like_M[best]) >= NEAR:
                places = int(test.places[row_B[at]]), int(train.places[train_BM[at, best]])
                pairs.append(Pair(kind, *places, min(1.0, float(like_M[best]))))
    return pairs


def _blocks(number: int) -> Iterator[Tensor]:
    return iter(torch.arange(number).split(BLOCK))


def _small(input_B: Tensor) -> Tensor:
    """Returns small copies of inputs as unit vectors, whose products are correlations."""
    area, (height, width) = FEATURES // input_B.shape[1], input_B.shape[2:]
    side = max(2, math.isqrt(area) if width > 1 else area)
    height, width = min(side, height), min(side, width)
    return _standard(nn.functional.adaptive_avg_pool2d(input_B, (height, width)).flatten(2))


def _standard(value_BCP: Tensor) -> Tensor:
    """Returns values as unit vectors [B, C P]; each channel has the mean 0. A constant input gives 0."""
    centred_BV = (value_BCP - value_BCP.mean(2, keepdim=True)).flatten(1)
    return centred_BV / centred_BV.norm(dim=1, keepdim=True).clamp_min(1e-6)
