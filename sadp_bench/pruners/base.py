"""The contract of a pruner: what a data-pruning method is given, and what it must answer.

Shape letters: N training examples, K kept this epoch, B batch, T time steps, C classes, D readout features,
S spiking layers.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.pruners.sampling import kept_in_epoch


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """One epoch's examples.

    index_K: int64, distinct, in [0, N), in any order: the loop brings its own, which no pruner knows.
    weight_K: float32 > 0; multiplies the example's loss before the batch mean. The loop never renormalises.
    """

    index_K: Tensor
    weight_K: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What one training batch showed, after its backward pass. Detached; valid during the call only.

    logits_TBC: float32 or float64. loss_B: before weighting. epoch: of the batch, from 0.
    watched: what the pruner asked for in `watch`, float32 or float64: "features" (T, B, D), the readout's input;
    "logit_errors" (T, B, C), the gradient of the example's own loss at its logits; "spike_counts" (S, T, B), of each layer;
    "input_squares", "error_squares" (L, B) of convolution and linear layers ("middle_...": of the middle time step alone),
    "norm_input_squares", "norm_error_squares" (M, B) of norm layers, and in an epoch's first batch "bound_ratio" (2, L): see
    `taps.Taps`.
    """

    epoch: int
    index_B: Tensor
    label_B: Tensor
    logits_TBC: Tensor
    loss_B: Tensor
    watched: Mapping[str, Tensor] = field(default_factory=dict)


class ScoringContext(Protocol):
    """What a pruner may use before training; everything done here is charged to `prepare`."""

    num_examples: int
    num_epochs: int
    seed: int
    device: torch.device

    @property
    def num_classes(self) -> int: ...

    @property
    def label_N(self) -> Tensor: ...

    def fresh_model(self, seed: int) -> nn.Module:
        """An untrained network of the run's backbone."""

    def fit(self, pruner: Pruner, epochs: int, seed: int) -> nn.Module:
        """A network trained by the run's own loop for so many epochs of its schedule of `num_epochs`."""

    def survey(self, model: nn.Module, watch: frozenset[str] = frozenset()) -> Survey:
        """One pass over the training set: evaluation mode, no augmentation, in index order."""

    def scores(self, score: Callable[[], Tensor]) -> Tensor:
        """What `score` gives, [N]; computed once for all runs that differ in the ratio alone, charged to each."""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What a pass over the training set showed, on the CPU, in index order.

    logits_NC: float32, averaged over time. loss_N: float32. gradient_norm_N: exact per-example norm of the loss's
    gradient over all parameters, where "gradient_norms" was asked for.
    """

    logits_NC: Tensor
    label_N: Tensor
    loss_N: Tensor
    gradient_norm_N: Tensor | None = None


class Pruner(ABC):
    """A data-pruning method. `select` is all that it must have.

    Settings are keyword arguments of `__init__`; data comes to `prepare`. The ratio is a budget: the share of example
    visits saved over the whole run, realised to within 0.5 points, or `check` raises BadInput.
    """

    watch: frozenset[str] = frozenset()  # names of Observation.watched; a run that watches nothing pays nothing
    fixed_size: bool = True  # the same share every epoch of an unshortened run; the protocol `updates` needs it
    exempt: bool = False  # realises another ratio than it was given, and says so

    def __init__(self, prune_ratio: float) -> None:
        if not 0 <= prune_ratio < 1:
            raise BadInput(f"prune_ratio is at least 0 and below 1 (the share of visits to save), not {prune_ratio}")
        self.prune_ratio = prune_ratio
        self.num_examples = 0
        self.num_epochs = 0
        self.seed = 0

    def check(self, num_epochs: int) -> None:  # noqa: B027 (optional)
        """Called before anything is trained, the reference included: BadInput where the run can't realise the ratio."""

    def prepare(self, context: ScoringContext) -> None:
        """Called once, before training. A method that scores first overrides it, and calls this one too."""
        self.num_examples, self.num_epochs, self.seed = context.num_examples, context.num_epochs, context.seed

    @abstractmethod
    def select(self, epoch: int) -> Selection:
        """The examples of an epoch, from 0."""

    def observe(self, seen: Observation) -> None:  # noqa: B027 (optional)
        """Called once a batch, after its backward pass. Must not wait for the device (`.item()`, `.cpu()`).

        In a run on several processes each sees its own slice of the batch. What is kept of an example in tensors of length
        N named `*_N` comes to all of them before the next `select`; anything else that is kept of a batch would not.
        """

    def to_survey(self, epoch: int) -> Tensor | None:
        """Examples to be shown to `observe` before this epoch's `select`, int64, or None: in evaluation mode, without
        augmentation, with no update. Charged to `select`; not part of the budget, and counted apart."""
        return None

    def run_epochs(self, epochs: int) -> float:
        """How many epochs the run takes when the data's own run takes so many; a pruner may shorten it."""
        return epochs

    def scoring_epochs(self, num_epochs: int) -> float:
        """How many epochs' worth of example visits `prepare` will make: for the estimate before training."""
        return 0

    def num_kept(self, epoch: int) -> int:
        """K of an epoch for a method that saves the same share every epoch."""
        return kept_in_epoch(self.num_examples, self.prune_ratio, epoch)

    def generator(self, epoch: int = 0) -> torch.Generator:
        """The pruner's own stream of random numbers for an epoch."""
        return stream(self.seed, "pruner", epoch)

    def per_example(self) -> dict[str, Tensor]:
        """What is kept of each example: the tensors of length N named `*_N`."""
        return {
            name: value
            for name, value in vars(self).items()
            if name.endswith("_N") and isinstance(value, Tensor) and value.shape[:1] == (self.num_examples,)
        }

    def state_dict(self) -> dict[str, Any]:
        """Every attribute, so that a simple pruner needs to do nothing for an exact resume.

        Raises BadInput where one is neither a tensor nor a plain value nor made of such: a checkpoint holds nothing else,
        so such a pruner overrides this method and the next, or its runs can't be taken up again.
        """
        for name, value in vars(self).items():
            if not _is_plain(value):
                raise BadInput(
                    f"the pruner's attribute {name} is a {type(value).__name__}, which no checkpoint holds: make it a tensor "
                    "or a plain value, or override state_dict and load_state_dict"
                )
        return copy.deepcopy(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(copy.deepcopy(dict(state)))


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in (list, tuple):
        return all(map(_is_plain, value))
    if kind is dict:
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return kind in (type(None), bool, int, float, str, Tensor)  # and nothing derived from them, such as NumPy's float64


def unweighted(index_K: Tensor) -> Selection:
    """A selection in which every example's loss counts as it is."""
    return Selection(index_K, torch.ones(len(index_K)))


class KeepAll(Pruner):
    """Every example, weight 1; a scoring run is a training run with a pruner that keeps all and watches."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def select(self, epoch: int) -> Selection:
        return unweighted(torch.arange(self.num_examples))
