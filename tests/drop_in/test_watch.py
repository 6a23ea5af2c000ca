"""`watch`: what counts, what it hooks, how it finds the readout; and whole runs through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from baselines.random_subset import Random
from sadp_bench.core.errors import BadInput
from sadp_bench.drop_in.indexed import with_index
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.watch import watch
from sadp_bench.pruners.sadp import SADP, ReadoutScore
from tests.drop_in.helpers import (
    ALL,
    INPUT,
    LABELS,
    MIDDLE,
    SQUARES,
    Head,
    Loop,
    N,
    assert_bounded,
    assert_close,
    example_loss,
    layer_squares,
    plain,
    sampler_for,
    small_net,
    train_by_hand,
    uneven,
    watched,
)
from tests.small_runs import hooks_of, small_bench


def step(model: nn.Module, sampler: PrunedSampler, input: Tensor = INPUT) -> None:
    """Observes a batch of all examples."""
    index_B, logits = torch.arange(N), model(input)
    (sampler.weight(index_B) * example_loss(logits, LABELS)).mean().backward()
    sampler.observe(index_B, logits, LABELS)


# What counts


def test_evaluation_passes_do_not_get_in() -> None:
    loop = Loop()

    def look_aside() -> None:
        with torch.no_grad():
            loop.logits(torch.arange(5))
        loop.net.eval()
        loop.logits(torch.arange(5)).sum().backward()  # For example an adversarial example's gradient.
        loop.net.train()
        loop.logits(torch.arange(5))  # For a log.

    look_aside()
    logits = loop.logits()
    look_aside()
    (loop.sampler.weight(torch.arange(N)) * example_loss(logits, LABELS)).mean().backward()
    look_aside()
    loop.observe(logits)
    assert_close(loop.seen[0], plain())


def test_a_copy_made_meanwhile_does_not_get_in_and_activation_checkpoints_count_once() -> None:
    loop = Loop()
    averaged = torch.optim.swa_utils.AveragedModel(loop.net)
    averaged(INPUT[:5]).sum().backward()
    loop.step()
    averaged.update_parameters(loop.net)
    assert_close(loop.seen[0], plain())
    for reentrant in (False, True):
        loop = Loop()
        loop.logits = (
            lambda index, net=loop.net, r=reentrant: net[5](  # type: ignore[method-assign]
                checkpoint(net[:5], INPUT[index].requires_grad_(), use_reentrant=r)
            )
        )
        loop.step()
        assert_close(loop.seen[0], plain())


def test_frozen_layers_have_no_gradient_to_bound() -> None:
    loop = Loop(SQUARES)
    loop.net[0].requires_grad_(False)
    loop.step()
    expected = plain()["error_squares"]
    assert torch.equal(loop.seen[0]["error_squares"][0], torch.zeros(N).double())
    torch.testing.assert_close(loop.seen[0]["error_squares"][1], expected[1], rtol=1e-9, atol=0)


def test_a_readout_that_trains_alone_is_all_there_is_to_score() -> None:
    # Logistic regression, and a linear probe.
    for model, input in ((small_net()[5:], INPUT.flatten(1)[:, :6]), (small_net(), INPUT)):
        head = model[-1]
        model.requires_grad_(False)
        head.requires_grad_()
        pruner = SADP(0.0, memory=0.0)
        sampler = PrunedSampler(pruner, num_examples=N, epochs=2, batch_size=N)
        pruner.score_sq_N = pruner.score_sq_N.double()
        exact_N = layer_squares(model, head, lambda i, m=model, x=input: m(x[i : i + 1]), LABELS)  # type: ignore[misc]
        with watch(model, sampler):
            # The first batch finds the readout. In the second epoch it alone has hooks.
            for epoch in range(2):
                sampler.set_epoch(epoch)
                step(model, sampler, input)
                torch.testing.assert_close(pruner.score_sq_N, exact_N, rtol=1e-9, atol=0)
                pruner.score_sq_N.fill_(torch.nan)


def test_nothing_requested_is_nothing_hooked_and_hooks_go() -> None:
    net = small_net()
    assert hooks_of(net) == 0
    with watch(net, sampler_for(frozenset(), uneven(N))):
        assert hooks_of(net) == 0
    with watch(net, sampler_for(frozenset({"logit_errors"}), uneven(N))):
        assert hooks_of(net) == 0  # they come from the logits
    loop = Loop(frozenset({"features"}), net=net)
    assert hooks_of(net) == 3  # the two linear layers and the network itself, until the readout is known
    loop.step()
    assert hooks_of(net) == 1
    loop.watch.remove()
    assert hooks_of(net) == 0 and loop.sampler.watching is None
    with pytest.raises(KeyError), Loop(net=net).watch:
        raise KeyError
    assert hooks_of(net) == 0


def test_bound_ratio_is_hooked_in_the_epochs_that_ask_for_it() -> None:
    pruner = SADP(0.0)
    sampler = PrunedSampler(pruner, num_examples=N, epochs=6, batch_size=6)
    net, requested = small_net(), []
    observe = pruner.observe
    pruner.observe = lambda seen: (requested.append("bound_ratio" in seen.watched), observe(seen))[1]  # type: ignore[method-assign]
    loader: Any = DataLoader(with_index(TensorDataset(INPUT, LABELS)), batch_sampler=sampler)
    with watch(net, sampler):
        for epoch in range(6):
            sampler.set_epoch(epoch)
            for image, label, index in loader:
                logits = net(image)
                (sampler.weight(index) * example_loss(logits, label)).mean().backward()
                sampler.observe(index, logits, label)
    due = [True, False]
    assert requested == due * 5 + [False, False]  # of every epoch among the first four, then of every fourth


# The readout


GIVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "steps": lambda out: out,
    "mean": lambda out: out.mean(0),
    "sum": lambda out: out.sum(0),
    "last": lambda out: out[-1],
}


@pytest.mark.parametrize("outside", [False, True])
def test_the_readout_is_found_by_its_output_and_its_part_is_exact(outside: bool) -> None:
    for relation, given in GIVEN.items():
        net = Head((lambda out: (out, {"more": out * 2})) if outside else given)
        run = (lambda x, net=net, given=given: given(net(x)[0])) if outside else net
        found = watched(net, lambda run=run: run(INPUT), LABELS, time_first=True)
        exact_B = layer_squares(net, net.head, lambda i, run=run: run(INPUT[i : i + 1]), LABELS)
        score_B = ReadoutScore().squared(found, torch.ones(1))  # type: ignore[arg-type]
        torch.testing.assert_close(score_B, exact_B, rtol=1e-9, atol=0, msg=lambda m, name=relation: f"{name}: {m}")
        assert found["features"].shape == (3, N, 6) and len(found["error_squares"]) == 1


@pytest.mark.parametrize("how", ["fires", "no bias"])
def test_without_a_linear_readout_every_layer_is_bounded(how: str) -> None:
    net = Head(lambda out: out.sigmoid() if how == "fires" else out, bias=how == "fires")
    found = watched(net, lambda: net(INPUT), LABELS, time_first=True)
    assert found.keys() == ALL - {"features"} and found["error_squares"].shape == (2, N)
    assert_bounded(net, [net.body, net.head], lambda i: net(INPUT[i : i + 1]), LABELS, found)
    sampler = PrunedSampler(SADP(0.0, score="readout"), num_examples=N, epochs=2, batch_size=N)
    with watch(net, sampler, time_first=True), pytest.raises(BadInput, match="take score=layers"):
        sampler.set_epoch(0)
        step(net, sampler)


def test_a_readout_that_begins_at_zero_is_understood_when_it_moves() -> None:
    net = Head(GIVEN["sum"])
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.zero_()
    loop = Loop(ALL - {"bound_ratio"}, net=net, time_first=True)
    loop.step()  # mean, sum and last are all zero
    with torch.no_grad():
        net.head.weight.normal_()
    loop.step()
    net.give = lambda out: out.sum(0)
    expected = watched(net, lambda: net(INPUT), LABELS, ALL - {"bound_ratio"}, time_first=True)
    assert_close(loop.seen[1], expected)


def test_a_readout_may_be_named_or_given() -> None:
    net = small_net()
    for loop in (Loop(readout="5"), Loop(net=net, readout=net[5])):
        loop.step()
        assert_close(loop.seen[0], plain())


# Whole runs


def test_a_loop_with_watch_trains_as_the_suite_does() -> None:
    requested: dict[str, Any] = {"epochs": 5, "augment": "crop", "precision": "fp64", "set": {"backbone.norm": "none"}}
    bench = small_bench(method="sadp", ratio=0.5, **requested)
    rows = list(bench.rows())
    hand = small_bench(method="full", **requested)
    sampler = PrunedSampler(SADP(0.5), labels=hand.data.label_N, epochs=5, batch_size=50, seed=hand.spec.seed)
    with watch(hand.model, sampler):
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)
            assert train_by_hand(hand, sampler, epoch) == rows[epoch]["kept"]
    assert isinstance(bench.pruner, SADP) and isinstance(sampler.pruner, SADP)
    ours, theirs = sampler.pruner.score_sq_N, bench.pruner.score_sq_N  # NaN: never drawn
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0, equal_nan=True)
    torch.testing.assert_close(sampler.pruner.bound_ratio_2L, bench.pruner.bound_ratio_2L, rtol=1e-6, atol=0)
    for ours, theirs in zip(hand.model.parameters(), bench.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_explicit_watched_goes_before_what_watch_found() -> None:
    loop = Loop(MIDDLE)
    own = {name: torch.ones(2, N) for name in MIDDLE}
    loop.sampler.weight(torch.arange(N))
    loop.sampler.observe(torch.arange(N), torch.zeros(N, 3), LABELS, watched=own)
    assert_close(loop.seen[0], own)


def test_a_pruner_that_watches_nothing_needs_no_watch() -> None:
    sampler = PrunedSampler(Random(0.5), num_examples=N, epochs=2, batch_size=3)
    net = small_net()
    with watch(net, sampler):
        for indices in sampler:
            index_B = torch.tensor(indices)
            sampler.observe(index_B, net(INPUT[index_B]), LABELS[index_B])
