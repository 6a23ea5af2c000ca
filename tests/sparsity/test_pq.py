"""PQ: the rewiring and the densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import options
from sadp_bench.core.rng import stream
from sadp_bench.sparsity.base import prunable
from sadp_bench.sparsity.pq import PQ, exchange, rewire, shortened
from sadp_bench.sparsity.random_masks import erdos_renyi, random_masks
from tests.small_runs import assert_same_weights
from tests.sparsity.helpers import Tiny, TinyContext, adamw, batches, sgd
from tests.sparsity.pq_in_numpy import index_in_numpy

SHAPES = {name: tuple(weight.shape) for name, weight in prunable(Tiny(1)).items()}
TOTAL = sum(map(math.prod, SHAPES.values()))
ORDERS = [(0.5, 1.0), (1.0, 2.0), (0.3, 1.7)]


def trained(pq, num_epochs=6, make_optimizer=sgd, **context):
    """Returns the trained network, and the masks before training and after each epoch."""
    context = TinyContext(num_epochs=num_epochs, make_optimizer=make_optimizer, **context)
    if not context.disk:
        pq.prepare(context, Tiny(context.timesteps))
    masks_E = [dict(pq.masks)]
    for model in context.train(pq, timesteps=context.timesteps):  # noqa: B007
        masks_E.append(dict(pq.masks))
    return model, masks_E


def test_the_smallest_are_pruned_and_the_largest_momenta_grow():
    weight_GM = torch.tensor([[0.5, -0.1, 0.3, 0.2, 0, 0, 0, 0], [0, 0, 0, 0, 1.0, 2.0, 0, 0]])
    momentum_GM = torch.tensor([[0, 99, 0, 98, 0.1, -0.4, 0.2, 0.3], [1, 2, 3, -4, 0, 0, 2, 1.0]])
    live_GM = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]).bool()
    new_GM = rewire(weight_GM, momentum_GM, live_GM, torch.tensor([0.5, 0.6]))
    # What was just pruned has by far the largest momentum, and does not come back at once.
    assert new_GM.int().tolist() == [[1, 0, 1, 0, 0, 1, 0, 1], [0, 0, 0, 1, 0, 1, 0, 0]]


def test_ties_go_by_position_and_no_more_are_pruned_than_others_are_dead():
    ones_GM, live_GM = torch.ones(1, 6), torch.tensor([[1, 1, 1, 1, 0, 0]]).bool()
    assert rewire(ones_GM, ones_GM, live_GM, torch.tensor([0.25])).int().tolist() == [[0, 1, 1, 1, 1, 0]]
    assert rewire(ones_GM, ones_GM, live_GM, torch.tensor([0.9])).int().tolist() == [[0, 0, 1, 1, 1, 1]]


def test_the_share_of_the_live_is_rounded_down_but_for_the_rounding_of_floats():
    for share in [0.1, 0.3, 0.7]:
        live_GM = torch.arange(300)[None] < torch.tensor([[10], [99], [100]])
        w_GM = torch.rand(3, 300, generator=stream(0, "w"))
        new_GM = rewire(w_GM, w_GM, live_GM, torch.full((3,), share, dtype=torch.float64))
        hundredths = round(100 * share)
        assert (live_GM & ~new_GM).sum(1).tolist() == [hundredths * d // 100 for d in (10, 99, 100)]


@pytest.mark.parametrize("make_optimizer", [sgd, adamw])
@pytest.mark.parametrize("per", ["layer", "neuron"])
@pytest.mark.parametrize("adaptive", [True, False])
def test_density_is_constant_through_rewiring_in_all_and_in_each_group(adaptive, per, make_optimizer):
    pq = PQ(0.4, every=1, per=per, adaptive=adaptive, gamma=3.0, shrink=False)
    model, masks_E = trained(pq, make_optimizer=make_optimizer)
    assert sum(int(mask.sum()) for mask in masks_E[0].values()) == round(0.4 * TOTAL)
    for name, first in random_masks(SHAPES, erdos_renyi(SHAPES, round(0.4 * TOTAL)), 0).items():
        expected = first.reshape(1 if per == "layer" else len(first), -1).sum(1)
        for masks in masks_E:
            assert torch.equal(masks[name].reshape(len(expected), -1).sum(1), expected), name
        assert not model.get_parameter(name)[~pq.masks[name]].any()
    changed = [
        any((before[name] != after[name]).any() for name in before)
        for before, after in zip(masks_E, masks_E[1:], strict=False)
    ]
    assert changed == [True] * 5 + [False], "not after the last epoch"


def test_rewiring_comes_every_tenth_of_the_run_unless_reported():
    for epochs, requested, expected in [(6, 0, 1), (30, 0, 3), (6, 4, 4)]:
        facts = PQ(0.5, every=requested, shrink=False).prepare(TinyContext(num_epochs=epochs), Tiny(2))
        assert facts == {"rewire_every": expected, "density": round(0.5 * TOTAL) / TOTAL}
        _, masks_E = trained(PQ(0.5, every=requested, adaptive=False, shrink=False), num_epochs=epochs)
        rewired = [
            epoch
            for epoch in range(1, epochs + 1)
            if any((masks_E[epoch][name] != masks_E[epoch - 1][name]).any() for name in SHAPES)
        ]
        assert rewired == list(range(expected, epochs, expected))


# --- Shrinking


class Gaussian(PQ):
    """Draws its live weights anew before each rewiring, of another size each time."""

    def after_epoch(self, epoch, num_epochs):
        draws = stream(epoch, "gaussian")
        with torch.no_grad():
            for name, mask in self.masks.items():
                weight = self.model.get_parameter(name)
                weight.copy_(0.1**epoch * torch.randn(weight.shape, generator=draws) * mask)
        super().after_epoch(epoch, num_epochs)


def densities_of(pq, epochs):
    """Returns the densities of two large untrained layers after each epoch."""
    model = nn.Sequential(nn.Linear(300, 200, bias=False), nn.Linear(200, 300, bias=False))
    facts = pq.prepare(TinyContext(num_epochs=epochs), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    pq.attach(model, optimizer)
    sum(weight.sum() for weight in model.parameters()).backward()
    optimizer.step()
    found = [facts["density"]]
    for epoch in range(epochs):
        pq.after_epoch(epoch, epochs)
        found.append(sum(int(mask.sum()) for mask in pq.masks.values()) / 120_000)
    return found


def test_the_density_of_gaussian_weights_falls_as_the_paper_reports():
    """The paper's densities: 0.5 at the start, then 0.423, 0.357 and 0.302, and 0.111 in the end. The rate is the index's."""
    found = densities_of(pq := Gaussian(0.01, every=1), 10)
    reported = [0.5, 0.423, 0.357, 0.302, 0.256, 0.216, 0.183, 0.155, 0.131, 0.111]
    np.testing.assert_allclose(found[:10], reported, atol=2e-3)
    assert found[10] == found[9], "not after the last epoch"
    np.testing.assert_allclose(found[:10], [0.5 * (1 - 0.1544) ** k for k in range(10)], atol=2e-3)
    facts = pq.facts()
    assert facts["mean_share"] == pytest.approx(0.1544, abs=2e-3) and not facts["reached"]
    assert facts["density"] == found[-1] and {len(shares) for shares in facts["shares"].values()} == {9}
    for name, shares in facts["shares"].items():
        assert shares == pytest.approx([0.1544] * 9, abs=4e-3), name


def test_a_fixed_share_shrinks_by_it_and_both_end_at_the_density():
    found = densities_of(pq := PQ(0.2, every=1, adaptive=False, share=0.3), 7)
    assert found == pytest.approx([0.5, 0.35, 0.245, 0.2, 0.2, 0.2, 0.2, 0.2], abs=1e-4)
    assert found[3] == 0.2, "the last step is shortened to the density, exactly"
    facts = pq.facts()
    assert facts["mean_share"] == pytest.approx(0.3) and facts["reached"] is True
    assert all(len(shares) == 3 for shares in facts["shares"].values()), "the masks are final"
    assert densities_of(Gaussian(0.2, every=1), 8)[-1] == 0.2


def test_a_control_at_the_recorded_mean_share_loses_as_many_weights_as_the_index_chose():
    adaptive = densities_of(pq := Gaussian(0.01, every=1), 6)
    fixed = densities_of(PQ(0.01, every=1, adaptive=False, share=pq.facts()["mean_share"]), 6)
    np.testing.assert_allclose(adaptive, fixed, atol=1e-3)


def test_twice_as_many_small_weights_are_pruned_as_regrown_by_their_momentum():
    for adaptive in [True, False]:
        pq = Watching(0.1, adaptive=adaptive, share=0.2, every=1)
        trained(pq, num_epochs=2)
        for weight, before, after, now in pq.seen.values():
            live = weight[before].double().numpy()
            share = 1 - 1.001**-2 * (1 - index_in_numpy(live, 0.5, 1.0)) if adaptive else 0.2
            lost = math.floor(share * len(live) + 1e-9)
            pruned, grown = before & ~after, after & ~before
            assert int(before.sum()) - int(after.sum()) == lost > 0
            assert int(grown.sum()) == min(lost, int((~before).sum()), len(live) - lost) == int(pruned.sum()) - lost
            assert weight[pruned].abs().max() < weight[before & after].abs().min()
            assert not now[grown].any() and torch.equal(now[before & after], weight[before & after])
        for name, shares in pq.facts()["shares"].items():
            weight, before, _, _ = pq.seen[name]
            index = index_in_numpy(weight[before].double().numpy(), 0.5, 1.0)
            assert shares == pytest.approx([1 - 1.001**-2 * (1 - index) if adaptive else 0.2])


def test_exchange_prunes_and_grows_the_given_numbers():
    weight_GM = torch.tensor([[0.5, -0.1, 0.3, 0.2, 0, 0], [1.0, 2.0, 0, 0, 0, 0]])
    momentum_GM = torch.tensor([[9.0, 9, 9, 9, 0.1, -0.4], [0, 0, 1.0, -3, 2, 0]])
    live_GM = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]).bool()
    found = exchange(weight_GM, momentum_GM, live_GM, torch.tensor([2, 1]), torch.tensor([1, 2]))
    assert found.int().tolist() == [[1, 0, 1, 0, 0, 1], [0, 1, 0, 1, 1, 0]]


def test_shortened_numbers_are_proportional_and_sum_to_the_most():
    lost = [torch.tensor([10, 5]), torch.tensor([1]), torch.tensor([4])]
    assert (
        [part.tolist() for part in shortened(lost, 20)]
        == [[10, 5], [1], [4]]
        == [p.tolist() for p in shortened(lost, 99)]
    )
    assert [part.tolist() for part in shortened(lost, 10)] == [[5, 3], [0], [2]]  # 5, 2.5, 0.5 and 2
    assert [part.tolist() for part in shortened(lost, 0)] == [[0, 0], [0], [0]]


class Watching(PQ):
    """Keeps the state before and after its first rewiring, and the number of rewired weights."""

    def after_epoch(self, epoch, num_epochs):
        before = {name: self.model.get_parameter(name).detach().clone() for name in self.masks}
        masks = dict(self.masks)
        super().after_epoch(epoch, num_epochs)
        if epoch == 0:
            self.seen = {
                name: (before[name], masks[name], self.masks[name], self.model.get_parameter(name).detach().clone())
                for name in masks
            }


def test_a_layer_is_rewired_by_its_own_index_or_by_the_fixed_share():
    for adaptive in [True, False]:
        pq = Watching(0.2, adaptive=adaptive, gamma=2.0, share=0.2, shrink=False)
        trained(pq, num_epochs=2)
        for weight, before, after, _ in pq.seen.values():
            live = weight[before].double().numpy()
            bound = len(live) * 1.001**-2 * (1 - index_in_numpy(live, 0.5, 1.0))
            share = min(max(2 * (1 - bound / len(live)), 0), 0.9) if adaptive else 0.2
            pruned = before & ~after
            assert 0 < int(pruned.sum()) == min(math.floor(share * len(live) + 1e-9), int((~before).sum()))
            assert weight[pruned].abs().max() < weight[before & after].abs().min()


def test_what_grows_starts_at_0_and_what_stays_keeps_its_value():
    pq = Watching(0.2, adaptive=False, share=0.5, shrink=False)
    trained(pq, num_epochs=2)
    for weight, before, after, now in pq.seen.values():
        assert (after & ~before).any() and not now[~before].any() and not now[~after].any()
        assert torch.equal(now[before & after], weight[before & after])


def test_the_momentum_of_masked_weights_is_that_of_their_gradients():
    model, context = Tiny(2), TinyContext()
    pq = PQ(0.2)
    pq.prepare(context, model)
    optimizer = sgd(model)
    pq.attach(model, optimizer)
    expected = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for image, label in batches(0):
        optimizer.zero_grad()
        cross_entropy(model(image).mean(0), label).backward()
        for name, running in expected.items():
            running.mul_(0.9).add_(model.get_parameter(name).grad)
        optimizer.step()
    for name, running in expected.items():
        dead = ~pq.masks[name]
        found = optimizer.state[model.get_parameter(name)]["momentum_buffer"]
        torch.testing.assert_close(found[dead], running[dead])
        assert found[dead].any()


def test_an_optimizer_without_momentum_is_refused():
    model = Tiny(2)
    pq = PQ(0.3)
    pq.prepare(TinyContext(), model)
    pq.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(BadInput, match="SGD keeps none"):
        pq.after_epoch(0, 6)


@pytest.mark.parametrize("make_optimizer", [sgd, adamw])
def test_an_interrupted_and_resumed_run_rewires_the_same(make_optimizer):
    model, masks_E = trained(PQ(0.3, per="neuron"), make_optimizer=make_optimizer)
    first = TinyContext(make_optimizer=make_optimizer)
    pq = PQ(0.3, per="neuron")
    pq.prepare(first, Tiny(2))
    networks = first.train(pq, timesteps=2)
    for _ in range(3):
        next(networks)
    resumed = PQ(0.3, per="neuron")
    again, rest_E = trained(resumed, make_optimizer=make_optimizer, disk=first.disk)
    for found, expected in zip(rest_E[1:], masks_E[3:], strict=True):
        assert_same_weights(found, expected)
    assert_same_weights(again.state_dict(), model.state_dict())


# --- Where it starts


def test_random_masks_are_drawn_from_the_seed_and_the_layers_name():
    number = erdos_renyi(SHAPES, 60)
    one, same, other = (random_masks(SHAPES, number, seed) for seed in (0, 0, 1))
    assert_same_weights(one, same)
    assert all((one[name] != other[name]).any() for name in SHAPES)
    assert {name: int(mask.sum()) for name, mask in one.items()} == number
    twins = random_masks({"a": (9, 9), "b": (9, 9)}, {"a": 40, "b": 40}, 0)
    assert not torch.equal(twins["a"], twins["b"])


def test_layers_of_any_kind_get_their_share():
    model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv3d(8, 4, 3), nn.Linear(4, 9))
    pq = PQ(0.1, shrink=False)
    assert pq.prepare(TinyContext(), model)["density"] == pytest.approx(0.1, abs=1e-3)
    assert all(mask.any() for mask in pq.masks.values())


# --- Settings


def test_bad_settings_are_refused_by_name():
    for name, values in [
        ("density", [1.0, 0.0]),
        ("share", [0.0, 1.1, math.nan]),
        ("beta", [0.0, 1.1]),
        ("every", [-1]),
        ("per", ["network"]),
        ("p", [0.0, 1.0, 2.0]),
        ("q", [0.5, math.inf, math.nan]),
        ("eta", [-0.1, math.inf]),
        ("gamma", [0.0, math.nan]),
        ("start", [0.0, 1.1, math.nan, 0.5]),
        ("early_time", [True]),
    ]:
        for value in values:
            with pytest.raises(BadInput, match=rf"\b{name}\b"):
                PQ(**{"density": 0.5} | {name: value})


def test_settings_and_their_defaults():
    defaults = {name: default for name, (_, default) in options(PQ).items()}
    assert defaults == {
        "adaptive": True,
        "share": 0.15,
        "every": 0,
        "per": "layer",
        "p": 0.5,
        "q": 1.0,
        "eta": 0.001,
        "gamma": 1.0,
        "beta": 0.9,
        "shrink": True,
        "start": 0.5,
    }
