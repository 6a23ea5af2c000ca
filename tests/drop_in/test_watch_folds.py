"""`watch` on networks that fold time into the batch, with time first or examples first: each example gets its own numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from tests.drop_in.helpers import SQUARES, assert_bounded, assert_close, drawn, watched

B, T = 5, 4
LABELS = torch.tensor([0, 2, 1, 2, 0])
SIGNALS = frozenset(SQUARES | {"bound_ratio", "features", "logit_errors"})


def fold(x_TB: Tensor, time_first: bool) -> Tensor:
    """[T, B, ...] -> [T * B, ...] or [B * T, ...]."""
    return (x_TB if time_first else x_TB.transpose(0, 1)).flatten(0, 1)


def unfold(x: Tensor, time_first: bool, steps: int) -> Tensor:
    """[T * B, ...] or [B * T, ...] -> [T, B, ...]."""
    return x.unflatten(0, (steps, -1)) if time_first else x.unflatten(0, (-1, steps)).transpose(0, 1)


def spikingjellys() -> nn.Module:
    return neuron.LIFNode(v_threshold=0.3, surrogate_function=surrogate.ATan(), step_mode="m")


class StepByStep(nn.Module):
    """A spiking layer that takes a step at a time, called for each: snnTorch's, and SpikingJelly's other mode."""

    def __init__(self, snntorchs: bool) -> None:
        super().__init__()
        import snntorch

        self.fire: Any = (
            snntorch.Leaky(beta=0.9, threshold=0.3, init_hidden=True)
            if snntorchs
            else neuron.LIFNode(v_threshold=0.3, surrogate_function=surrogate.ATan())
        )

    def forward(self, x_TB: Tensor) -> Tensor:
        self.fire.reset_mem() if hasattr(self.fire, "reset_mem") else self.fire.reset()
        return torch.stack([self.fire(x).to(x) for x in x_TB])


class Folded(nn.Module):
    """[T, B, 2, 5, 4] -> logits: folds time into the batch around each of its layers.

    Args:
        fire: Makes a spiking layer, which takes [T, B, ...].
        orders: Whether time comes first around the convolution, the linear layer and the readout.
        norm: Whether batch norm follows the convolution.
        tokens: Whether the linear layer takes tokens, [T * B, N, D].
    """

    def __init__(
        self, fire: Callable[[], nn.Module], orders: tuple[bool, bool, bool], norm: bool = False, tokens: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.hidden, self.readout = (
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Linear(15 if tokens else 60, 6),
            nn.Linear(6, 3),
        )
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.fires = nn.ModuleList([fire(), fire()])
        self.orders, self.tokens = orders, tokens
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        steps, (at_conv, at_hidden, at_readout) = len(x), self.orders
        x = self.fires[0](unfold(self.norm(self.conv(fold(x, at_conv))), at_conv, steps))
        x = x.transpose(2, -1).flatten(3) if self.tokens else x.flatten(2)
        x = self.fires[1](unfold(self.hidden(fold(x, at_hidden)), at_hidden, steps))
        x = x.mean(2) if self.tokens else x
        logits: Tensor = unfold(self.readout(fold(x, at_readout)), at_readout, steps)
        return logits.mean(0)


FIRES: dict[str, Callable[[], nn.Module]] = {
    "SpikingJelly": spikingjellys,
    "SpikingJelly step by step": lambda: StepByStep(False),
    "snnTorch": lambda: StepByStep(True),
}
TIME, EXAMPLES, MIXED = (True, True, True), (False, False, False), (False, True, False)
CASES: list[dict[str, Any]] = [{}, {"norm": True}, {"tokens": True}]


def shown(net: nn.Module, input: Tensor, **how: Any) -> dict[str, Tensor]:
    """Returns the signals, of the bound ratio the exact norms. Its bound reads the middle step where time comes first."""
    found = watched(net, lambda: net(input), LABELS, SIGNALS, **how)
    return {**found, "bound_ratio": found["bound_ratio"][:1]}


@pytest.mark.parametrize("fire", FIRES)
def test_every_order_of_a_fold_shows_the_same_and_nobody_is_asked(fire: str) -> None:
    for steps, case in itertools.product((T, B, 2 * B), CASES):
        input = drawn(steps, B, 2, 5, 4)
        first = Folded(FIRES[fire], TIME, **case)
        expected = shown(first, input)
        for orders in (EXAMPLES, MIXED):
            assert_close(shown(Folded(FIRES[fire], orders, **case), input), expected, rtol=1e-7)
        if not case.get("norm"):  # Batch norm mixes the examples.
            logits_of = partial(of_example, first, input)
            assert_bounded(first, [first.conv, first.hidden], logits_of, LABELS, expected, ratio_rtol=1e-6)


def of_example(net: nn.Module, input: Tensor, example: int) -> Tensor:
    logits: Tensor = net(input[:, example : example + 1])
    return logits
