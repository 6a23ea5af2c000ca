"""Leaks between training and test set: near-equal examples, and overlapping windows of one recording.

Every test example is compared with every training example by the correlation of small copies, in one product of matrices.
The best few are then compared as they are stored. So 10,000 test examples against 50,000 take some seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples

NEAR = 0.98  # correlation from which two inputs are near-equal: each explains all but 4 % of the other's variance
COARSE = 0.9  # correlation of small copies from which inputs are compared as they are stored
BEST = 3  # training examples of each test example that are compared as they are stored
FEATURES = 256  # about how many values a small copy has
MOST_TRAIN, MOST_TEST = 100_000, 20_000  # inputs that are compared; evenly spaced ones where there are more
LEAST_PIXELS = 256  # pixels of a frame; smaller frames are alike by chance
LEAST_FILLED = 32  # values other than 0 in a frame of events; frames with fewer are alike by chance
BLOCK = 256  # inputs that are copied, or compared, together


@dataclass(frozen=True, slots=True)
class Pair:
    """A test example and the training example that is most like it.

    Attributes:
        kind: "example": both are near-equal. "frame": the middle frame of the test example is near-equal to a frame of the
            training example, as in windows of one recording that overlap.
        test: The place of the test example.
        train: The place of the training example.
        correlation: Correlation of the two, as they are stored.
    """

    kind: str
    test: int
    train: int
    correlation: float


@dataclass(frozen=True, slots=True)
class Leaks:
    """The leaks of a data set.

    Attributes:
        num_test: Test examples that were compared.
        num_train: Training examples that were compared.
        pairs: The pairs, by falling correlation; at most one for each test example.
        shared_files: Files from which both parts have examples, where the data set has the files' names.
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
    """Returns the places of `number` examples, evenly spaced where these are more than `most`."""
    return torch.arange(number)[:: math.ceil(number / most)]


class _Inputs:
    """Examples as [B, C, H, W] in float32. Time steps become channels. The values of vectors are channels, the steps rows.

    Attributes:
        places: Places of the examples within their part.
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
    """Single frames of examples as [B, C, H, W] in float32. A frame with few events is set to 0, so it resembles no other.

    Args:
        examples: The examples.
        places: Places of the examples to take; only evenly spaced ones where the frames would exceed `MOST_TRAIN`.
        steps: The time steps to take of each example; None: all.

    Attributes:
        places: Place of each frame's example within its part.
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
    """Returns the pair of each test input and the training input most like it, where they are near-equal."""
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
    """Returns small copies of inputs as unit vectors. Their products are correlations."""
    area, (height, width) = FEATURES // input_B.shape[1], input_B.shape[2:]
    side = max(2, math.isqrt(area) if width > 1 else area)
    height, width = min(side, height), min(side, width)
    return _standard(nn.functional.adaptive_avg_pool2d(input_B, (height, width)).flatten(2))


def _standard(value_BCP: Tensor) -> Tensor:
    """Returns values as unit vectors [B, C P] whose channels have the mean 0. A constant input gives 0."""
    centred_BV = (value_BCP - value_BCP.mean(2, keepdim=True)).flatten(1)
    return centred_BV / centred_BV.norm(dim=1, keepdim=True).clamp_min(1e-6)
