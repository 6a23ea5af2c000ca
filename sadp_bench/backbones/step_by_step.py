"""Networks that can compute their time steps one by one. T time steps, B examples, C classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

OfStep = Callable[[int, Callable[[], Tensor]], Tensor]  # (step, function of its logits_1BC) -> the logits, detached


class StepByStep(nn.Module):
    """A network that can run step by step: `forward(input, of_step)`. See `training.backprop.SLTT`.

    Attributes:
        timesteps: Time steps, T. The network uses the first T event frames.
    """

    timesteps: int

    def steps(self, input: Tensor) -> int:
        """Returns the number of time steps of an input."""
        return self.timesteps if input.dim() == 4 else min(len(input), self.timesteps)

    def each_step(self, functions: Iterable[Callable[[], Tensor]], of_step: OfStep) -> Tensor:
        """Returns logits_TBC of steps that run one after the other, from rest.

        Args:
            functions: For each step, the function that computes its logits_1BC.
            of_step: Called with each step and its function. After the call, only the neurons' membranes remain of the step.
        """
        logits = []
        with carrying(self) as cut:
            for step, function in enumerate(functions):
                logits.append(of_step(step, function))
                cut()
        return torch.cat(logits)


@contextmanager
def carrying(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Makes each call within the context start from the membranes of the previous call and use its dropout masks.

    The first call starts from rest, with new masks.

    Yields:
        A function that detaches the membranes from the graph, to be called after each call. `LIF` needs no detaching,
        but SpikingJelly's neurons do.
    """
    layers = [module for module in model.modules() if isinstance(module, MemoryModule)]

    def reset(carries: bool) -> None:
        for each in layers:
            each.reset()
            if hasattr(each, "carries"):
                each.carries = carries

    def cut() -> None:
        for each in layers:
            each.detach()

    reset(True)
    try:
        yield cut
    finally:
        reset(False)
