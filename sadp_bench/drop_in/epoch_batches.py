"""The batches of an epoch in a user's loop, and the loop's progress."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput


class EpochBatches:
    """An epoch's batches, of all processes together, and the progress of this process's loop.

    Args:
        batches: The batches' examples, in order.
        weights: The examples' weights, batch by batch.
        measured: Whether the pruner received the epoch's bound ratio.

    Attributes:
        num_given: Number of batches that the sampler has given out. A loader's workers can be ahead of training.
        num_observed: Number of examples of this process that were observed.
        used: Whether a batch was weighed or observed.
    """

    def __init__(self, batches: list[Tensor], weights: list[Tensor], measured: bool = False) -> None:
        self.batches, self.weights, self.measured = batches, weights, measured
        self.num_given = self.num_observed = 0
        self.used = False
        self._observed: list[Tensor] = []

    @property
    def spent(self) -> bool:
        """Whether the epoch was trained on, or all its batches were given out. Reading only some batches does not count."""
        return self.used or self.num_given == len(self.batches)

    @property
    def num_examples(self) -> int:
        """Returns this process's number of examples."""
        return sum(len(distributed.part(whole_B)) for whole_B in self.batches)

    def observe(self, index_B: Tensor) -> None:
        """Records that examples were observed."""
        self.used = True
        self.num_observed += len(index_B)
        self._observed.append(index_B)

    def rest(self, observes: bool) -> dict[str, Any]:
        """Returns the arguments of `EpochBatches` for the batches after the last trained one. See `num_done`."""
        num_done = self.num_done(observes)
        return {
            "batches": self.batches[num_done:],
            "weights": self.weights[num_done:],
            "measured": self.measured and num_done < len(self.batches),
        }

    def num_done(self, observes: bool) -> int:
        """Returns the number of batches that were trained on: those up to the last observed one.

        Args:
            observes: Whether the pruner needs the loop's observations.

        Raises:
            BadInput: A batch was observed in part, or the place is unknown because the loop observes nothing.
        """
        if not self._observed:
            if self.num_given == len(self.batches) and (self.used or not observes):
                return len(self.batches)
            if self.num_given == 0 or (observes and not self.used):
                return 0
            raise BadInput(
                f"{self.num_given} of {len(self.batches)} batches were given out, and none was observed: a state within "
                "an epoch goes on after the last observed batch, so call sampler.observe(index, logits, label)"
            )
        observed = torch.cat([index_B.cpu() for index_B in self._observed])
        parts = [distributed.part(whole_B) for whole_B in self.batches]
        last = next((k for k, part in enumerate(parts) if bool((part == observed[-1]).any())), None)
        if last is None:
            raise BadInput(f"example {int(observed[-1])} was observed, and is not among the epoch's")
        if not bool(torch.isin(parts[last], observed).all()):
            raise BadInput(
                f"batch {last + 1} of {len(parts)} was observed in part: take the state between batches, after observe"
            )
        return last + 1
