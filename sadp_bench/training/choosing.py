"""Forward passes that a pruner requests in training: of a batch's candidates, and of examples at an epoch's end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor

from sadp_bench.capture.signals import Signal
from sadp_bench.core.clock import now
from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.contract import choice_fault
from sadp_bench.pruners.exchange import Candidates, Observation
from sadp_bench.training.augmentation import Augmentation
from sadp_bench.training.step import TrainingStep

REVISIT_BATCH = 256  # examples


class Choosing:
    """Lets a pruner choose which candidates of each batch train; counts and times the forward passes for it.

    Args:
        step: Passes examples forward.
        pruner: Chooses the candidates that train.
        epoch: The epoch, from 0.
        augmentation: How each example of the epoch is shown, in the forward pass and in the step alike.

    Attributes:
        passed: Examples passed forward, whether they trained afterwards or not.
        trained: Training visits of candidates that had passed forward; a candidate that is chosen twice has two.
        forward_seconds: Seconds of the forward passes.
        seconds: Seconds of the choices, forward passes included.
    """

    def __init__(self, step: TrainingStep, pruner: Pruner, epoch: int, augmentation: Augmentation | None) -> None:
        self.step, self.pruner, self.epoch, self.augmentation = step, pruner, epoch, augmentation
        self.passed = self.trained = 0
        self.forward_seconds = self.seconds = 0.0

    def __call__(self, index_C: Tensor, weight_C: Tensor, num_trained: int) -> tuple[Tensor, Tensor]:
        """Returns the indices and weights of the candidates that train: all, or those that the pruner chooses.

        Raises:
            BadInput: The pruner's choice breaks the contract of `Pruner.choose_in_batch`.
        """
        if num_trained == len(index_C):
            return index_C, weight_C
        passed = self.passed
        with self._timed("seconds"):
            forward = partial(self._look, index_C)
            choice = self.pruner.choose_in_batch(Candidates(self.epoch, index_C, num_trained, forward))
            if fault := choice_fault(choice, len(index_C), num_trained):
                raise BadInput(f"{type(self.pruner).__name__}.choose_in_batch in epoch {self.epoch} {fault}")
            place_B = choice.index_K.to(index_C.device)
            chosen = index_C[place_B], weight_C[place_B.to(weight_C.device)] * choice.weight_K.to(weight_C.device)
            if self.passed > passed:
                self.trained += len(place_B)
        return chosen

    def revisit(self) -> list[Tensor]:
        """Passes forward the examples that the pruner requests at the epoch's end. Returns their indices, in parts."""
        index_M, parts = self.pruner.revisit(self.epoch), []
        with self._timed("seconds"):
            for index_B in index_M.split(REVISIT_BATCH) if len(index_M) else ():
                seen = self._look(index_B, frozenset())
                self.pruner.observe_forward(seen)
                parts.append(seen.index_B)
        return parts

    def row(self) -> dict[str, float]:
        """Returns the fields to add to the epoch's row; none where no example was passed forward alone."""
        if not self.passed:
            return {}
        return {
            "forward_visits": self.passed,
            "forward_only": self.passed - self.trained,
            "forward_seconds": self.forward_seconds,
            "choice_seconds": self.seconds - self.forward_seconds,
        }

    def _look(self, index_B: Tensor, watch: frozenset[Signal]) -> Observation:
        with self._timed("forward_seconds"):
            seen = self.step.look(index_B, epoch=self.epoch, augmentation=self.augmentation, watch=watch)
        self.passed += len(index_B)
        return seen

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = now(self.step.data.device)[0]
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + now(self.step.data.device)[0] - start)
