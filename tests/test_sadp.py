"""SADP: its score, and the draw that is unbiased whatever the scores are."""

from __future__ import annotations

import pytest
import torch
from helpers import bench, in_standard_errors, prepared, seen, weighted_sums
from torch import nn

from baselines.random_subset import Random
from sadp_bench.errors import BadInput
from sadp_bench.losses import LOSSES, logit_errors, mean_loss, step_loss
from sadp_bench.pruners.sadp import SADP, readout_gradient_norm
from sadp_bench.streams import stream


def with_scores(score_N, prune_ratio, **options):
    """A pruner that has seen every example, with these scores: no features, so the norm is that of the error."""
    pruner = prepared(SADP(prune_ratio, score="readout", **options), len(score_N), num_epochs=100)
    observe(pruner, torch.arange(len(score_N)), score_N)
    return pruner


def observe(pruner, index_B, score_B):
    error_TBC = torch.stack([score_B, torch.zeros_like(score_B)], 1)[None].float()
    pruner.observe(seen(index_B, features=torch.zeros(1, len(index_B), 3), logit_errors=error_TBC))


@pytest.mark.parametrize("loss", [mean_loss, step_loss])
def test_score_equals_autograds_norm_of_the_readouts_gradient(loss):
    generator = stream(0, "sadp")
    features_TBD = torch.randint(0, 2, (4, 6, 9), generator=generator).double()
    label_B = torch.randint(0, 5, (6,), generator=generator)
    readout = nn.Linear(9, 5).double()
    expected = []
    for i in range(6):
        readout.zero_grad()
        loss(readout(features_TBD[:, i : i + 1]), label_B[i : i + 1]).sum().backward()
        expected.append(torch.cat([p.grad.flatten() for p in readout.parameters()]).norm().item())
    error_TBC = logit_errors(loss, readout(features_TBD), label_B)
    assert readout_gradient_norm(features_TBD, error_TBC).tolist() == pytest.approx(expected, rel=1e-10)


def test_score_for_the_mean_loss_is_the_error_times_the_mean_features():
    generator = stream(1, "sadp")
    features_TBD = torch.randint(0, 2, (4, 8, 12), generator=generator).double()
    logits_TBC = torch.randn(4, 8, 3, generator=generator, dtype=torch.float64)
    label_B = torch.randint(0, 3, (8,), generator=generator)
    error_BC = logits_TBC.mean(0).softmax(1) - torch.eye(3, dtype=torch.float64)[label_B]
    expected_B = error_BC.norm(dim=1) * (features_TBD.mean(0).square().sum(1) + 1).sqrt()
    found_B = readout_gradient_norm(features_TBD, logit_errors(mean_loss, logits_TBC, label_B))
    torch.testing.assert_close(found_B, expected_B, rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", ["mean", "step"])
def test_scores_of_a_training_run_are_the_readouts_gradient_norms_at_the_last_visit(loss):
    asked = {"timesteps": 4, "set": {"backbone.threshold": 0.5}}
    asked["set"]["score"] = "readout"
    run = bench("sadp", 0.0, epochs=1, batch_size=101, loss=loss, precision="fp64", **asked)
    run.pruner.prepare(run.lab)
    model = run.build(run.spec.seed).train()
    logits_TBC = model(run.data.input(torch.arange(101)))
    losses_N = LOSSES[loss](logits_TBC, run.data.label_N)
    expected_N = []
    for i in range(101):
        gradients = torch.autograd.grad(losses_N[i], list(model.readout.parameters()), retain_graph=True)
        expected_N.append(torch.cat([g.flatten() for g in gradients]).norm().item())
    assert logits_TBC.std(0).min() > 0, "the time steps differ"
    list(run.rows())
    assert run.pruner.square_N.sqrt().tolist() == pytest.approx(expected_N, rel=1e-4)


def test_weights_are_k_over_n_pi_by_hand():
    # Scores 1, 1, 2, 12 (mean 4), smoothing 0.5: 0.625, 0.625, 0.75, 2; K = 2: the last is certain, 1 left for 2.0.
    pruner = with_scores(torch.tensor([1.0, 1.0, 2.0, 12.0]), 0.5, smoothing=0.5)
    expected_N = 2 / (4 * torch.tensor([0.3125, 0.3125, 0.375, 1.0]))
    for epoch in range(30):
        selection = pruner.select(epoch)
        assert len(selection.index_K) == 2 and 3 in selection.index_K
        assert selection.weight_K.dtype == torch.float32
        torch.testing.assert_close(selection.weight_K, expected_N[selection.index_K])


@pytest.mark.parametrize("prune_ratio", [0.3, 0.5, 0.7])
def test_weighted_mean_is_unbiased_whatever_the_scores_are(prune_ratio):
    generator = stream(2, "sadp")
    value_ND = torch.randn(41, 6, generator=generator, dtype=torch.float64)
    score_N = torch.rand(41, generator=generator) ** 4  # they have nothing to do with the values
    sums_RD = weighted_sums(with_scores(score_N, prune_ratio), value_ND, 3000, first_epoch=1)
    assert in_standard_errors(sums_RD, value_ND.mean(0)).max() < 4


def test_mean_weight_is_1_in_expectation():
    score_N = torch.rand(40, generator=stream(3, "sadp")) ** 3
    means_R1 = weighted_sums(with_scores(score_N, 0.5), torch.ones(40, 1, dtype=torch.float64), 4000)
    assert in_standard_errors(means_R1, torch.ones(1)).max() < 4
    assert abs(means_R1.mean() - 1) < 0.02


@pytest.fixture(scope="module")
def gradients():
    """Each example's gradient over all parameters of a small trained network, by one backward pass each. [N, P]."""
    run = bench("full", 0.0, epochs=15, train_examples=120, precision="fp64")
    run.pruner.prepare(run.lab)
    list(run.rows())
    model = run.model.eval()
    rows = []
    for i in range(120):
        model.zero_grad()
        mean_loss(model(run.data.input(torch.tensor([i]))), run.data.label_N[i : i + 1]).sum().backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return torch.stack(rows)


def test_mean_gradient_of_a_real_network_is_unbiased_and_less_noisy_than_under_uniform_sampling(gradients):
    full_P = gradients.mean(0)
    of_sadp_RP = weighted_sums(with_scores(gradients.norm(dim=1), 0.5), gradients, 1500)
    of_random_RP = weighted_sums(prepared(Random(0.5), 120), gradients, 1500)
    direction_PD = torch.randn(len(full_P), 12, generator=stream(4, "directions"), dtype=torch.float64)
    assert in_standard_errors(of_sadp_RP @ direction_PD, full_P @ direction_PD).max() < 4
    variance, of_uniform = ((x_RP - full_P).square().sum(1).mean() for x_RP in (of_sadp_RP, of_random_RP))
    assert variance < 0.7 * of_uniform


def test_scores_at_odds_with_the_norms_cost_variance_not_bias(gradients):
    full_P, norm_N = gradients.mean(0), gradients.norm(dim=1)
    right_RP = weighted_sums(with_scores(norm_N, 0.5), gradients, 1000)
    wrong_RP = weighted_sums(with_scores(norm_N.max() - norm_N, 0.5), gradients, 1000)
    direction_PD = torch.randn(len(full_P), 12, generator=stream(5, "directions"), dtype=torch.float64)
    assert in_standard_errors(wrong_RP @ direction_PD, full_P @ direction_PD).max() < 4
    assert (right_RP - full_P).square().sum() < (wrong_RP - full_P).square().sum()


def test_first_epoch_is_uniform_with_weight_1():
    pruner = prepared(SADP(0.5), 20)
    taken_N = torch.zeros(20)
    for epoch in range(2000):
        selection = pruner.select(epoch)
        assert torch.equal(selection.weight_K, torch.ones(10))
        taken_N[selection.index_K] += 1
    assert (taken_N - 1000).abs().max() < 4.5 * 500**0.5


def test_unseen_examples_have_the_mean_of_the_seen():
    pruner = prepared(SADP(0.5, score="readout"), 8)
    observe(pruner, torch.tensor([1, 4, 6]), torch.tensor([1.0, 2.0, 6.0]))
    filled = with_scores(torch.tensor([3.0, 1.0, 3.0, 3.0, 2.0, 3.0, 6.0, 3.0]), 0.5)
    for epoch in range(20):
        found, expected = pruner.select(epoch), filled.select(epoch)
        assert torch.equal(found.index_K, expected.index_K)
        torch.testing.assert_close(found.weight_K, expected.weight_K)


def test_an_example_keeps_its_last_score():
    pruner = with_scores(torch.ones(6), 0.5)
    observe(pruner, torch.tensor([2, 5]), torch.tensor([7.0, 0.0]))
    assert pruner.square_N.sqrt().tolist() == [1, 1, 7, 1, 1, 0]


@pytest.mark.parametrize("smoothing", [0.0, -0.1, 1.5, float("nan")])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(BadInput, match="smoothing is above 0 and at most 1"):
        SADP(0.3, smoothing=smoothing)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad):
    pruner = with_scores(torch.ones(10), 0.5)
    observe(pruner, torch.tensor([3]), torch.tensor([bad]))
    with pytest.raises(ValueError, match="finite"):
        pruner.select(1)


def test_smoothing_1_is_uniform_sampling():
    selection = with_scores(torch.tensor([0.0, 1.0, 100.0, 3.0]), 0.5, smoothing=1.0).select(1)
    assert torch.equal(selection.weight_K, torch.ones(2))


def test_saved_state_gives_the_same_next_selection():
    pruner = prepared(SADP(0.3, score="readout"), 50, seed=9)
    observe(pruner, torch.arange(0, 50, 2), torch.rand(25, generator=stream(6, "sadp")))
    other = SADP(0.3, score="readout")
    other.load_state_dict(pruner.state_dict())
    for epoch in (1, 2):
        found, expected = other.select(epoch), pruner.select(epoch)
        assert torch.equal(found.index_K, expected.index_K) and torch.equal(found.weight_K, expected.weight_K)
    observe(other, torch.tensor([0]), torch.tensor([50.0]))
    assert pruner.square_N[0] != 2500, "the saved state shares no memory with the pruner"
