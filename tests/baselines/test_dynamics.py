"""Methods that score the dynamics of a training run, against their definitions in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.ccs import CCS, PUBLISHED_BETA, default_beta, equal_budgets
from baselines.dual import DUAL, beta_log_density, drawn_order
from baselines.dyn_unc import DynUnc, DynUncDynamic
from baselines.dynamics import DivergenceRecorder, MarginRecorder, WindowRecorder
from baselines.tdds import TDDS
from baselines.uncertainty import Entropy, LeastConfidence, Margin
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.training.state_checks import score_fault
from tests.baselines.played import CLASSES, N, PlayedContext, of_label, probabilities, show
from tests.baselines.test_dynamic import exchange


def highest(score_N, num):
    return set(np.argsort(-score_N)[:num].tolist())


def kept(pruner, epoch=0):
    return set(pruner.select(epoch).index_K.tolist())


def windows_of(p_EN, num):
    return [p_EN[first : first + num] for first in range(len(p_EN) - num + 1)]


def uncertainty(p_EN, num):
    return np.mean([window.std(0, ddof=1) for window in windows_of(p_EN, num)], 0)


def hard_uncertainty(p_EN, num):
    return np.mean([window.std(0, ddof=1) * (1 - window.mean(0)) for window in windows_of(p_EN, num)], 0)


def dual_depth(p_ENC, num, decay=0.9):
    kl_EN = np.abs(p_ENC[1:] * np.log((p_ENC[1:] + 1e-8) / (p_ENC[:-1] + 1e-8))).sum(2)
    norms = [np.linalg.norm(window - window.mean(0), axis=0) for window in windows_of(kl_EN, num - 1)]
    return sum(decay * (1 - decay) ** age * norm for age, norm in enumerate(reversed(norms)))


STATIC = {  # options, epochs of the run, epochs of the scoring run, and the score of its probabilities
    "dyn-unc, whole": (DynUnc, {}, 13, 13, lambda p_ENC: uncertainty(of_label(p_ENC), 10)),
    "dyn-unc, short": (DynUnc, {}, 5, 5, lambda p_ENC: uncertainty(of_label(p_ENC), 5)),
    "dyn-unc, updates": (DynUnc, {"score_updates": 28, "window": 3}, 13, 7, lambda p: uncertainty(of_label(p), 3)),
    "dual, default": (DUAL, {}, 20, 3, lambda p_ENC: hard_uncertainty(of_label(p_ENC), 3)),
    "dual, longer": (DUAL, {"score_epochs": 12}, 20, 12, lambda p_ENC: hard_uncertainty(of_label(p_ENC), 10)),
    "tdds, default": (TDDS, {}, 40, 14, lambda p_ENC: dual_depth(p_ENC, 10)),
    "tdds, short": (TDDS, {}, 5, 3, lambda p_ENC: dual_depth(p_ENC, 3)),
    "tdds, decay": (TDDS, {"decay": 0.3, "window": 4, "score_epochs": 9}, 9, 9, lambda p: dual_depth(p, 4, 0.3)),
}


def test_static_scores_equal_their_definitions_and_the_highest_are_kept():
    for name, (kind, options, num_epochs, length, oracle) in STATIC.items():
        context, pruner = PlayedContext(num_epochs), kind(0.5, score_runs=2, **options)
        pruner.check(num_epochs)
        pruner.prepare(context)
        assert context.fits == [length, length], name
        score_N = np.mean([oracle(probabilities(context.logits(run)[:length])) for run in range(2)], 0)
        np.testing.assert_allclose(pruner.score_N, score_N, rtol=2e-4, atol=1e-6, err_msg=name)
        for epoch in range(3):
            assert kept(pruner, epoch) == highest(score_N, pruner.num_kept(epoch)), name


SURVEYED = {
    Entropy: lambda p_NC: -(p_NC * np.log(p_NC)).sum(1),
    Margin: lambda p_NC: -(np.sort(p_NC)[:, -1] - np.sort(p_NC)[:, -2]),
    LeastConfidence: lambda p_NC: 1 - p_NC.max(1),
}


def test_the_least_certain_of_a_survey_are_kept():
    for kind, oracle in SURVEYED.items():
        context, pruner = PlayedContext(20), kind(0.3, score_runs=2)
        pruner.prepare(context)
        assert context.fits == [2, 2], kind
        score_N = np.mean([oracle(probabilities(context.logits(run)[-1])) for run in range(2)], 0)
        np.testing.assert_allclose(pruner.score_N, score_N, rtol=1e-4, atol=1e-6, err_msg=str(kind))
        assert kept(pruner) == highest(score_N, pruner.num_kept(0)), kind


def test_dyn_unc_dynamic_ranks_by_each_example_s_own_presentations():
    for window, num_epochs, ratio in ((3, 12, 0.5), (10, 14, 0.3), (10, 4, 0.7)):
        context, pruner = PlayedContext(num_epochs), DynUncDynamic(ratio, window=window)
        pruner.prepare(context)
        p_EN, history = of_label(probabilities(context.logits(0))), [[] for _ in range(N)]
        longest = min(window, num_epochs)
        for epoch in range(num_epochs):
            score_N = np.array(
                [
                    3 - len(h) if len(h) < 2 else uncertainty(np.array(h)[:, None], min(longest, len(h)))[0]
                    for h in history
                ]
            )
            index_K, num_kept = pruner.select(epoch).index_K, pruner.num_kept(epoch)
            assert len(set(index_K.tolist())) == num_kept
            least = np.sort(score_N)[-num_kept]
            assert set(np.flatnonzero(score_N > least + 1e-5)) <= set(index_K.tolist())
            assert (score_N[index_K] >= least - 1e-5).all(), (window, epoch)
            show(pruner, context.logits(0)[epoch], index_K, context.label_N, epoch)
            for i in index_K.tolist():
                history[i].append(p_EN[epoch, i])
        assert max(map(len, history)) > 2 or ratio == 0.7


def test_ccs_draws_equal_numbers_from_strata_of_equal_width_without_the_hardest():
    for score, ratio, beta in (("aum", 0.5, None), ("aum", 0.7, None), ("el2n", 0.7, 0.2), ("aum", 0.3, 0.3)):
        context, pruner = PlayedContext(9), CCS(ratio, score=score, beta=beta, strata=7)
        pruner.prepare(context)
        if score == "aum":
            logits_ENC = context.logits(0).double().numpy()
            others_ENC = logits_ENC.copy()
            others_ENC[:, np.arange(N), np.arange(N) % CLASSES] = -np.inf
            hardness_N = -(of_label(logits_ENC) - others_ENC.max(2)).mean(0)
        else:
            p_NC = probabilities(context.logits(0)[-1])
            hardness_N = np.linalg.norm(p_NC - np.eye(CLASSES)[context.label_N], axis=1)
        np.testing.assert_allclose(pruner.score_N, hardness_N, rtol=1e-4, atol=1e-5)
        assert context.fits == [9 if score == "aum" else 1]

        num_kept = max(pruner.num_kept(epoch) for epoch in range(9))
        drop = {0.5: 0, 0.7: round(0.1 * N), 0.3: N - num_kept}[ratio] if score == "aum" else round(0.2 * N)
        left = sorted(range(N), key=lambda i: hardness_N[i])[: N - drop]
        edges = np.linspace(hardness_N[left].min(), hardness_N[left].max(), 8)
        stratum = {i: min(6, int(np.searchsorted(edges, hardness_N[i], "right")) - 1) for i in left}
        sizes = np.bincount(list(stratum.values()), minlength=7)
        level = max(level for level in range(N) if np.minimum(sizes, level).sum() <= num_kept)
        full = kept(pruner, next(epoch for epoch in range(9) if pruner.num_kept(epoch) == num_kept))
        assert full <= set(left) and len(full) == num_kept
        drawn = np.bincount([stratum[i] for i in full], minlength=7)
        spare = num_kept - np.minimum(sizes, level).sum()
        assert ((drawn - np.minimum(sizes, level)) >= 0).all() and (drawn - np.minimum(sizes, level)).max() <= 1
        assert (drawn > np.minimum(sizes, level)).sum() == spare, (score, ratio)
        for epoch in range(9):
            assert kept(pruner, epoch) <= full
    assert equal_budgets(torch.tensor([5, 0, 100, 9]), 33).tolist() == [5, 0, 19, 9]
    assert [default_beta(ratio) for ratio in PUBLISHED_BETA] == [0, 0.1, 0.1, 0.3] and default_beta(0.1) == 0


def test_within_a_stratum_ccs_draws_at_random():
    drawn = np.zeros(N)
    for seed in range(60):
        context = PlayedContext(4)
        context.seed = seed
        pruner = CCS(0.5, strata=1)
        context.scores = lambda score: torch.arange(float(N))
        pruner.prepare(context)
        drawn[list(kept(pruner))] += 1
    assert 10 < drawn.min() and drawn.max() < 50, "of 60 draws of a half"


def test_dual_draws_in_proportion_to_score_and_beta_density():
    context, pruner = PlayedContext(20), DUAL(0.7, sampling="beta", exponent=4)
    pruner.prepare(context)
    p_EN = of_label(probabilities(context.logits(0)[:3]))
    score_N, mean_N = hard_uncertainty(p_EN, 3), p_EN.mean(0)
    np.testing.assert_allclose(pruner.score_N, np.stack([score_N, mean_N], 1), rtol=2e-4, atol=1e-6)
    assert pruner.score_columns == 2 and not score_fault(pruner.score_N, N, 2), (
        "the file of shared scores holds rows too"
    )
    assert score_fault(pruner.score_N, N) and score_fault(pruner.score_N[:, :1], N, 2)
    assert score_fault(pruner.score_N * torch.nan, N, 2) == f"NaN for {N} examples"
    anchor = mean_N[np.argsort(-score_N)[:10]].mean()
    b = 15 * (1 - anchor) * (1 - 0.7**4)
    density_N = mean_N ** (16 - b - 1) * (1 - mean_N) ** (b - 1)
    log_density_N = beta_log_density(torch.tensor(score_N), torch.tensor(mean_N), 0.7, 4).exp().numpy()
    np.testing.assert_allclose(log_density_N / log_density_N.sum(), density_N / density_N.sum(), rtol=1e-6)

    weight_N = density_N * score_N
    first, generator = np.zeros(N), stream(0, "draws")
    for _ in range(2000):
        first[drawn_order(torch.tensor(weight_N).log(), generator)[0]] += 1
    expected = 2000 * weight_N / weight_N.sum()
    assert (np.abs(first - expected) < 5 * np.sqrt(expected + 1)).all()
    log_weight_N = torch.tensor(score_N).log() + torch.tensor(density_N).log()
    assert kept(pruner) == set(drawn_order(log_weight_N, pruner.generator())[: pruner.num_kept(0)].tolist())


def test_scores_do_not_depend_on_the_ratio():
    for kind, options in ((DynUnc, {}), (DUAL, {"sampling": "beta"}), (TDDS, {}), (CCS, {}), (Margin, {})):
        scores = []
        for ratio in (0.3, 0.7):
            pruner = kind(ratio, **options)
            pruner.prepare(PlayedContext(8))
            scores.append(pruner.score_N)
        assert torch.equal(*scores), kind


def test_settings_that_make_no_sense_are_refused_in_one_line():
    for kind, options, message in (
        (DynUnc, {"window": 1}, "dyn-unc's window is at least 2 presentations, not 1"),
        (DynUncDynamic, {"window": 1}, "dyn-unc-dynamic's window is at least 2 presentations, not 1"),
        (TDDS, {"window": 2}, "tdds's window is at least 3 presentations, not 2"),
        (TDDS, {"decay": 0.0}, "tdds's decay is above 0 and at most 1, not 0"),
        (DUAL, {"sampling": "gamma"}, "dual's sampling is one of top, beta, not 'gamma'"),
        (DUAL, {"exponent": 0.0}, "dual's exponent is above 0 and finite, not 0"),
        (DUAL, {"sampling": "beta", "keep": "easiest"}, "dual's sampling=beta draws from all examples"),
        (CCS, {"score": "loss"}, "ccs's score is one of aum, el2n, not 'loss'"),
        (CCS, {"beta": 0.6}, r"ccs's beta is between 0 and the ratio \(0.5\), not 0.6"),
        (CCS, {"strata": 0}, "ccs's strata are from 1 to 10,000, not 0"),
    ):
        with pytest.raises(BadInput, match=message):
            kind(0.5, **options)
    for kind, least in ((DynUnc, 2), (DUAL, 2), (TDDS, 3)):
        with pytest.raises(BadInput, match=f"trains at least {least} epochs, not 1 of 1"):
            kind(0.5).check(1)
        kind(0.5).check(least)
    context = PlayedContext(8)
    context.scores = lambda score: torch.arange(float(N))  # given, as a sampler has them
    with pytest.raises(BadInput, match="needs each example's mean p_y beside its score"):
        DUAL(0.5, sampling="beta").prepare(context)


def test_two_processes_record_what_one_does():
    context = PlayedContext(6)
    for kind, setting in ((WindowRecorder, (3,)), (MarginRecorder, ()), (DivergenceRecorder, (3, 0.9))):
        whole, *ranks = recorders = [kind(*setting) for _ in range(3)]
        for recorder in recorders:
            recorder.prepare(context)
        for epoch, logits_NC in enumerate(context.logits(0)):
            order_N = torch.randperm(N, generator=stream(epoch, "order"))
            show(whole, logits_NC, order_N, context.label_N, epoch)
            parts = order_N.tensor_split(2)
            for rank, index_K in zip(ranks, parts, strict=True):
                show(rank, logits_NC, index_K, context.label_N, epoch)
            exchange(ranks, list(parts))
        for name, value_N in whole.per_example().items():
            for rank in ranks:
                assert torch.equal(rank.per_example()[name], value_N), (kind, name)
