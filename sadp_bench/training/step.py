"""One training step, as the loop, the rehearsal, the cost of a score and the study of scores take it.

T time steps, B examples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sadp_bench.backbones.weighted_norm import weighted_statistics
from sadp_bench.capture.recorder import Recorder
from sadp_bench.capture.signals import Signal
from sadp_bench.core import distributed
from sadp_bench.core.evaluation_mode import evaluation_mode
from sadp_bench.core.losses import WeightedLoss, logit_errors
from sadp_bench.pruners.exchange import Observation
from sadp_bench.records.spec import Spec
from sadp_bench.training.augmentation import Augmentation
from sadp_bench.training.backprop import at_precision, make_backprop
from sadp_bench.training.data import Loader
from sadp_bench.training.objective import run_loss


class TrainingStep:
    """Trains on one batch: gathers it, runs it forward and backward, shows it to an observer, and updates the weights.

    Args:
        model: The network, in the mode that the caller has set.
        spec: Names the loss, the backpropagation and the precision.
        data: Makes the input, on the model's device.
        optimizer: Updates the weights. Without it a step drops its gradients and leaves the weights as they are.
    """

    def __init__(
        self, model: nn.Module, spec: Spec, data: Loader, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        self.model, self.data, self.optimizer = model, data, optimizer
        self.loss = run_loss(spec)
        self.clip_norm = spec.clip_norm
        self.backprop = make_backprop(spec.backprop, spec.k, model, spec.precision, data.device)
        self._forward = at_precision(model, spec.precision, data.device)
        self._recorder: Recorder | None = None

    @contextmanager
    def recording(self, watch: frozenset[Signal]) -> Iterator[None]:
        """Records the signals in `watch` of every step within the context."""
        with Recorder(self.model, watch) as recorder:
            self._recorder = recorder if watch else None
            try:
                yield
            finally:
                self._recorder = None

    def __call__(
        self,
        batch_B: Tensor,
        weight_B: Tensor,
        draws: torch.Generator,
        *,
        epoch: int = 0,
        augmentation: Augmentation | None = None,
        observe: Callable[[Observation], None] | None = None,
        divisor: float | None = None,
    ) -> Observation:
        """Trains on a batch. Each of several processes trains on its part of it.

        Args:
            batch_B: Indices of the whole batch, int64. Indices on `Loader.place` are not copied.
            weight_B: Weights of the examples' losses, float32. Weights on the loader's device are not copied.
            draws: Generator of the backward pass's random numbers.
            epoch: The observation's epoch, from 0.
            augmentation: How each example of the epoch is shown; None: as it is stored.
            observe: Called with the observation after the backward pass and before the update.
            divisor: Divides the sum of the weighted losses; None: the number of examples, for the mean.

        Returns:
            The observation of this process's part of the batch.
        """
        index_B = distributed.part(batch_B)
        input = self.data.input(index_B, augmentation)
        index_B = index_B.to(self.data.device, non_blocking=True)
        label_B, weight_B = self.data.label_N[index_B], distributed.part(weight_B).to(self.data.device)
        target = self.data.target(index_B, augmentation)
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        divisor = len(batch_B) / distributed.size() if divisor is None else divisor
        loss = WeightedLoss(self.loss, target, weight_B, divisor)
        with weighted_statistics(self.model, weight_B):
            logits_TBC, loss_B = self.backprop(input, loss, draws, self._recorder)
        scale_B = weight_B / divisor * self.backprop.gradient_share
        watched = {} if self._recorder is None else self._recorder.seen(scale_B)
        seen = Observation(epoch, index_B, label_B, logits_TBC, loss_B, watched)
        if observe is not None:
            observe(seen)
        if self.optimizer is not None:
            if self.clip_norm:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.optimizer.step()
        else:
            self.model.zero_grad(set_to_none=True)
        return seen

    def look(
        self,
        batch_B: Tensor,
        *,
        epoch: int = 0,
        augmentation: Augmentation | None = None,
        watch: frozenset[Signal] = frozenset(),
    ) -> Observation:
        """Passes a batch forward in evaluation mode, without training. Each of several processes passes its part.

        Args:
            batch_B: Indices of the whole batch, int64.
            epoch: The observation's epoch, from 0.
            augmentation: How each example of the epoch is shown; None: as it is stored.
            watch: Signals to record.

        Returns:
            The observation of this process's part of the batch.
        """
        index_B = distributed.part(batch_B)
        input = self.data.input(index_B, augmentation)
        index_B = index_B.to(self.data.device, non_blocking=True)
        label_B, target = self.data.label_N[index_B], self.data.target(index_B, augmentation)
        with evaluation_mode(self.model), torch.no_grad(), Recorder(self.model, watch) as recorder:
            logits_TBC = self._forward(input)
        watched = recorder.seen()
        if Signal.LOGIT_ERRORS in watch:
            watched[Signal.LOGIT_ERRORS] = logit_errors(self.loss, logits_TBC, target)
        return Observation(epoch, index_B, label_B, logits_TBC, self.loss(logits_TBC, target), watched)
