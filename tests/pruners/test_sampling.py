"""Sampling: budgets, inclusion probabilities, the draw."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize

from sadp_bench.core.rng import stream
from sadp_bench.pruners.sampling import (
    balanced,
    inclusion_probability,
    kept_in_epoch,
    kept_share,
    ranked,
    scheduled,
    smooth,
    systematic_sample,
    weights,
)
from tests.helpers import drawn

quick = settings(max_examples=150, deadline=None)
scores = st.lists(
    st.one_of(
        st.sampled_from([0.0, 1.0, 1.0, 2.0]),
        st.floats(min_value=1e-6, max_value=10),
        st.integers(-12, 12).map(lambda power: 10.0**power),
    ),
    min_size=1,
    max_size=40,
)


@quick
@given(st.integers(1, 100_000), st.integers(0, 999), st.integers(1, 60))
def test_kept_in_epoch_adds_up_to_the_budget_after_every_epoch(num_examples, per_mille, epochs):
    per_epoch = Fraction(1000 - per_mille, 1000) * num_examples
    total = 0
    for epoch in range(epochs):
        kept = kept_in_epoch(num_examples, per_mille / 1000, epoch)
        assert abs(kept - per_epoch) < 1
        total += kept
        assert abs(total - (epoch + 1) * per_epoch) <= Fraction(1, 2)


def test_kept_in_epoch_alternates_where_half_an_example_is_kept():
    assert [kept_in_epoch(7, 0.5, epoch) for epoch in range(4)] == [4, 3, 4, 3]


@quick
@given(
    st.sampled_from(["constant", "falling", "rising"]), st.integers(0, 999), st.integers(1, 60), st.integers(1, 10_000)
)
def test_schedules_keep_the_budget_over_a_run_and_never_more_than_everything(schedule, per_mille, epochs, num_examples):
    ratio = per_mille / 1000
    share_E = [kept_share(schedule, ratio, (epoch + 0.5) / epochs) for epoch in range(epochs)]
    assert all(0 < share <= 1 + 1e-12 for share in share_E)
    assert sorted(share_E, reverse=schedule == "falling") == (share_E if schedule != "constant" else sorted(share_E))
    total, wanted = 0, Fraction(0)
    for epoch in range(epochs):
        total += scheduled(num_examples, share_E[: epoch + 1])
        wanted += Fraction(share_E[epoch]) * num_examples
        assert abs(total - wanted) <= Fraction(1, 2) + Fraction(1, 10**6)
    budget = Fraction(1000 - per_mille, 1000) * num_examples * epochs
    assert abs(total - budget) <= Fraction(1, 2) + Fraction(1, 10**6)


def test_schedules_go_from_half_as_much_more_to_half_as_much_less_in_a_straight_line():
    ends = [
        [round(kept_share(kind, 0.7, done), 9) for done in (0, 0.5, 1)] for kind in ("falling", "rising", "constant")
    ]
    assert ends == [[0.45, 0.3, 0.15], [0.15, 0.3, 0.45], [0.3, 0.3, 0.3]]
    assert [kept_share("falling", 0.2, done) for done in (0, 1)] == pytest.approx([0.9, 0.7])  # at most everything


@st.composite
def problems(draw):
    score_N = draw(scores)
    return torch.tensor(score_N, dtype=torch.float64), draw(st.integers(1, len(score_N)))


@quick
@given(problems())
def test_inclusion_probabilities_sum_to_k_and_never_exceed_1(problem):
    score_N, num_kept = problem
    p_N = inclusion_probability(score_N, num_kept)
    assert p_N.sum().item() == pytest.approx(num_kept, rel=1e-9)
    assert 0 <= p_N.min() and p_N.max() <= 1


@quick
@given(problems())
def test_inclusion_probability_is_monotone_in_the_score(problem):
    score_N, num_kept = problem
    p_N = inclusion_probability(score_N, num_kept)
    rising = score_N.argsort()
    assert (p_N[rising].diff() >= -1e-12).all()
    for score in score_N.unique():
        alike = p_N[score_N == score]
        assert alike.max() - alike.min() <= 1e-12


@quick
@given(problems(), st.sampled_from([0.01, 0.1, 1.0]))
def test_smoothing_leaves_no_example_without_a_chance_and_bounds_the_weights(problem, smoothing):
    score_N, num_kept = problem
    p_N = inclusion_probability(smooth(score_N, smoothing), num_kept)
    assert p_N.min() > 0
    # c is at least K / N with scores of mean 1, so the weight K / (N p) is at most 1 / smoothing.
    assert num_kept / len(score_N) / p_N.min() <= 1 / smoothing + 1e-9


@quick
@given(problems())
def test_inclusion_probability_equals_bisection_on_the_level(problem):
    score_N, num_kept = problem
    score_N = score_N.numpy()
    if (score_N > 0).sum() < num_kept:
        return  # no finite level: see the next test
    low, high = 1e-30, 1e30
    for _ in range(150):
        middle = (low * high) ** 0.5
        if np.minimum(1, middle * score_N).sum() < num_kept:
            low = middle
        else:
            high = middle
    expected_N = np.minimum(1, high * score_N)
    p_N = inclusion_probability(torch.from_numpy(score_N), num_kept).numpy()
    np.testing.assert_allclose(p_N, expected_N, rtol=2e-6, atol=2e-6)


def test_with_fewer_positive_scores_than_kept_those_are_certain_and_the_rest_share_alike():
    p_N = inclusion_probability(torch.tensor([0.0, 3.0, 0.0, 1e-9, 0.0]), 3)
    assert p_N.tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1, 1 / 3])


@pytest.mark.parametrize("num_kept", [1, 3, 5])
def test_inclusion_probability_minimises_the_variance_numerically(num_kept):
    score_N = np.array([0.2, 0.5, 0.5, 1.0, 2.0, 6.0, 9.0])

    def variance(p_N):
        return (score_N**2 / p_N).sum()

    found = minimize(
        variance,
        np.full(7, num_kept / 7),
        jac=lambda p_N: -(score_N**2) / p_N**2,
        bounds=[(1e-6, 1)] * 7,
        constraints={"type": "eq", "fun": lambda p_N: p_N.sum() - num_kept, "jac": lambda p_N: np.ones(7)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    p_N = inclusion_probability(torch.from_numpy(score_N), num_kept).numpy()
    assert variance(p_N) <= found.fun * (1 + 1e-9)
    np.testing.assert_allclose(p_N, found.x, atol=2e-4)


def poisson_variance(size_N, p_N):
    """Returns the variance of the sum of kept sizes over their p. Each example is kept or dropped independently."""
    return float((size_N**2 * (1 / p_N - 1)).sum())


@quick
@given(problems(), st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 1.0]))
def test_no_other_probabilities_of_the_same_sum_have_a_smaller_variance(problem, seed, step):
    score_N, num_kept = problem
    score_N = score_N + 0.01 * score_N.max() + 1e-12
    p_N = inclusion_probability(score_N, num_kept)
    generator = stream(seed, "others")
    other_N = torch.rand(len(p_N), generator=generator, dtype=torch.float64) + 1e-3
    other_N *= num_kept / other_N.sum()
    if other_N.max() > 1:  # towards the equal ones until it is one
        equal = num_kept / len(p_N)
        other_N = equal + (other_N - equal) * ((1 - equal) / (other_N.max() - equal))
    other_N = (1 - step) * p_N + step * other_N
    assert other_N.sum().item() == pytest.approx(num_kept) and other_N.max() <= 1 + 1e-12
    assert poisson_variance(score_N, p_N) <= poisson_variance(score_N, other_N) * (1 + 1e-9) + 1e-9 * score_N.max() ** 2


def test_poissons_variance_is_that_of_independent_draws_and_the_draw_in_use_has_no_more():
    generator = stream(11, "variance")
    score_N = torch.rand(30, generator=generator, dtype=torch.float64) ** 3 + 0.05
    p_N = inclusion_probability(score_N, 9)
    direction_ND = torch.randn(30, 3, generator=generator, dtype=torch.float64) + 0.3
    value_ND = score_N[:, None] * direction_ND / direction_ND.norm(dim=1, keepdim=True)
    expected = poisson_variance(score_N, p_N)
    poisson_RN = torch.rand(40_000, 30, generator=generator, dtype=torch.float64) < p_N
    found = [(taken_RN.double() / p_N) @ value_ND for taken_RN in (poisson_RN, drawn(p_N, 6000))]
    of_poisson, of_ours = ((sum_RD - value_ND.sum(0)).square().sum(1) for sum_RD in found)
    assert of_poisson.mean().item() == pytest.approx(expected, rel=4 * (of_poisson.std() / 200 / expected).item())
    assert of_ours.mean() < expected


@quick
@given(problems(), st.sampled_from([0.05, 0.1, 1.0]), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_weights_of_any_power_have_mean_1_in_expectation(problem, smoothing, power):
    score_N, num_kept = problem
    p_N = inclusion_probability(smooth(score_N, smoothing), num_kept)
    weight_N = weights(p_N, num_kept, power)
    assert (p_N @ weight_N).item() / num_kept == pytest.approx(1, rel=1e-9)  # each is kept with probability p
    assert (weight_N > 0).all()
    ratio_N = (p_N[0] / p_N) ** power
    np.testing.assert_allclose(weight_N / weight_N[0], ratio_N, rtol=1e-9)
    if power == 1:
        np.testing.assert_allclose(weight_N, num_kept / len(p_N) / p_N, rtol=1e-12)
    if power == 0:
        np.testing.assert_allclose(weight_N, 1, rtol=1e-9)


def test_smooth_equals_its_formula_and_has_mean_1():
    score_N = np.array([0.0, 1.0, 2.0, 7.0], dtype=np.float32)
    expected_N = 0.7 * score_N / 2.5 + 0.3
    smoothed_N = smooth(torch.from_numpy(score_N), 0.3)
    np.testing.assert_allclose(smoothed_N.numpy(), expected_N, rtol=1e-7)
    assert smoothed_N.mean().item() == pytest.approx(1)
    assert smooth(torch.zeros(3), 0.1).tolist() == [1, 1, 1]


def test_smooth_refuses_scores_that_are_no_weights():
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="finite"):
            smooth(torch.tensor([1.0, bad]), 0.1)


@quick
@given(problems(), st.integers(0, 10**6))
def test_systematic_sample_draws_exactly_k_distinct_with_the_certain_ones(problem, seed):
    score_N, num_kept = problem
    p_N = inclusion_probability(score_N, num_kept)
    index_K = systematic_sample(p_N, stream(seed, "test"))
    assert len(index_K) == num_kept == len(index_K.unique())
    assert (index_K.diff() > 0).all()
    assert set((p_N == 1).nonzero().flatten().tolist()) <= set(index_K.tolist())
    assert (p_N[index_K] > 0).all()


@pytest.mark.parametrize("num_kept", [1, 4, 11])
def test_inclusion_frequencies_match_the_probabilities_and_pass_a_chi_square_test(num_kept):
    p_N = inclusion_probability(torch.rand(17, generator=stream(3, "scores")) ** 3 + 0.02, num_kept)
    taken_RN = drawn(p_N, 6000).double()
    frequency_N = taken_RN.mean(0)
    open_N = p_N < 1
    assert (frequency_N[~open_N] == 1).all()
    p_M = p_N[open_N]
    z_M = (frequency_N[open_N] - p_M) / (p_M * (1 - p_M) / 6000).sqrt()
    assert z_M.abs().max() < 4.5
    assert z_M.square().mean() < 2.5  # 1 in expectation
    # Hotelling's test: draws of an epoch depend on each other, and all open examples but the last determine it.
    open_M = open_N.nonzero().squeeze(1)[:-1]
    taken_RM = taken_RN[:, open_M]
    off_M, freedom = taken_RM.mean(0) - p_N[open_M], len(open_M)
    wrong_M = off_M + 0.05 * torch.eye(freedom, dtype=torch.float64)[0]
    right, wrong = (6000 * x_M @ torch.linalg.solve(taken_RM.T.cov(), x_M) for x_M in (off_M, wrong_M))
    assert stats.chi2.sf(right.item(), freedom) > 1e-4
    assert stats.chi2.sf(wrong.item(), freedom) < 1e-4


def test_equal_probabilities_make_every_pair_as_likely_as_in_simple_random_sampling():
    num_examples, num_kept, num_draws = 9, 3, 9000
    taken_RN = drawn(torch.full((num_examples,), num_kept / num_examples), num_draws)
    pair_NN = taken_RN.T @ taken_RN / num_draws
    expected = num_kept * (num_kept - 1) / (num_examples * (num_examples - 1))
    off = pair_NN[~torch.eye(num_examples, dtype=torch.bool)]
    error = (expected * (1 - expected) / num_draws) ** 0.5
    assert (off - expected).abs().max() < 4.5 * error


def test_no_pair_is_shut_out_by_unequal_probabilities():
    p_N = inclusion_probability(torch.tensor([1.0, 1, 2, 2, 3, 4, 5, 9]), 3)
    taken_RN = drawn(p_N, 6000)
    pair_NN = taken_RN.T @ taken_RN / len(taken_RN)
    off = ~torch.eye(8, dtype=torch.bool)
    assert (pair_NN[off] > 0.1 * torch.outer(p_N, p_N)[off]).all()


def drawn_in_turn(p_EN, generator):
    """Returns whether each example was drawn in each epoch, [E, N], and the largest distance of visits from the sum of p."""
    surplus_N, drawn_EN, furthest = torch.zeros(p_EN.shape[1]), [], 0.0
    for p_N in p_EN:
        now_N = balanced(p_N, surplus_N, round(float(p_N.sum())))
        drawn_N = torch.zeros_like(p_N)
        drawn_N[systematic_sample(now_N, generator)] = 1
        surplus_N += drawn_N - p_N
        drawn_EN.append(drawn_N)
        furthest = max(furthest, float(surplus_N.abs().max()))
    return torch.stack(drawn_EN), furthest


def test_balanced_draws_have_the_inclusion_probabilities_and_visits_within_one_of_their_sum():
    generator = stream(7, "sampling")
    score_N = torch.rand(600, generator=generator) ** 3 + 0.05
    p_EN = torch.stack([inclusion_probability(score_N ** (1 - 0.1 * e), 360 - 40 * e) for e in range(6)])
    assert (p_EN[0] == 1).any() and (p_EN.sum(0) > 2).any() and (p_EN.sum(0) < 0.9).any()
    runs = [drawn_in_turn(p_EN, generator) for _ in range(200)]
    assert max(furthest for _, furthest in runs) <= 1 + 1e-6
    frequency_EN = torch.stack([drawn_EN for drawn_EN, _ in runs]).mean(0)
    for p_N, frequency_N in zip(p_EN, frequency_EN, strict=True):
        open_N = p_N < 1
        assert (frequency_N[~open_N] == 1).all()
        score_sq_N = 200 * (frequency_N - p_N).square() / (p_N * (1 - p_N))
        # K is fixed and the draws are spread out, so the sum lies at or below a chi-square's.
        assert score_sq_N[open_N].sum() < stats.chi2(int(open_N.sum())).ppf(1 - 1e-4)


def test_independent_draws_of_the_same_probabilities_spread_the_visits_more():
    generator = stream(8, "sampling")
    p_EN = inclusion_probability(torch.rand(600, generator=generator) + 0.2, 300).expand(6, -1)
    independent_EN = torch.stack([torch.zeros(600).index_fill(0, systematic_sample(p, generator), 1) for p in p_EN])
    spread = [
        float((d.sum(0) - p_EN.sum(0)).square().mean()) for d in (drawn_in_turn(p_EN, generator)[0], independent_EN)
    ]
    assert spread[0] < 0.3 < 1 < spread[1]  # at most f (1 - f), and 6 p (1 - p)


def test_balanced_draws_of_equal_probabilities_show_none_twice_before_all_once():
    for num_examples, num_kept in ((60, 30), (60, 20), (60, 15), (60, 40), (61, 30)):
        p_EN = torch.full((12, num_examples), num_kept / num_examples, dtype=torch.float64)
        drawn_EN, _ = drawn_in_turn(p_EN, stream(9, "sampling"))
        assert (drawn_EN.sum(1) == num_kept).all(), (num_examples, num_kept)
        for visits_N in drawn_EN.cumsum(0):
            assert visits_N.max() - visits_N.min() <= 1, (num_examples, num_kept)
        assert not torch.equal(drawn_EN[0], drawn_EN[num_examples // num_kept])  # each round is drawn anew


@quick
@given(problems(), st.integers(0, 2**31), st.integers(1, 8))
def test_balanced_probabilities_sum_to_k_whatever_was_drawn_before(problem, seed, epochs):
    score_N, num_kept = problem
    p_N = inclusion_probability(smooth(score_N, 0.1), num_kept)
    generator = torch.Generator().manual_seed(seed)
    surplus_N = torch.zeros(len(p_N))
    for _ in range(epochs):
        now_N = balanced(p_N, surplus_N, num_kept)
        assert now_N.min() >= 0 and now_N.max() <= 1 and float(now_N.sum()) == pytest.approx(num_kept, rel=1e-9)
        index_K = systematic_sample(now_N, generator)
        surplus_N -= p_N
        surplus_N[index_K] += 1


def test_ranked_falls_and_breaks_ties_at_random():
    score_N = torch.tensor([1.0, 5.0, 1.0, torch.inf, 1.0, 0.0])
    firsts = []
    for seed in range(900):
        order = ranked(score_N, stream(seed, "ranked")).tolist()
        assert order[:2] == [3, 1] and order[5] == 5
        firsts.append(order[2])
    counts = np.bincount(firsts, minlength=6)
    assert set(np.flatnonzero(counts)) == {0, 2, 4}
    assert counts[[0, 2, 4]].min() > 300 - 4.5 * (900 * 2 / 9) ** 0.5
    assert torch.equal(ranked(score_N, stream(1, "ranked")), ranked(score_N, stream(1, "ranked")))
