"""Mistakes of a loop with `watch`: each is refused, or causes a warning, in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import step_loss
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.watch import watch
from sadp_bench.pruners.sadp import SADP
from tests.drop_in.helpers import (
    ALL,
    INPUT,
    LABELS,
    SQUARES,
    Head,
    Loop,
    N,
    assert_refused,
    example_loss,
    no_warning,
    plain,
    sampler_for,
    small_net,
    uneven,
    watched,
)
from tests.small_runs import Chosen


def observed_twice(loop: Loop) -> None:
    logits = loop.step()
    loop.observe(logits)


def one_left_out(loop: Loop) -> None:
    loop.logits(torch.arange(N).flip(0)).square().sum().backward()
    loop.step()


def in_evaluation_mode(loop: Loop) -> None:
    loop.net.eval()
    loop.step()


def twice_backward(loop: Loop) -> None:
    logits = loop.logits()
    loss_B = example_loss(logits, LABELS)
    loss_B.mean().backward(retain_graph=True)
    loss_B.mean().backward()
    loop.observe(logits)


def other_logits(loop: Loop) -> None:
    logits = loop.logits()
    example_loss(logits, LABELS).mean().backward()
    loop.observe(logits / 2)


def rows_that_do_not_divide(loop: Loop) -> None:
    logits = loop.logits()
    example_loss(logits[:5], LABELS[:5]).mean().backward()
    loop.sampler.observe(torch.arange(5), logits[:5], LABELS[:5])


MISTAKES: list[tuple[Callable[[Loop], Any], str]] = [
    (observed_twice, "nothing was recorded of this batch: observe each batch once, after its backward pass"),
    (one_left_out, "are not the output of '5', '3', the model itself"),
    (lambda loop: [loop.step(), one_left_out(loop)], "are not the output of '5'"),
    (lambda loop: loop.observe(loop.logits()), "nothing was recorded of this batch"),
    (in_evaluation_mode, "in training mode"),
    (twice_backward, "backward pass came twice"),
    (other_logits, r"the observed logits, \[12, 3\], are not the output of '5', '3', the model itself"),
    (rows_that_do_not_divide, r"the observed logits, \[5, 3\]"),
    (
        lambda loop: loop.observe(torch.zeros(5, 3)),
        r"logits are \[B, C\] or \[T, B, C\] of the 12 examples, not \[5, 3\]",
    ),
]


def test_mistakes_are_refused_in_one_line() -> None:
    assert_refused(MISTAKES, lambda: (Loop(),))


def test_rows_that_do_not_divide_name_their_layer() -> None:
    loop = Loop(frozenset({"input_squares"}))
    with pytest.raises(BadInput, match=r"the layer '\d': its rows, \[12\], do not divide among the 5 examples"):
        rows_that_do_not_divide(loop)


def test_an_example_that_was_not_drawn_is_refused() -> None:
    loop = Loop()
    loop.sampler = PrunedSampler(SADP(0.5), num_examples=N, epochs=2, batch_size=N)
    with watch(loop.net, loop.sampler):
        loop.sampler.set_epoch(0)
        other = next(i for i in range(N) if i not in loop.sampler.batches[0])
        logits = loop.logits(torch.tensor([other]))
        example_loss(logits, LABELS[[other]]).mean().backward()
        with pytest.raises(BadInput, match=f"example {other} is not among those of epoch 0"):
            loop.sampler.observe(torch.tensor([other]), logits, LABELS[[other]])


BAD: list[tuple[Callable[[Any, PrunedSampler], Any], str]] = [
    (lambda net, s: watch(net, s, loss="mse"), "loss is one of mean, step.* or a function, not 'mse'"),
    (lambda net, s: watch(net, s, "fc"), "'fc' is not a layer of the Sequential; its linear layers: 3, 5"),
    (lambda net, s: watch(net, s, nn.Linear(1, 1)), "the Linear given as readout is not a layer"),
    (lambda net, s: [watch(net, s), watch(net, s)], "watching a network already"),
    (lambda net, s: watch(torch.compile(net), s), "hooks do not run within a network of torch.compile"),  # type: ignore[arg-type]
    (lambda net, s: [net[3].compile(), watch(net, s)], "hooks do not run within a network of torch.compile"),
    (lambda net, s: watch(nn.DataParallel(net), s), "take DistributedDataParallel"),
    (lambda net, s: watch(nn.Sequential(nn.Tanh()), s), "no convolution or linear layer"),
    (
        lambda net, s: watch(net, sampler_for(frozenset({"gradient_norms"}), uneven(N))),
        r"Chosen.watch\(0\) returns .*gradient_norms.*, and must return a set of signals: bound_ratio,",
    ),
]


def test_what_cannot_be_watched_is_refused() -> None:
    assert_refused(BAD, lambda: (small_net(), sampler_for(ALL, uneven(N))))


CLASS_WEIGHT = torch.tensor([1.0, 3.0, 0.2]).double()
WRONG: list[tuple[Any, str]] = [
    (lambda weight, loss, logits: loss.mean(), "the weights do not reach the loss"),
    (lambda weight, loss, logits: (weight * loss.mean()).mean(), "the weights do not reach"),
    (lambda weight, loss, logits: (weight * loss * CLASS_WEIGHT[LABELS]).mean(), "not that of the assumed loss"),
    (lambda weight, loss, logits: (weight * smoothed_loss(logits)).mean(), "not that of the assumed loss"),
]


def smoothed_loss(logits: Tensor) -> Tensor:
    return cross_entropy(logits, LABELS, reduction="none", label_smoothing=0.2)


def test_a_loss_that_is_not_the_weighted_assumed_one_causes_one_warning() -> None:
    for total, message in WRONG:
        loop = Loop()
        with torch.no_grad():
            loop.net[5].weight.mul_(10)
        with pytest.warns(UserWarning, match=message) as warned:
            for _ in range(3):
                logits = loop.logits()
                total(loop.sampler.weight(torch.arange(N)), example_loss(logits, LABELS), logits).backward()
                loop.sampler.observe(torch.arange(N), logits, LABELS)
        assert len(warned) == 1 and warned[0].filename == __file__ and "\n" not in str(warned[0].message)


@pytest.mark.parametrize("divided", [True, False])
def test_weights_that_are_divided_by_their_sum_cause_a_warning(divided: bool) -> None:
    loop = Loop(SQUARES, weight_N=torch.tensor([0.5, 2.0, 0.125, 1.0, 4.0, 1.5, 0.75, 3.0, 1.0, 1.0, 0.3, 0.2]))
    with pytest.warns(UserWarning, match="divided by the sum of the weights") if divided else no_warning():
        for index_B in torch.arange(N).split(3):
            loop.step(index_B, lambda weight, loss: (weight * loss).sum() / (weight.sum() if divided else 3))


def balanced_loss(logits_TBC: Tensor, label_B: Tensor) -> Tensor:
    return example_loss(logits_TBC, label_B) * CLASS_WEIGHT[label_B]


def test_another_loss_may_be_passed() -> None:
    loop = Loop(loss=balanced_loss)
    with no_warning():
        loop.step(total=lambda weight, loss: (weight * loss * CLASS_WEIGHT[LABELS]).mean())
    expected = plain()
    factor_B = CLASS_WEIGHT[LABELS].square()
    torch.testing.assert_close(loop.seen[0]["error_squares"], expected["error_squares"] * factor_B, rtol=1e-9, atol=0)
    assert isinstance(loop.sampler.pruner, Chosen)
    torch.testing.assert_close(loop.sampler.pruner.seen[0].loss_B, balanced_loss(loop.logits(), LABELS).detach())


def test_labels_may_be_probabilities_as_those_of_mixed_images_are() -> None:
    loop, share_B = Loop(), torch.linspace(0.1, 0.9, N).double()
    one_hot = torch.eye(3).double()
    mixed = share_B[:, None] * one_hot[LABELS] + (1 - share_B[:, None]) * one_hot[(LABELS + 1) % 3]
    logits = loop.logits()
    with no_warning():
        (loop.sampler.weight(torch.arange(N)) * cross_entropy(logits, mixed, reduction="none")).mean().backward()
        loop.sampler.observe(torch.arange(N), logits, mixed)
    torch.testing.assert_close(
        loop.seen[0]["logit_errors"][0], logits.detach().softmax(1) - mixed, rtol=1e-9, atol=1e-12
    )


def test_a_loss_at_every_step_may_be_passed() -> None:
    net = Head(lambda out: out)
    with torch.no_grad():
        net.head.weight.mul_(20)
    names = frozenset(SQUARES | {"logit_errors"})
    with no_warning():
        found = watched(net, lambda: net(INPUT), LABELS, names, step_loss, loss="step", time_first=True)
    with pytest.warns(UserWarning, match="not that of the assumed loss"):
        watched(net, lambda: net(INPUT), LABELS, names, step_loss, time_first=True)
    logits_TBC = net(INPUT).detach()
    error_TBC = (logits_TBC.softmax(2) - torch.eye(3)[LABELS]) / 3
    torch.testing.assert_close(found["logit_errors"], error_TBC, rtol=1e-9, atol=1e-12)
