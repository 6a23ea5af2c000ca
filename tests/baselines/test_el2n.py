"""EL2N, and the parts of a scoring run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn.functional import cross_entropy

from baselines.el2n import EL2N, error_norm
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream, stream_seed
from sadp_bench.pruners.base import KeepAll
from tests.helpers import bench


def el2n_in_numpy(logits_NC, label_N):
    logits_NC, label_N = logits_NC.double().numpy(), label_N.numpy()
    return np.linalg.norm(softmax(logits_NC, axis=1) - np.eye(logits_NC.shape[1])[label_N], axis=1)


def test_error_norm_equals_plain_numpy():
    logits_NC = 5 * torch.randn(50, 7, generator=stream(0, "el2n"))
    label_N = torch.arange(50) % 7
    np.testing.assert_allclose(error_norm(logits_NC, label_N), el2n_in_numpy(logits_NC, label_N), rtol=1e-5)
    right = torch.tensor([[40.0, 0.0]])
    assert error_norm(right, torch.tensor([0])).item() == pytest.approx(0, abs=1e-12)
    assert error_norm(right, torch.tensor([1])).item() == pytest.approx(2**0.5)


def test_scores_are_those_of_the_time_mean_in_evaluation_mode_averaged_over_runs():
    run = bench("el2n", 0.5, epochs=2, timesteps=4, set={"score_runs": 2, "backbone.threshold": 0.5})
    run.pruner.prepare(run.context)
    expected = []
    for seed in range(2):
        model = run.context.fit(KeepAll(), 1, seed).eval()
        with torch.no_grad():
            logits_TNC = model(run.data.input(torch.arange(101)))
        assert (logits_TNC.std(0) > 0.01).any(), "the time steps differ"
        expected.append(el2n_in_numpy(logits_TNC.mean(0), run.context.label_N))
    np.testing.assert_allclose(run.pruner.score_N, np.mean(expected, 0), rtol=1e-4)
    assert abs(expected[0] - expected[1]).max() > 0.01, "each scoring network is another"


def test_highest_scores_are_kept_for_the_whole_run_with_weight_1():
    run = bench("el2n", 0.5)
    run.pruner.prepare(run.context)
    score_N, chosen = run.pruner.score_N, []
    for epoch, kept in enumerate([51, 50, 51, 50]):
        selection = run.pruner.select(epoch)
        assert sorted(score_N[selection.index_K].tolist()) == sorted(score_N.tolist())[-kept:]
        chosen.append(set(selection.index_K.tolist()))
        assert torch.equal(selection.weight_K, torch.ones(kept))
    assert chosen[0] == chosen[2] > chosen[1] == chosen[3]


def test_easiest_and_middle_are_the_lowest_scores_and_those_around_the_median():
    for keep, first in (("easiest", 0), ("middle", 25)):
        run = bench("el2n", 0.5, set={"keep": keep})
        run.pruner.prepare(run.context)
        score_N = run.pruner.score_N
        found = sorted(score_N[run.pruner.select(0).index_K].tolist())
        assert found == sorted(score_N.tolist())[first : first + 51], keep
    with pytest.raises(BadInput, match="keep is one of hardest, easiest, middle, not 'hard'"):
        EL2N(0.5, keep="hard")
    with pytest.raises(BadInput, match="with keep=middle leave it out"):
        EL2N(0.5, keep="middle", offset=0.1)


def test_offset_drops_the_hardest_first():
    run = bench("el2n", 0.5, set={"offset": 0.1})
    run.pruner.prepare(run.context)
    kept_K = run.pruner.score_N[run.pruner.select(0).index_K]
    assert sorted(kept_K.tolist()) == sorted(run.pruner.score_N.tolist())[40:91]
    with pytest.raises(BadInput, match="offset"):
        bench("el2n", 0.3, set={"offset": 0.4})


def test_scoring_takes_a_tenth_of_the_run_and_a_pass_by_default():
    for epochs, score_epochs, expected in ((4, 0, 2), (20, 0, 3), (200, 0, 21), (20, 7, 8)):
        assert EL2N(0.5, score_epochs=score_epochs).scoring_epochs(epochs) == expected


def test_scoring_visits_are_counted_apart():
    run = bench("el2n", 0.5, set={"score_epochs": 2, "score_runs": 3})
    run.pruner.prepare(run.context)
    assert run.context.visits == 3 * (2 + 1) * 101  # two epochs and the survey
    assert sum(row["kept"] for row in run.rows()) == 202


@pytest.mark.parametrize("loss", ["mean", "step"])
def test_a_scoring_run_equals_a_plain_training_loop(loss):
    run = bench("el2n", 0.5, precision="fp64", loss=loss)
    fitted = run.context.fit(KeepAll(), 2, 5)

    spec, model = run.spec, run.context.fresh_model(5).train()
    seed = stream_seed(spec.seed, "scoring 5")
    momentum = [torch.zeros_like(p) for p in model.parameters()]
    sizes, epochs = [17] * 5 + [16], 4  # 101 examples in 6 batches; the schedule is the whole run's
    for epoch in range(2):
        order_N = torch.randperm(101, generator=stream(seed, "order", epoch))
        shown = 0
        for index_B in order_N.split(sizes):
            logits_TBC, label_B = model(run.data.input(index_B)), run.data.label_N[index_B]
            of_steps = [cross_entropy(logits_BC, label_B) for logits_BC in logits_TBC]
            total = cross_entropy(logits_TBC.mean(0), label_B) if loss == "mean" else sum(of_steps) / len(of_steps)
            gradients = torch.autograd.grad(total, list(model.parameters()))
            share = (epoch + shown / 101) / epochs
            rate = spec.learning_rate * (1 + np.cos(np.pi * share)) / 2
            with torch.no_grad():
                for p, m, g in zip(model.parameters(), momentum, gradients, strict=True):
                    m.mul_(0.9).add_(g + spec.weight_decay * p)
                    p.sub_(rate * m)
            shown += len(index_B)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(fitted.state_dict()[name], value, rtol=1e-7, atol=1e-9)


def test_scoring_leaves_the_run_as_it_would_be_without():
    run, other = bench("el2n", 0.5), bench("el2n", 0.5)
    other.pruner.prepare(other.context)
    for name, value in run.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value)


def test_more_scoring_epochs_than_the_run_has_are_refused_before_training():
    with pytest.raises(BadInput, match="at most the run's 5 epochs"):
        EL2N(0.5, score_epochs=6).check(5)
