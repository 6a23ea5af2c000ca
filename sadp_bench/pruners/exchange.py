"""The data that a pruner and the training loop exchange: selections, observations, candidates and surveys.

Shape letters: N training examples, K kept this epoch, B batch, T time steps, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from sadp_bench.capture.signals import Signal

if TYPE_CHECKING:
    from sadp_bench.pruners.base import Pruner


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The examples of an epoch, on any device: the training loop moves them to the CPU once per epoch.

    Attributes:
        index_K: Int64, distinct, in [0, N), in any order: the training loop shuffles them by a separate stream.
        weight_K: Float32 > 0; multiplies the example's loss before the batch mean. The loop never renormalises.
    """

    index_K: Tensor
    weight_K: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """A training batch's results after its backward pass. Tensors are detached, and valid during the call only.

    Attributes:
        epoch: The batch's epoch, from 0.
        index_B: Int64, the examples' indices.
        label_B: Their labels.
        logits_TBC: Float32 or float64.
        loss_B: Each example's loss before weighting.
        watched: The values of the signals in the pruner's `watch`, float32 or float64. See `Signal` for shapes.
    """

    epoch: int
    index_B: Tensor
    label_B: Tensor
    logits_TBC: Tensor
    loss_B: Tensor
    watched: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Examples of which a part trains as a batch. `Pruner.choose_in_batch` receives them.

    Attributes:
        epoch: The epoch, from 0.
        index_C: Int64, the candidates' indices, in the epoch's random order.
        num_trained: The number of candidates that train, B.
        forward: Passes the candidates forward once, and returns an observation with the given signals. The pass is in
            evaluation mode, without gradients, and charged. Allowed are the signals that need no backward pass:
            `FEATURES`, `LOGIT_ERRORS`, `SPIKE_COUNTS`, `INPUT_SQUARES`.
    """

    epoch: int
    index_C: Tensor
    num_trained: int
    forward: Callable[[frozenset[Signal]], Observation]


class ScoringContext(Protocol):
    """Access to data and training before the run. All calls are charged to the phase `prepare`."""

    num_examples: int
    num_epochs: int
    seed: int
    device: torch.device
    data_sha256: str  # of the run's data, as the record has it; "": not known

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def label_N(self) -> Tensor:
        """The training set's labels."""

    def fresh_model(self, seed: int) -> nn.Module:
        """Returns an untrained network of the run's backbone."""

    @property
    def updates_per_epoch(self) -> int:
        """Number of updates of an epoch on all data."""

    def fit(self, pruner: Pruner, epochs: float, seed: int) -> nn.Module:
        """Returns a network trained by the run's loop for `epochs` epochs of its schedule of `num_epochs`.

        The last epoch may be partial: u updates are u / `updates_per_epoch` epochs.
        """

    def survey(self, model: nn.Module, watch: frozenset[str] = frozenset()) -> Survey:
        """Passes over the training set once: evaluation mode, no augmentation, in index order.

        Args:
            model: The network.
            watch: The optional fields of `Survey` to fill: "gradient_norms", "errors", "features", "spikes".
        """

    def scores(self, score: Callable[[], Tensor]) -> Tensor:
        """Returns the scores of `score`, [N] or [N, M].

        Runs that differ in the ratio alone compute them once, and each run is charged.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Results of a pass over the training set, on the CPU, in index order.

    Attributes:
        logits_NC: The logits, averaged over time, float32.
        label_N: The labels.
        loss_N: Each example's loss, float32.
        gradient_norm_N: The exact norm of each example's gradient; None unless "gradient_norms" was watched.
        error_NC: The gradient of each example's loss at its logits, summed over time, float32; None unless "errors" was
            watched. For a loss on the time-mean of the logits it is p - y.
        feature_ND: The readout's input, averaged over time, float32; None unless "features" was watched.
        spikes_ND: The spikes of each channel of the last spiking layer, summed over time and positions, float32; None
            unless "spikes" was watched.
    """

    logits_NC: Tensor
    label_N: Tensor
    loss_N: Tensor
    gradient_norm_N: Tensor | None = None
    error_NC: Tensor | None = None
    feature_ND: Tensor | None = None
    spikes_ND: Tensor | None = None


def unweighted(index_K: Tensor) -> Selection:
    """Returns a selection of weight 1 for every example."""
    return Selection(index_K, torch.ones(len(index_K)))
