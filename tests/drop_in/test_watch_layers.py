"""Signals of `watch` in every layout of time, examples and tokens, against one backward pass an example in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer as sj
from torch import Tensor, nn

from sadp_bench.capture.recorder import Recorder
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import logit_errors, mean_loss
from tests.drop_in.helpers import ALL, MIDDLE, SQUARES, assert_bounded, assert_close, drawn, uneven, watched
from tests.helpers import network

LABELS = torch.tensor([0, 2, 1, 2, 0])
B, T = len(LABELS), 4


@pytest.mark.parametrize("form", ["static", "channels last", "events"])
@pytest.mark.parametrize("backbone", ["cnn", "vgg11", "sew-resnet18"])
def test_a_backbone_shows_what_the_suites_own_taps_see(backbone: str, form: str) -> None:
    model, input = network(backbone, "batch", form == "events")
    if form == "channels last":
        input = input.contiguous(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    label_B, weight_B = torch.tensor([0, 3, 4]), uneven(3).double()
    names = ALL | {"spike_counts"}
    found = watched(model, lambda: model(input), label_B, names)
    with Recorder(model, names) as taps:
        logits_TBC = model(input)
        (mean_loss(logits_TBC, label_B) * weight_B).mean().backward()
        expected = taps.seen(weight_B / 3) | {"logit_errors": logit_errors(mean_loss, logits_TBC, label_B)}
    assert_close(found, expected, rtol=1e-8)


def leaky(x_T: list[Tensor]) -> list[Tensor]:
    """A state over time, so that the steps differ and gradients flow through them."""
    state, out = torch.zeros_like(x_T[0]), []
    for x in x_T:
        state = 0.7 * state + x
        out.append(state.sigmoid())
    return out


class Steps(nn.Module):
    """[T, B, 2, 5, 4] -> logits_TBC by a convolution, a linear layer and a readout; each layout computes the same.

    "folded": [T * B, ...]. "multi-step": [T, B, ...], SpikingJelly's layers. "stepwise": a call a step, within. "outside":
    the network itself is called once a step.
    """

    def __init__(self, layout: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        multi: Any = {"step_mode": "m"} if layout == "multi-step" else {}
        conv, linear = (sj.Conv2d, sj.Linear) if multi else (nn.Conv2d, nn.Linear)
        self.conv = conv(2, 3, 3, padding=1, **multi).double()
        self.hidden = linear(60, 6, **multi).double()
        self.readout = linear(6, 3, **multi).double()
        self.layout = layout
        self.states: list[Tensor] = []

    def apply_to(self, layer: nn.Module, x_TB: Tensor) -> Tensor:
        if self.layout == "stepwise":
            return torch.stack([layer(x) for x in x_TB])
        if self.layout == "folded":
            out: Tensor = layer(x_TB.flatten(0, 1)).unflatten(0, x_TB.shape[:2])
            return out
        whole: Tensor = layer(x_TB)
        return whole

    def logits(self, input: Tensor) -> Tensor:
        if self.layout == "outside":
            self.states = []
            return torch.stack([self(x) for x in input])
        out: Tensor = self(input)
        return out

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "outside":
            return self.one_step(x)
        x = torch.stack(leaky(list(self.apply_to(self.conv, x)))).flatten(2)
        x = torch.stack(leaky(list(self.apply_to(self.hidden, x))))
        return self.apply_to(self.readout, x)

    def one_step(self, x: Tensor) -> Tensor:
        first = self.conv(x) if not self.states else 0.7 * self.states[0] + self.conv(x)
        into = first.sigmoid().flatten(1)
        second = self.hidden(into) if not self.states else 0.7 * self.states[1] + self.hidden(into)
        self.states = [first, second]
        logits: Tensor = self.readout(second.sigmoid())
        return logits


@pytest.mark.parametrize("steps", [1, 4, B])
def test_every_layout_of_time_shows_the_same(steps: int) -> None:
    input, whole = drawn(steps, B, 2, 5, 4), Steps("multi-step")
    expected = watched(whole, lambda: whole.logits(input), LABELS)
    layers = [whole.conv, whole.hidden]
    assert_bounded(whole, layers, lambda i: whole.logits(input[:, i : i + 1]), LABELS, expected)
    for layout, how in (("folded", True), ("stepwise", None), ("outside", None), ("outside", False)):
        other = Steps(layout)
        assert_close(watched(other, lambda net=other: net.logits(input), LABELS, time_first=how), expected)


def test_the_middle_alone_is_read_where_the_shape_states_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from sadp_bench.capture import loop_recorder

    read: list[int] = []
    squares = loop_recorder.squares
    monkeypatch.setattr(
        loop_recorder, "squares", lambda x, lead, **how: read.append(x.shape[:lead].numel()) or squares(x, lead, **how)
    )
    for layout, rows in (("multi-step", B), ("folded", T * B)):
        read.clear()
        model, input = Steps(layout), drawn(T, B, 2, 5, 4)
        watched(model, lambda m=model, x=input: m.logits(x), LABELS, MIDDLE, time_first=True)
        assert read[-1] == rows and len(read) == 3  # the convolution, and both linear layers


class Tokens(nn.Module):
    """[B, N, 4] -> [B, 3], or with time first [T, B, N, 4] -> [T, B, 3]: each token by itself, mixed, then their mean."""

    def __init__(self, folded: bool = False, multi_step: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = (sj.Linear(4, 6, step_mode="m") if multi_step else nn.Linear(4, 6)).double()
        self.second = (sj.Linear(6, 5, step_mode="m") if multi_step else nn.Linear(6, 5)).double()
        self.head = nn.Linear(5, 3).double()
        self.folded = folded

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-1]
        x = self.first(x.flatten(0, -2) if self.folded else x).sigmoid()
        x = x.unflatten(0, lead) if self.folded else x
        x = (x + x.cumsum(-2)).sigmoid()
        logits: Tensor = self.head(self.second(x).sigmoid().mean(-2))
        return logits


def squares_by_hand(
    model: nn.Module, logits_of: Callable[[int], Tensor], layers: list[nn.Module]
) -> tuple[Tensor, Tensor]:
    """Returns linear layers' squares of inputs (with ones) and of errors, one example at a time. [L, B] each."""
    inputs, errors = (torch.zeros(len(layers), B, dtype=torch.float64) for _ in range(2))
    for i in range(B):
        calls: list[tuple[int, Tensor, Tensor]] = []
        handles = [
            layer.register_forward_hook(lambda m, x, y, at=at, calls=calls: calls.append((at, x[0], y)))
            for at, layer in enumerate(layers)
        ]
        total = mean_loss(made if (made := logits_of(i)).dim() == 3 else made[None], LABELS[i : i + 1]).sum()
        for handle in handles:
            handle.remove()
        gradients = torch.autograd.grad(total, [y for _, _, y in calls])
        for (at, x, _), gradient in zip(calls, gradients, strict=True):
            inputs[at, i] += x.square().sum() + x[..., 0].numel()
            errors[at, i] += gradient.square().sum()
    return inputs, errors


@pytest.mark.parametrize("tokens", [3, B])
@pytest.mark.parametrize("folded", [False, True])
def test_tokens_of_a_batch_first_sequence_are_not_taken_for_time(tokens: int, folded: bool) -> None:
    model, input = Tokens(folded), drawn(B, tokens, 4)
    if folded or tokens == B:
        with pytest.raises(
            BadInput, match="the layer '(first|second)': .* may be time steps or tokens: set time_first=True"
        ):
            watched(model, lambda: model(input), LABELS)
    how = {"time_first": False} if folded or tokens == B else {}
    found = watched(model, lambda: model(input), LABELS, **how)
    layers: list[nn.Module] = [model.first, model.second]
    inputs_LB, errors_LB = squares_by_hand(model, lambda i: model(input[i : i + 1]), layers)
    torch.testing.assert_close(found["input_squares"], inputs_LB, rtol=1e-10, atol=0)
    torch.testing.assert_close(found["error_squares"], errors_LB, rtol=1e-9, atol=0)
    assert torch.equal(found["middle_error_squares"], found["error_squares"])  # there is no time
    assert_bounded(model, layers, lambda i: model(input[i : i + 1]), LABELS, found)


def test_a_sequence_before_the_batch_counts_as_tokens_if_there_is_no_time() -> None:
    model, input = Tokens(), drawn(B, 3, 4)
    batch_first = watched(model, lambda: model(input), LABELS, SQUARES | MIDDLE)

    class SequenceFirst(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x.transpose(0, 1)).transpose(0, 1).sigmoid()
            logits: Tensor = self.head(self.second((x + x.cumsum(-2)).sigmoid()).sigmoid().mean(-2))
            return logits

    other = SequenceFirst()
    assert_close(watched(other, lambda: other(input), LABELS, SQUARES | MIDDLE, time_first=False), batch_first)


@pytest.mark.parametrize("tokens", [3, B])
def test_tokens_within_time_are_summed_over_and_the_middle_step_read(tokens: int) -> None:
    model, input = Tokens(multi_step=True), drawn(T, B, tokens, 4)
    layers: list[nn.Module] = [model.first, model.second]
    found = watched(model, lambda: model(input), LABELS)
    inputs_LB, errors_LB = squares_by_hand(model, lambda i: model(input[:, i : i + 1]), layers)
    torch.testing.assert_close(found["input_squares"], inputs_LB, rtol=1e-10, atol=0)
    torch.testing.assert_close(found["error_squares"], errors_LB, rtol=1e-9, atol=0)
    assert_bounded(model, layers, lambda i: model(input[:, i : i + 1]), LABELS, found)
    expected_B = input[T // 2].square().sum((1, 2)) + tokens
    torch.testing.assert_close(found["middle_input_squares"][0], expected_B, rtol=1e-10, atol=0)
