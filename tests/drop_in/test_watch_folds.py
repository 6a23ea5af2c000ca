"""`watch` on networks that fold time into the batch, with time first or examples first: each example gets its own numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench.core.errors import BadInput
from sadp_bench.drop_in.scores import score_with
from tests.drop_in.helpers import SQUARES, assert_bounded, assert_close, assert_refused, drawn, watched

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


def parallel() -> nn.Module:
    fire = neuron.SlidingPSN(k=2, step_mode="m")
    nn.init.constant_(fire.bias, 0.1)  # By default few would fire.
    return fire


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
    "SpikingJelly's parallel neurons": parallel,
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
    for steps, case in zip((T, B, 2 * B), CASES, strict=True):
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


class BatchFirst(nn.Module):
    """[B, T, 8] -> logits [B, T, C], batch-first as recurrent networks give them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.hidden, self.readout = nn.Linear(8, 6).double(), nn.Linear(6, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.hidden(x.cumsum(1)).sigmoid())
        return logits


def mean_loss_of_batch_first(logits: Tensor, label_B: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.mean(1), label_B, reduction="none")


def mean_of(net: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = net(x).mean(1)
    return logits


def test_logits_with_examples_first_are_taken_with_time_first_false_and_else_the_message_says_so() -> None:
    net, how = BatchFirst(), {"time_first": False}
    for steps in (T, B, 2 * B):
        input = drawn(B, steps, 8)
        found = watched(net, partial(net, input), LABELS, SIGNALS, mean_loss_of_batch_first, **how)
        mean = watched(net, partial(mean_of, net, input), LABELS, SIGNALS, **how)
        assert_close({**found, "logit_errors": mean["logit_errors"]}, mean)
        assert_bounded(net, [net.hidden], partial(one_of, net, input), LABELS, found)
        for score in ("el2n", "grand"):
            loader: Any = DataLoader(TensorDataset(input, LABELS), 2)  # A last batch of one example.
            expected = score_with(net, loader, score, forward=partial(mean_of, net), time_first=False)
            torch.testing.assert_close(score_with(net, loader, score, time_first=False), expected)
    data, square = (TensorDataset(drawn(B, steps, 8), LABELS) for steps in (T, B))
    refused: list[tuple[Any, str]] = [
        (
            lambda: watched(net, lambda: net(data[:][0]), LABELS, SIGNALS, mean_loss_of_batch_first),
            r"not \[5, 4, 3\]; for \[B, T, C\], set watch\(..., time_first=False\)",
        ),
        (lambda: score_with(net, data), r"for \[B, T, C\], set score_with\(..., time_first=False\)"),
        (
            lambda: score_with(net, square, time_first=False),
            r"may be \[T, B, C\] or \[B, T, C\]: .* another batch size",
        ),
    ]
    assert_refused(refused)


def one_of(net: nn.Module, input: Tensor, example: int) -> Tensor:
    return mean_of(net, input[example : example + 1])


class LastFold(Folded):
    """A network whose last folded layer no spiking layer follows, as its steps are added up."""

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        steps, (at_conv, *_) = len(x), self.orders
        x = self.fires[0](x)
        logits: Tensor = self.hidden(unfold(self.conv(fold(x, at_conv)), at_conv, steps).flatten(2).sum(0)).sigmoid()
        return self.readout(logits)


class TokensInTheFold(nn.Module):
    """[T, B, N, 8] -> logits by a layer that takes tokens, time and examples in one dimension, [T * B * N, 8]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.hidden, self.fire, self.readout = nn.Linear(8, 6), spikingjellys(), nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        x = self.fire(self.hidden(x.flatten(0, 2)).unflatten(0, x.shape[:3]))
        logits: Tensor = self.readout(x.mean((0, 2)))
        return logits


def test_rows_that_nothing_shows_are_asked_for_and_rows_in_no_order_are_refused() -> None:
    input = drawn(T, B, 2, 5, 4)
    for orders in (TIME, EXAMPLES):
        net = LastFold(spikingjellys, orders)
        with pytest.raises(
            BadInput, match="the layer 'conv': its rows, .20. for 5 examples, may be time steps or tokens"
        ):
            shown(net, input)
        found = shown(net, input, time_first=orders[0])
        assert_bounded(net, [net.conv, net.hidden], partial(of_example, net, input), LABELS, found, ratio_rtol=1e-6)
    with pytest.raises(
        BadInput, match="the layer 'hidden': its rows, .60. for 5 examples, are neither .T . B. nor .B . T."
    ):
        shown(TokensInTheFold(), drawn(T, B, 3, 8), time_first=True)


def test_a_readout_that_begins_at_zero_shows_its_order_by_its_gradient() -> None:
    input, found = drawn(T, B, 2, 5, 4), []
    for orders in ((True, True, True), (True, True, False)):
        net = Folded(spikingjellys, orders)
        nn.init.zeros_(net.readout.weight)
        nn.init.zeros_(net.readout.bias)
        found.append(shown(net, input))
    assert_close(found[1], found[0], rtol=1e-7)
