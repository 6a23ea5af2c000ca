"""Early-Time tickets, whose search takes fewer time steps than the run. T time steps, B examples, C classes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widest_dtype
from sadp_bench.sparsity.base import SearchContext, Sparsity

MIN_DIVERGENCE = 1e-12  # nats; a smaller divergence is the rounding of equal distributions


def divergences(logits_TBC: Tensor) -> Tensor:
    """Returns KL_t = KL(softmax(mean logits to T) || softmax(mean logits to t)), mean over examples. Float64, [T]."""
    steps_T11 = torch.arange(1, len(logits_TBC) + 1, device=logits_TBC.device)[:, None, None]
    log_p_TBC = (logits_TBC.to(widest_dtype(logits_TBC.device)).cumsum(0) / steps_T11).log_softmax(2)
    whole_BC = log_p_TBC[-1]
    return (whole_BC.exp() * (whole_BC - log_p_TBC)).sum(2).mean(1).clamp_min(0)


def early_timesteps(logits_TBC: Tensor, share: float = 0.6) -> int:
    """Returns T', the smallest t with KL_t / max KL < share: further steps hardly change the output.

    It is 1 where all steps have equal outputs (max KL = 0), which the paper leaves open.

    Source: Kim et al., "Exploring Lottery Ticket Hypothesis in Spiking Neural Networks", ECCV 2022 (Early-Time
    tickets).
    """
    kl_T = divergences(logits_TBC)
    if kl_T.max() <= MIN_DIVERGENCE:
        return 1
    return 1 + int((kl_T / kl_T.max() < share).nonzero()[0])


def chosen_timesteps(context: SearchContext, share: float = 0.6, num_examples: int = 1000) -> int:
    """Returns T' of the run's network after one epoch at all T steps, measured on `num_examples` training examples."""
    if context.timesteps == 1:
        raise BadInput("early_time shortens a search of several time steps, and the run has 1: leave it out")
    model = last(context.train(Sparsity(), timesteps=context.timesteps, epochs=1))
    timesteps = early_timesteps(context.logits(model, num_examples), share)
    context.message(f"early time: the search takes {timesteps} of {context.timesteps} time steps")
    return timesteps


def last(networks: Iterator[nn.Module]) -> nn.Module:
    """Returns the network after all its epochs."""
    return deque(networks, maxlen=1).pop()


class Searching(Sparsity):
    """Trains networks to find its masks, at T' time steps with `early_time`, otherwise at the run's.

    The epoch from which T' follows is trained for it alone, because T' is unknown before, and is charged.

    Args:
        density: Of `Sparsity`, below 1.
        early_time: Of `Sparsity`.
        kl_share: The share of `early_timesteps`; without effect unless `early_time`.
        kl_examples: Training examples that T' is measured on; without effect unless `early_time`.
    """

    searches = True

    def __init__(self, density: float, early_time: bool, kl_share: float, kl_examples: int) -> None:
        super().__init__(density, early_time)
        if density == 1:
            raise BadInput("a search for a mask needs a density below 1: choose one, or dense")
        if not 0 < kl_share <= 1:
            raise BadInput(f"kl_share is above 0 and at most 1, not {kl_share:g}")
        if kl_examples < 1:
            raise BadInput(f"kl_examples is at least 1, not {kl_examples}")
        self.kl_share = kl_share
        self.kl_examples = kl_examples

    def search_timesteps(self, context: SearchContext) -> int:
        """Returns the time steps of the search."""
        if not self.early_time:
            return context.timesteps
        if "timesteps" not in context.kept:
            context.keep(timesteps=chosen_timesteps(context, self.kl_share, self.kl_examples))
        timesteps: int = context.kept["timesteps"]
        return timesteps
