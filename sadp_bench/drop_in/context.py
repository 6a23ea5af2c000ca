"""The scoring context of a pruner in a user's training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Survey

NEEDS_SCORES = (
    "this method scores the examples before training, and the sampler has no scores: pass scores=, a number for each "
    "example (see score_with)"
)
NEEDS_NETWORK = (
    "this method trains a network before the run, which the sampler can't: run it by sadp-bench run, or give its choice to "
    "Subset(ratio, file=...)"
)


class LoopContext:
    """The `pruner.ScoringContext` of a loop: size and labels of the data, and given scores. It cannot train a network.

    Args:
        label_N: The labels, or None.
        num_examples: N.
        num_epochs: Number of epochs of training on all data.
        seed: The seed of the pruner's draws.
        device: The network's device.
        score_N: The given scores, or None.
    """

    data_sha256 = ""  # a loop's data are not hashed

    def __init__(
        self,
        label_N: Tensor | None,
        num_examples: int,
        num_epochs: int,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        score_N: Tensor | None = None,
    ) -> None:
        self.num_examples = num_examples
        self.num_epochs = num_epochs
        self.seed = seed
        self.device = torch.device(device)
        self._label_N = label_N
        self._score_N = score_N
        self._scoring = False

    @property
    def label_N(self) -> Tensor:
        """Returns the labels. Raises BadInput where there are none."""
        if self._label_N is None:
            raise BadInput("this pruner needs labels, and the sampler has none: pass labels= in place of num_examples=")
        return self._label_N

    @property
    def num_classes(self) -> int:
        """Returns the highest label plus one."""
        return int(self.label_N.max()) + 1

    def scores(self, score: Callable[[], Tensor]) -> Tensor:
        """Returns the given scores, or those of `score`."""
        self._scoring = True
        return score() if self._score_N is None else self._score_N

    def fresh_model(self, seed: int) -> nn.Module:
        """Raises BadInput: the method needs scores, or a network."""
        raise self._refusal()

    @property
    def updates_per_epoch(self) -> int:
        """Raises BadInput: the method needs scores, or a network."""
        raise self._refusal()

    def fit(self, pruner: Pruner, epochs: float, seed: int) -> nn.Module:
        """Raises BadInput: the method needs scores, or a network."""
        raise self._refusal()

    def survey(self, model: nn.Module, watch: frozenset[str] = frozenset()) -> Survey:
        """Raises BadInput: the method needs scores, or a network."""
        raise self._refusal()

    def _refusal(self) -> BadInput:
        return BadInput(NEEDS_SCORES if self._scoring else NEEDS_NETWORK)


def label_N_of(labels: Sequence[int] | Tensor | None, num_examples: int | None) -> Tensor | None:
    """Returns the labels as a tensor, or None. Raises BadInput where labels and number of examples do not fit."""
    if labels is None:
        if num_examples is None or num_examples < 1:
            raise BadInput(f"num_examples is {num_examples} without labels: pass labels= or num_examples= (at least 1)")
        return None
    if num_examples not in (None, len(labels)):
        raise BadInput(f"num_examples={num_examples} does not fit the {len(labels)} labels: pass labels= alone")
    return torch.as_tensor(labels, dtype=torch.int64).cpu()


def score_N_of(scores: Sequence[float] | Tensor | None, num_examples: int) -> Tensor | None:
    """Returns the scores as a tensor, or None. Raises BadInput where they are not N numbers."""
    if scores is None:
        return None
    score_N = torch.as_tensor(scores).detach().cpu()
    if score_N.shape != (num_examples,):
        raise BadInput(f"scores are one number for each of the {num_examples} examples, not {list(score_N.shape)}")
    if num_nan := int(score_N.isnan().sum()):
        raise BadInput(
            f"{num_nan} of the {num_examples} scores are NaN, the first that of example {int(score_N.isnan().nonzero()[0])}: "
            "give every example a number"
        )
    return score_N
