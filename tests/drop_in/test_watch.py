"""`watch`: what counts, what it hooks, how it finds the readout; and whole runs through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from baselines.random_subset import Random
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.drop_in.sampler import PrunedSampler, with_index
from sadp_bench.drop_in.watch import watch
from sadp_bench.pruners.sadp import SADP
from sadp_bench.training.data import draw_augmentation
from sadp_bench.training.optimizer import learning_rate, set_learning_rate
from tests.drop_in.helpers import (
    ALL,
    INPUT,
    LABELS,
    MIDDLE,
    SQUARES,
    Head,
    Loop,
    N,
    assert_close,
    own_loss,
    plain,
    sampler_for,
    small_net,
    uneven,
    watched,
)
from tests.small_runs import hooks_of, small_bench


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


# What counts


def test_evaluation_passes_do_not_get_in() -> None:
    loop = Loop()

    def look_aside() -> None:
        with torch.no_grad():
            loop.logits(torch.arange(5))
        loop.net.eval()
        loop.logits(torch.arange(5)).sum().backward()  # an adversarial example's gradient, say
        loop.net.train()
        loop.logits(torch.arange(5))  # to log something

    look_aside()
    index_B = torch.arange(N)
    logits = loop.logits(index_B)
    look_aside()
    (loop.sampler.weight(index_B) * own_loss(logits, LABELS)).mean().backward()
    look_aside()
    loop.sampler.observe(index_B, logits, LABELS)
    assert_close(loop.seen[0], plain())


def test_a_copy_made_meanwhile_does_not_get_in() -> None:
    loop = Loop()
    averaged = torch.optim.swa_utils.AveragedModel(loop.net)
    averaged(INPUT[:5]).sum().backward()
    loop.step()
    averaged.update_parameters(loop.net)
    assert_close(loop.seen[0], plain())


def test_activation_checkpoints_count_once() -> None:
    from torch.utils.checkpoint import checkpoint

    for reentrant in (False, True):
        loop = Loop()
        body = loop.net[:5]  # type: ignore[index]
        loop.logits = lambda index, b=body, r=reentrant, loop=loop: loop.net[5](  # type: ignore[method-assign]
            checkpoint(b, INPUT[index].requires_grad_(), use_reentrant=r)
        )
        loop.step()
        assert_close(loop.seen[0], plain())


def test_frozen_layers_have_no_gradient_to_bound() -> None:
    loop = Loop(SQUARES)
    loop.net[0].requires_grad_(False)  # type: ignore[union-attr]
    loop.step()
    expected = plain()["error_squares"]
    assert torch.equal(loop.seen[0]["error_squares"][0], torch.zeros(N).double())
    torch.testing.assert_close(loop.seen[0]["error_squares"][1], expected[1], rtol=1e-9, atol=0)


@pytest.mark.parametrize("net", [lambda: small_net()[5:], small_net], ids=["logistic regression", "a linear probe"])
def test_a_readout_that_trains_alone_is_all_there_is_to_score(net: Callable[[], Any]) -> None:
    model = net()
    head = model[-1]
    model.requires_grad_(False)
    head.requires_grad_()
    input = INPUT if len(model) > 1 else INPUT.flatten(1)[:, :6]
    pruner, index_B = SADP(0.0, memory=0.0), torch.arange(N)
    sampler = PrunedSampler(pruner, num_examples=N, epochs=2, batch_size=N)
    pruner.score_sq_N = pruner.score_sq_N.double()
    exact = [
        sum(
            g.square().sum() for g in torch.autograd.grad(own_loss(model(x[None]), y[None]).sum(), [*head.parameters()])
        )
        for x, y in zip(input, LABELS, strict=True)
    ]
    with watch(model, sampler):
        for epoch in range(
            2
        ):  # in the first batch the readout is not known yet, in the second epoch it alone has hooks
            sampler.set_epoch(epoch)
            logits = model(input)
            (sampler.weight(index_B) * own_loss(logits, LABELS)).mean().backward()
            sampler.observe(index_B, logits, LABELS)
            torch.testing.assert_close(pruner.score_sq_N, torch.stack(exact), rtol=1e-9, atol=0)  # type: ignore[arg-type]
            pruner.score_sq_N.fill_(torch.nan)


def test_nothing_asked_is_nothing_hooked_and_hooks_go() -> None:
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
    net, asked = small_net(), []
    observe = pruner.observe
    pruner.observe = lambda seen: (asked.append("bound_ratio" in seen.watched), observe(seen))[1]  # type: ignore[method-assign]
    loader: Any = DataLoader(with_index(TensorDataset(INPUT, LABELS)), batch_sampler=sampler)
    with watch(net, sampler):
        for epoch in range(6):
            sampler.set_epoch(epoch)
            for image, label, index in loader:
                logits = net(image)
                (sampler.weight(index) * own_loss(logits, label)).mean().backward()
                sampler.observe(index, logits, label)
    due = [True, False]
    assert asked == due * 5 + [False, False]  # of every epoch among the first four, then of every fourth


# The readout


GIVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "steps": lambda out: out,
    "mean": lambda out: out.mean(0),
    "sum": lambda out: out.sum(0),
    "last": lambda out: out[-1],
}


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("given", GIVEN)
def test_the_readout_is_found_by_its_output_and_its_part_is_exact(given: str, outside: bool) -> None:
    from sadp_bench.pruners.sadp import ReadoutScore

    net = Head((lambda out: (out, {"more": out * 2})) if outside else GIVEN[given])
    run = (lambda x: GIVEN[given](net(x)[0])) if outside else net
    found = watched(net, lambda: run(INPUT), LABELS, time_first=True)
    exact = []
    for i in range(N):
        total = own_loss(run(INPUT[i : i + 1]), LABELS[i : i + 1]).sum()
        exact.append(sum(g.square().sum() for g in torch.autograd.grad(total, list(net.head.parameters()))))
    torch.testing.assert_close(ReadoutScore().squared(found, torch.ones(1)), torch.stack(exact), rtol=1e-9, atol=0)  # type: ignore[arg-type]
    assert found["features"].shape == (3, N, 6) and len(found["error_squares"]) == 1


@pytest.mark.parametrize("how", ["fires", "no bias"])
def test_without_a_linear_readout_every_layer_is_bounded(how: str) -> None:
    net = Head(lambda out: out.sigmoid() if how == "fires" else out, bias=how == "fires")
    found = watched(net, lambda: net(INPUT), LABELS, time_first=True)
    assert found.keys() == ALL - {"features"} and found["error_squares"].shape == (2, N)
    exact = []
    for i in range(N):
        total = own_loss(net(INPUT[i : i + 1]), LABELS[i : i + 1]).sum()
        exact.append([sum(g.square().sum() for g in torch.autograd.grad(total, list(part.parameters()), retain_graph=True))
                      for part in (net.body, net.head)])  # fmt: skip
    exact_LB = torch.tensor(exact).T
    assert (exact_LB <= found["input_squares"] * found["error_squares"] * (1 + 1e-9)).all()
    torch.testing.assert_close(found["bound_ratio"][0], exact_LB[:, :3].sum(1), rtol=1e-9, atol=0)
    sadp = SADP(0.0, score="readout")
    sampler = PrunedSampler(sadp, num_examples=N, epochs=2, batch_size=N)
    with watch(net, sampler, time_first=True), pytest.raises(BadInput, match="take score=layers"):
        sampler.set_epoch(0)
        logits = net(INPUT)
        own_loss(logits, LABELS).mean().backward()
        sampler.observe(torch.arange(N), logits, LABELS)


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
    for readout in ("5", small_net()[5]):
        net = small_net()
        loop = Loop(net=net, readout=readout if isinstance(readout, str) else net[5])
        loop.step()
        assert_close(loop.seen[0], plain())


# Whole runs


def test_a_loop_with_watch_trains_as_the_suite_does() -> None:
    asked: dict[str, Any] = {"epochs": 5, "augment": "crop", "precision": "fp64", "set": {"backbone.norm": "none"}}
    bench = small_bench(method="sadp", ratio=0.5, **asked)
    rows = list(bench.rows())
    hand = small_bench(method="full", **asked)
    spec, data, model = hand.spec, hand.data, hand.model
    sampler = PrunedSampler(SADP(0.5), labels=data.label_N, epochs=5, batch_size=50, seed=spec.seed)
    loader: Any = DataLoader(with_index(TensorDataset(data.label_N)), batch_sampler=sampler)
    with watch(model.train(), sampler):
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)
            look = draw_augmentation(spec.augment, len(data), data.padding, stream(spec.seed, "augmentation", epoch))
            shown = 0
            for label_B, index_B in loader:
                set_learning_rate(hand.state.optimizer, learning_rate(spec, (epoch + shown / rows[epoch]["kept"]) / 5))
                logits_TBC = model(data.input(index_B, look))
                hand.state.optimizer.zero_grad()
                (sampler.weight(index_B) * own_loss(logits_TBC, label_B)).mean().backward()
                sampler.observe(index_B, logits_TBC, label_B)
                hand.state.optimizer.step()
                shown += len(index_B)
            assert shown == rows[epoch]["kept"]
    assert isinstance(bench.pruner, SADP) and isinstance(sampler.pruner, SADP)
    torch.testing.assert_close(sampler.pruner.score_sq_N, bench.pruner.score_sq_N, rtol=1e-6, atol=0)
    torch.testing.assert_close(sampler.pruner.bound_ratio_2L, bench.pruner.bound_ratio_2L, rtol=1e-6, atol=0)
    for ours, theirs in zip(model.parameters(), bench.model.parameters(), strict=True):
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
