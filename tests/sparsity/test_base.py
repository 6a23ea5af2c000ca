"""Masks, and how a network trains with them."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.sparsity.base import Sparsity, density, fixed, magnitude_masks, num_live, prunable
from tests.small_runs import assert_same_weights, weights_of
from tests.sparsity.helpers import Tiny, TinyContext, adamw, batches, restored, sgd, stored


def some_weights(seed=0):
    shapes = {"a": (3, 2, 3, 3), "b": (7,), "c": (5, 4)}
    return {name: torch.randn(shape, generator=stream(seed, f"weights {name}")) for name, shape in shapes.items()}


def some_masks(model, share=0.3):
    weights = prunable(model)
    total = sum(weight.numel() for weight in weights.values())
    return magnitude_masks(weights, num_live(total, share))


def flat(parts):
    return np.concatenate([part.detach().numpy().ravel() for part in parts.values()])


def test_convolution_and_linear_weights_are_prunable_and_nothing_else_in_the_order_of_the_modules():
    assert list(prunable(Tiny(1))) == ["first.weight", "second.weight", "readout.weight"]
    shared = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3), nn.Conv1d(3, 2, 1), nn.Embedding(4, 3))
    shared[2].weight = shared[0].weight
    assert list(prunable(shared)) == ["0.weight", "3.weight"]


def test_number_of_live_weights_is_the_rounded_share_and_at_least_one():
    for total, share, expected in [(10, 0.25, 2), (100, 0.3, 30), (10, 1, 10), (10, 0.001, 1)]:
        assert num_live(total, share) == expected


def test_global_magnitude_pruning_equals_a_plain_sort():
    for kept in [1, 17, 54, 81]:
        weights = some_weights()
        sizes = sorted(abs(flat(weights)), reverse=True)
        masks = magnitude_masks(weights, kept)
        assert {name: mask.shape for name, mask in masks.items()} == {name: w.shape for name, w in weights.items()}
        assert sorted(abs(flat(weights))[flat(masks)], reverse=True) == sizes[:kept]
        assert density(masks) == kept / 81


def test_of_equal_weights_the_earlier_ones_stay():
    weights = {"a": torch.tensor([[1.0, -2.0], [2.0, 1.0]]), "b": torch.tensor([-1.0, 2.0, 1.0])}
    masks = magnitude_masks(weights, 5)
    assert masks["a"].tolist() == [[True, True], [True, True]]
    assert masks["b"].tolist() == [False, True, False]


def test_what_is_dead_is_not_chosen_again_and_a_live_zero_may_be():
    weights = {"a": torch.tensor([9.0, 0.0, 3.0, 0.0]), "b": torch.tensor([8.0, 2.0])}
    live = {"a": torch.tensor([False, True, True, False]), "b": torch.tensor([True, True])}
    assert flat(magnitude_masks(weights, 2, live)).tolist() == [False, False, True, False, True, False]
    assert flat(magnitude_masks(weights, 4, live)).tolist() == flat(live).tolist()


def test_position_is_that_of_the_shape_and_not_of_the_memory():
    weight = torch.randn(4, 3, 2, 2, generator=stream(0, "layout")).round()
    plain = magnitude_masks({"a": weight}, 20)["a"]
    assert torch.equal(magnitude_masks({"a": weight.to(memory_format=torch.channels_last)}, 20)["a"], plain)


def test_no_masks_are_density_1():
    assert density({}) == 1
    assert density({"a": torch.tensor([True, False]), "b": torch.tensor([[False, False]])}) == 0.25


@pytest.mark.parametrize("make_optimizer", [sgd, adamw])
def test_masked_training_equals_training_of_a_network_that_is_multiplied_by_the_masks(make_optimizer):
    masked, multiplied = Tiny(2).double(), Tiny(2).double()
    sparsity = fixed(some_masks(masked))
    optimizer, plain = make_optimizer(masked), make_optimizer(multiplied)
    sparsity.attach(masked, optimizer)
    for epoch in range(3):
        for image, label in batches(epoch):
            optimizer.zero_grad()
            plain.zero_grad()
            cross_entropy(masked(image.double()).mean(0), label).backward()
            product = {name: multiplied.get_parameter(name) * mask for name, mask in sparsity.masks.items()}
            cross_entropy(functional_call(multiplied, product, image.double()).mean(0), label).backward()
            optimizer.step()
            plain.step()
            for name, mask in sparsity.masks.items():
                kept = [masked.get_parameter(name), *optimizer.state[masked.get_parameter(name)].values()]
                tensors = [value for value in kept if value is not None and value.shape == mask.shape]
                assert len(tensors) == {sgd: 2, adamw: 3}[make_optimizer]
                assert not any(value[~mask].any() for value in tensors)
    for name, value in multiplied.named_parameters():
        expected = value * sparsity.masks.get(name, 1)
        torch.testing.assert_close(masked.get_parameter(name), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make_optimizer", [sgd, adamw])
def test_the_mask_survives_a_checkpoint_and_the_rest_of_the_run_is_the_same(make_optimizer):
    masks = some_masks(Tiny(2))
    whole = TinyContext(make_optimizer=make_optimizer)
    *_, expected = whole.train(fixed(masks), timesteps=2)
    first = TinyContext(make_optimizer=make_optimizer)
    *_, _ = first.train(fixed(masks), timesteps=2, epochs=3)
    again = TinyContext(make_optimizer=make_optimizer, disk=first.disk)
    resumed = Sparsity()  # has no masks but those of the checkpoint
    *_, found = again.train(resumed, timesteps=2)
    assert again.trained == [(0, 3), (0, 4), (0, 5)]
    assert_same_weights(resumed.masks, masks)
    assert_same_weights(found.state_dict(), expected.state_dict())


def test_attaching_again_registers_no_second_hook_and_dense_none():
    model = Tiny(1)
    optimizer, other = sgd(model), sgd(model)
    Sparsity().attach(model, optimizer)
    assert not optimizer._optimizer_step_post_hooks
    sparsity = fixed(some_masks(model))
    for _ in range(3):
        sparsity.attach(model, optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == 1
    sparsity.attach(model, other)
    assert not optimizer._optimizer_step_post_hooks and len(other._optimizer_step_post_hooks) == 1


def test_dense_training_is_training_without_it():
    plain, dense = Tiny(2), Tiny(2)
    dense_context = TinyContext(num_epochs=2)
    *_, dense = dense_context.train(Sparsity(), timesteps=2)
    optimizer = sgd(plain)
    for epoch in range(2):
        dense_context._one_epoch(plain, optimizer, epoch)
    assert_same_weights(weights_of(dense), weights_of(plain))
    assert Sparsity().prepare(dense_context, plain) == {} and Sparsity().estimated_epochs(9) == 0


def test_masks_lie_in_memory_as_their_weights_do():
    model = Tiny(1).to(memory_format=torch.channels_last)
    sparsity = fixed(some_masks(model))
    before = copy.deepcopy(sparsity.masks)
    sparsity.attach(model, sgd(model))
    assert_same_weights(sparsity.masks, before)
    for name, mask in sparsity.masks.items():
        assert mask.stride() == model.get_parameter(name).stride()
        assert not model.get_parameter(name).requires_grad or not mask.requires_grad


def test_a_state_holds_tensors_and_plain_values_only():
    masks = some_masks(Tiny(1))
    read = Sparsity()
    read.load_state_dict(restored(stored(fixed(masks).state_dict())))
    assert_same_weights(read.masks, masks)


def test_a_density_that_is_no_share_is_refused():
    for share in [0, -0.1, 1.5, math.nan]:
        with pytest.raises(BadInput, match="density is above 0 and at most 1"):
            Sparsity(share)


def test_dense_takes_no_density_below_1_and_no_early_time():
    with pytest.raises(BadInput, match="0.5 choose imp, eb, pq, random, fixed, channels or narrow"):
        Sparsity(0.5)
    with pytest.raises(BadInput, match="early_time"):
        Sparsity(early_time=True)
