"""GraNd: exact per-example gradient norms."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from baselines.grand import GraNd
from sadp_bench.capture import per_example_norms as module
from sadp_bench.capture.per_example_norms import gradient_norms
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import mean_loss, step_loss
from sadp_bench.core.rng import stream
from sadp_bench.pruners.base import KeepAll
from tests.helpers import bench, network


def one_backward_pass_per_example(model, loss, input, label_B):
    norms = []
    for i in range(len(label_B)):
        model.zero_grad()
        one = input[:, i : i + 1] if input.dim() == 5 else input[i : i + 1]
        loss(model(one), label_B[i : i + 1]).sum().backward()
        norms.append(torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt())
    return torch.stack(norms)


@pytest.mark.parametrize("backbone", ["cnn", "mlp", "vgg11", "resnet18", "sew-resnet18"])
def test_gradient_norms_equal_one_backward_pass_per_example(backbone):
    label_B = torch.tensor([0, 3, 4])
    for norm, events, loss in product(["batch", "none"], [False, True], [mean_loss, step_loss]):
        model, input = network(backbone, norm, events)
        expected_B = one_backward_pass_per_example(model, loss, input, label_B)
        assert expected_B.min() > 1e-3
        first = next(p for p in model.parameters())
        assert first.grad.abs().max() > 0, "the gradient reaches the first layer"
        torch.testing.assert_close(gradient_norms(model, loss, input, label_B), expected_B, rtol=1e-9, atol=0)


def test_gradient_norms_do_not_depend_on_how_they_are_cut_into_chunks(monkeypatch):
    model, input = network("cnn", "batch", False)
    label_B = torch.tensor([0, 3, 4])
    whole_B = gradient_norms(model, mean_loss, input, label_B)
    monkeypatch.setitem(module.CHUNK_NUMBERS, "cpu", 1)
    torch.testing.assert_close(gradient_norms(model, mean_loss, input, label_B), whole_B, rtol=1e-12, atol=0)


def test_square_norms_of_a_layer_that_computes_in_16_bits_are_those_of_the_same_numbers_in_64():
    """Under autocast the input may have 32 bits; the squares must stay within the range of float16."""
    a = torch.randint(0, 2, (2, 4, 3, 5, 6), generator=stream(0, "16 bits")).float()
    layers = (nn.Conv2d(3, 5, 3, padding=1), nn.Linear(6, 4))
    for layer, computed in product(layers, (torch.bfloat16, torch.float16)):
        out = layer(a.flatten(0, 1)).unflatten(0, (2, 4))
        d = (300 * torch.randn(out.shape, generator=stream(1, "16 bits"))).to(computed)
        exact_B = module.square_norms(layer, [(a.double(), d.double())], 4)
        measured_B = module.square_norms(layer, [(a, d)], 4)
        assert measured_B.dtype == torch.float32
        torch.testing.assert_close(measured_B.double(), exact_B, rtol=5e-3, atol=0)


def test_gradient_norms_leave_gradients_hooks_and_statistics_as_they_were():
    model, input = network("cnn", "batch", False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.zero_grad()
    gradient_norms(model, mean_loss, input, torch.tensor([0, 3, 4]))
    assert all(p.grad is None for p in model.parameters())
    assert not any(part._forward_hooks for part in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_layer_that_is_not_known_is_refused_by_name():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)).eval()
    with pytest.raises(BadInput, match="'1' is a LayerNorm"):
        gradient_norms(model, mean_loss, torch.zeros(1, 2, 3), torch.tensor([0, 1]))


@pytest.mark.parametrize("loss", ["mean", "step"])
def test_scores_are_the_mean_over_runs_of_the_exact_norm_of_every_training_example(loss):
    run = bench("grand", 0.5, epochs=2, precision="fp64", loss=loss, set={"score_runs": 2})
    run.pruner.prepare(run.context)
    own = {"mean": mean_loss, "step": step_loss}[loss]
    expected = []
    for seed in range(2):
        model = run.context.fit(KeepAll(), 1, seed).eval()
        input = run.data.input(torch.arange(101))
        expected.append(one_backward_pass_per_example(model, own, input, run.data.label_N))
    torch.testing.assert_close(run.pruner.score_N, torch.stack(expected).mean(0).float(), rtol=1e-5, atol=0)


def test_a_short_last_batch_is_not_inflated():
    # 257 examples are surveyed as 256 + 1: a mean-reduced loss would make the last norm 256 times as large.
    run = bench("grand", 0.5, epochs=1, train_examples=257, set={"backbone.width": 2}, timesteps=1)
    model = run.context.fresh_model(0)
    norm_N = run.context.survey(model, frozenset({"gradient_norms"})).gradient_norm_N
    assert len(norm_N) == 257
    expected_B = one_backward_pass_per_example(
        model.eval(), mean_loss, run.data.input(torch.tensor([0, 256])), run.data.label_N[[0, 256]]
    )
    torch.testing.assert_close(norm_N[[0, 256]], expected_B.float(), rtol=1e-3, atol=0)


def test_grand_keeps_the_highest_norms():
    run = bench("grand", 0.7, epochs=2)
    run.pruner.prepare(run.context)
    assert isinstance(run.pruner, GraNd)
    kept = run.pruner.score_N[run.pruner.select(0).index_K]
    assert len(kept) == 30
    assert kept.min() >= run.pruner.score_N.sort(descending=True).values[29]
