"""SADP: its score, and the draw that is unbiased whatever the scores are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from baselines.random_subset import Random
from sadp_bench.core.losses import LOSSES, logit_errors, mean_loss, step_loss
from sadp_bench.core.rng import stream
from sadp_bench.pruners.sadp import BOUND_RATIO_MEMORY, SADP, readout_gradient_norm
from tests.helpers import bench, in_standard_errors, prepared, seen, weighted_sums

# Independent draws: epochs of one run are a sample.
CONSTANT = {"smoothing": 0.1, "memory": 0.0, "draw": "independent"}


def with_scores(score_N, prune_ratio, **options):
    """Returns a pruner that has seen every example with these scores: no features, so the norm is that of the error."""
    pruner = prepared(SADP(prune_ratio, **{"score": "readout", **CONSTANT, **options}), len(score_N), num_epochs=100)
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
    requested = {"timesteps": 4, "set": {"backbone.threshold": 0.5, "score": "readout"}}
    run = bench("sadp", 0.0, epochs=1, batch_size=101, loss=loss, precision="fp64", **requested)
    run.pruner.prepare(run.context)
    model = run.resources.model(run.spec.seed).train()
    logits_TBC = model(run.data.input(torch.arange(101)))
    losses_N = LOSSES[loss](logits_TBC, run.data.label_N)
    expected_N = []
    for i in range(101):
        gradients = torch.autograd.grad(losses_N[i], list(model.readout.parameters()), retain_graph=True)
        expected_N.append(torch.cat([g.flatten() for g in gradients]).norm().item())
    assert logits_TBC.std(0).min() > 0, "the time steps differ"
    list(run.rows())
    assert run.pruner.score_sq_N.sqrt().tolist() == pytest.approx(expected_N, rel=1e-4)


@pytest.mark.parametrize("loss", ["mean", "step"])
def test_scores_of_a_weighted_training_run_are_the_calibrated_bounds_by_hand(loss):
    """Compares the scores with hooks of the test's own in the same run, over epochs, weights and several batches."""
    run = bench(
        "sadp",
        0.3,
        batch_size=30,
        loss=loss,
        precision="fp64",
        timesteps=3,
        set=CONSTANT | {"backbone.pool_at": "after-norm"},
    )
    run.pruner.prepare(run.context)
    layers = [m for m in run.model.modules() if isinstance(m, nn.Conv2d)]
    held, selection, sums, checked, limited = {}, [], torch.zeros(2, len(layers)), [], []

    def hold(layer, inputs, out):
        out.retain_grad()
        held[layer] = inputs[0].detach(), out

    for layer in [*layers, run.model.readout]:
        layer.register_forward_hook(hold)
    select, observe = run.pruner.select, run.pruner.observe
    run.pruner.select = lambda epoch: selection.append(select(epoch)) or selection[-1]

    def gradient_of(layer, scale_B):
        """Returns each example's squared gradient norm, and the two squares of the middle step."""
        a, out = held[layer]
        batch, channels = len(scale_B), out.shape[-3]
        error = out.grad.reshape(-1, batch, channels, out.shape[-2:].numel()) / scale_B[:, None, None]
        patches = nn.functional.unfold(a.flatten(0, -4), 3, padding=1).reshape(len(error), batch, -1, error.shape[-1])
        gradient = torch.einsum("tbop,tbip->boi", error, patches)
        middle = 1 if len(error) == 3 else 0  # the first layer has no time: the image is the same at every step
        return gradient.square().sum((1, 2)), *(x[middle].square().sum((1, 2)) for x in (error, patches))

    def compared(seen):
        nonlocal sums
        weight_N = torch.zeros(101).double()
        weight_N[selection[-1].index_K] = selection[-1].weight_K.double()
        scale_B = weight_N[seen.index_B] / len(seen.index_B)
        squares = [gradient_of(layer, scale_B) for layer in layers]
        exact_LB, error_LB, input_LB = (torch.stack(x) for x in zip(*squares, strict=True))
        if not any(epoch == seen.epoch for epoch, _ in checked):
            first = len(seen.index_B) // 4
            new = torch.stack([exact_LB[:, :first].sum(1), (error_LB * input_LB)[:, :first].sum(1)])
            sums = BOUND_RATIO_MEMORY * sums + new
        features, logits = held[run.model.readout]
        error = logits.grad / scale_B[:, None]
        of_readout = torch.einsum("tbc,tbd->bcd", error, features).square().sum((1, 2)) + error.sum(0).square().sum(1)
        output_B = error.square().sum((0, 2))
        most_LB = 4 * error_LB.sum(1, keepdim=True) / output_B.sum() * output_B
        limited.append(bool((error_LB > most_LB).any()))
        expected_B = (sums[0] / sums[1]) @ (torch.minimum(error_LB, most_LB) * input_LB) + of_readout
        observe(seen)
        torch.testing.assert_close(run.pruner.score_sq_N[seen.index_B].double(), expected_B, rtol=1e-5, atol=0)
        checked.append((seen.epoch, float(scale_B.std())))

    run.pruner.observe = compared
    list(run.rows())
    assert [epoch for epoch, _ in checked] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert any(limited) and not all(limited)
    assert checked[-1][1] > 0, "weights differ"


def test_spikes_score_equals_its_formula():
    generator = stream(7, "sadp")
    label_B = torch.randint(0, 3, (6,), generator=generator)
    logits_TBC = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64)
    input_LB = torch.randint(0, 90, (5, 6), generator=generator).double()
    input_LB[2] = 0  # a silent layer contributes nothing
    error_B = (logits_TBC.mean(0).softmax(1) - torch.eye(3)[label_B]).norm(dim=1)
    relative_LB = torch.cat([input_LB[:2], input_LB[3:]])
    relative_LB = relative_LB / relative_LB.mean(1, keepdim=True)
    expected_B = error_B * (1 + relative_LB.sum(0) / 5).sqrt()
    pruner = prepared(SADP(0.5, score="spikes", **CONSTANT), 6)
    pruner.observe(
        seen(torch.arange(6), input_squares=input_LB, logit_errors=logit_errors(mean_loss, logits_TBC, label_B))
    )
    torch.testing.assert_close(pruner.score_sq_N.sqrt(), expected_B.float())


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
    """Returns each example's gradient over all parameters of a small trained network, by a backward pass each. [N, P]."""
    run = bench("full", 0.0, epochs=15, train_examples=120, precision="fp64")
    run.pruner.prepare(run.context)
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
    assert variance < poisson_variance(gradients)


def test_a_balanced_draw_is_unbiased_over_runs_for_scores_that_no_draw_changes(gradients):
    full_P, norm_N = gradients.mean(0), gradients.norm(dim=1)
    direction_PD = torch.randn(len(full_P), 12, generator=stream(6, "directions"), dtype=torch.float64)
    for epoch in (1, 3):
        runs = []
        for seed in range(400):
            pruner = prepared(SADP(0.5, score="readout", **{**CONSTANT, "draw": "balanced"}), 120, seed=seed)
            observe(pruner, torch.arange(120), norm_N)
            for earlier in range(epoch):
                pruner.select(earlier)
            runs.append(weighted_sums(pruner, gradients, 1, first_epoch=epoch)[0])
        assert in_standard_errors(torch.stack(runs) @ direction_PD, full_P @ direction_PD).max() < 4


def poisson_variance(gradients):
    """Returns the variance of the mean under the best probabilities for 60 of 120 examples, found by bisection."""
    norm_N = gradients.norm(dim=1)
    score_N = 0.9 * norm_N / norm_N.mean() + 0.1
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (middle * score_N).clamp_max(1).sum() < 60 else (low, middle)
    return (norm_N.square() * (1 / (high * score_N).clamp_max(1) - 1)).sum() / 120**2


def test_scores_at_odds_with_the_norms_cost_variance_not_bias(gradients):
    full_P, norm_N = gradients.mean(0), gradients.norm(dim=1)
    right_RP = weighted_sums(with_scores(norm_N, 0.5), gradients, 1000)
    wrong_RP = weighted_sums(with_scores(norm_N.max() - norm_N, 0.5), gradients, 1000)
    direction_PD = torch.randn(len(full_P), 12, generator=stream(5, "directions"), dtype=torch.float64)
    assert in_standard_errors(wrong_RP @ direction_PD, full_P @ direction_PD).max() < 4
    assert (right_RP - full_P).square().sum() < (wrong_RP - full_P).square().sum()


def test_first_epoch_is_uniform_with_weight_1():
    pruner = prepared(SADP(0.5, **CONSTANT), 20)
    taken_N = torch.zeros(20)
    for epoch in range(2000):
        selection = pruner.select(epoch)
        assert torch.equal(selection.weight_K, torch.ones(10))
        taken_N[selection.index_K] += 1
    assert (taken_N - 1000).abs().max() < 4.5 * 500**0.5


def test_unseen_examples_have_the_mean_of_the_seen():
    pruner = prepared(SADP(0.5, score="readout", **CONSTANT), 8)
    observe(pruner, torch.tensor([1, 4, 6]), torch.tensor([1.0, 2.0, 6.0]))
    filled = with_scores(torch.tensor([3.0, 1.0, 3.0, 3.0, 2.0, 3.0, 6.0, 3.0]), 0.5)
    for epoch in range(20):
        found, expected = pruner.select(epoch), filled.select(epoch)
        assert torch.equal(found.index_K, expected.index_K)
        torch.testing.assert_close(found.weight_K, expected.weight_K)


def test_an_example_keeps_its_last_score():
    pruner = with_scores(torch.ones(6), 0.5)
    observe(pruner, torch.tensor([2, 5]), torch.tensor([7.0, 0.0]))
    assert pruner.score_sq_N.sqrt().tolist() == [1, 1, 7, 1, 1, 0]


def test_scores_that_are_not_finite_are_refused():
    for bad in (float("nan"), float("inf")):
        pruner = with_scores(torch.ones(10), 0.5)
        observe(pruner, torch.tensor([3]), torch.tensor([bad]))
        with pytest.raises(ValueError, match="finite"):
            pruner.select(1)


def test_smoothing_1_is_uniform_sampling():
    selection = with_scores(torch.tensor([0.0, 1.0, 100.0, 3.0]), 0.5, smoothing=1.0).select(1)
    assert torch.equal(selection.weight_K, torch.ones(2))
