"""The signals of `watch` do not depend on the loss's scale, and overflowing values are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sadp_bench.drop_in.watch import MAX_SKIPPED
from tests.drop_in.helpers import (
    ALL,
    INPUT,
    LABELS,
    MIDDLE,
    SQUARES,
    Loop,
    N,
    assert_close,
    example_loss,
    no_warning,
    plain,
    small_net,
    uneven,
)

SCALES: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda weight, loss: (weight * loss).sum(),
    lambda weight, loss: (weight * loss).mean() / 4,  # Accumulation.
    lambda weight, loss: 2.0**16 * (weight * loss).mean(),  # A loss scale.
    lambda weight, loss: loss.mean(),
]


@pytest.mark.filterwarnings("ignore:the weights do not reach")
def test_factors_of_the_loss_do_not_reach_the_squares() -> None:
    for total in SCALES:
        loop = Loop()
        loop.step(total=total)
        assert_close(loop.seen[0], plain())


def test_gradient_accumulation_over_micro_batches_shows_the_same_squares() -> None:
    names = ALL - {"bound_ratio"}  # of the first batch's first examples
    loop = Loop(names)
    for index_B in torch.arange(N).split(3):
        loop.step(index_B, lambda weight, loss: (weight * loss).mean() / 4)
    found = {name: torch.cat([seen[name] for seen in loop.seen], 1) for name in names}
    assert_close(found, {name: value for name, value in plain().items() if name in names})


def test_a_batch_in_chunks_shows_the_bound_ratio_though_the_weights_were_read_at_once() -> None:
    loop = Loop()
    loop.sampler.weight(torch.arange(N))
    for index_B in torch.arange(N).split(4):
        logits = loop.logits(index_B)
        (loop.weight_N[index_B] * example_loss(logits, LABELS[index_B])).mean().backward()
        loop.observe(logits, index_B)
    assert ["bound_ratio" in seen for seen in loop.seen] == [False, True, False]


def test_a_grad_scaler_on_the_cpu_shows_the_same_squares() -> None:
    loop = Loop()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    loop.step(total=lambda weight, loss: scaler.scale((weight * loss).mean()))
    assert scaler.is_enabled() and scaler.get_scale() == 2.0**10
    assert_close(loop.seen[0], plain())


def test_bfloat16_autocast_shows_the_squares_to_its_precision() -> None:
    loop = Loop(net=small_net().float())
    with no_warning():
        assert loop.step(autocast=torch.bfloat16).dtype == torch.bfloat16
    assert {value.dtype for value in loop.seen[0].values()} == {torch.float32}
    for name, expected in plain().items():
        if "squares" in name or name == "bound_ratio":
            torch.testing.assert_close(loop.seen[0][name].double(), expected, rtol=0.05, atol=0)


def test_a_step_that_is_whole_in_autocast_shows_the_same_as_its_forward_pass_alone() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        seen = []
        for whole in (False, True):
            loop = Loop(net=small_net().float())
            with torch.autocast("cpu", dtype, enabled=whole):
                loop.step(autocast=dtype)
            seen += loop.seen
        assert_close(seen[1], seen[0], rtol=1e-6)


def test_float16_within_the_network_is_looked_at_for_what_overflows_on_a_gpu_too() -> None:
    net: Any = small_net().float()
    loop = Loop(net=net)
    lost, on_gpu = {"error_squares": torch.tensor([torch.inf])}, torch.empty(0, device="meta")
    loop.step()
    assert loop.watch._finite(lost, on_gpu)  # to look would be to wait
    with torch.autocast("cpu", torch.float16):
        body = net[:5](INPUT.float())
    logits = net[5](body.float())
    example_loss(logits, LABELS).mean().backward()
    loop.observe(logits)
    assert not loop.watch._finite(lost, on_gpu)


def test_an_example_without_an_error_gets_the_scale_of_the_others() -> None:
    loop, errors = Loop(), list[Tensor]()
    with torch.no_grad():
        for layer, factor in ((0, 10.0), (3, 10.0), (5, 30.0)):
            loop.net[layer].weight.mul_(factor)

    def keep(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        output.register_hook(lambda error: errors.append((error * N / uneven(N)[:, None]).square().sum(1)))

    loop.net[3].register_forward_hook(keep)
    logits = loop.step()
    error_B = (logits.detach().softmax(1) - torch.eye(3)[LABELS]).norm(dim=1)
    assert 0 < float(error_B.min()) < 1e-3 * float(error_B.max())  # Too small for a scale.
    torch.testing.assert_close(loop.seen[0]["error_squares"][1], errors[0], rtol=1e-9, atol=0)


def test_a_batch_that_overflows_is_left_out_and_the_next_shows_all() -> None:
    loop = Loop()
    loop.step(total=lambda weight, loss: torch.inf * (weight * loss).mean())
    assert loop.seen == [] and loop.sampler.visited == []
    loop.net.zero_grad()
    loop.step()
    assert len(loop.seen) == 1
    assert_close(loop.seen[0], plain())


def test_batches_that_a_real_grad_scaler_gives_up_are_left_out() -> None:
    loop = Loop(net=small_net().float())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**32)
    optimizer, stepped = torch.optim.SGD(loop.net.parameters(), lr=0.0), 0
    for _ in range(30):
        before = scaler.get_scale()
        optimizer.zero_grad()
        loop.step(total=lambda weight, loss: scaler.scale((weight * loss).mean()), autocast=torch.float16)
        scaler.step(optimizer)
        scaler.update()
        stepped += scaler.get_scale() == before
    # A sum over the batch may overflow where no example's gradient does.
    assert 0 < stepped <= len(loop.seen) < 30 and "bound_ratio" in loop.seen[0]
    for seen in loop.seen:
        for name in (SQUARES | MIDDLE | {"bound_ratio"}) & set(seen):
            torch.testing.assert_close(seen[name].double(), plain()[name], rtol=0.02, atol=0)


def test_an_overflow_within_the_network_is_left_out_too() -> None:
    loop = Loop()

    def overflow(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        output.register_hook(lambda error: error * torch.inf)

    handle = loop.net[0].register_forward_hook(overflow)
    loop.watch.record(ALL)  # hooks that are younger see what the older made of the gradient
    loop.step()
    assert loop.seen == []
    handle.remove()
    loop.step()
    assert_close(loop.seen[0], plain())


def test_gradients_that_stay_infinite_cause_a_warning() -> None:
    loop = Loop(SQUARES)
    with pytest.warns(UserWarning, match=f"the gradients of {MAX_SKIPPED} batches in a row are not finite"):
        for _ in range(MAX_SKIPPED):
            loop.step(total=lambda weight, loss: torch.nan * (weight * loss).mean())
