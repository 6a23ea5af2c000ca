"""SADP's options: budgets, memory, weights, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sadp_bench.core.errors import BadInput, Diverged
from sadp_bench.core.rng import stream
from sadp_bench.pruners.sadp import SADP, limited_error_squares
from sadp_bench.runs import building
from tests.helpers import bench, in_standard_errors, prepared, seen, weighted_sums
from tests.small_runs import resolved


def observe(pruner, index_B, score_B, epoch=0):
    error_TBC = torch.stack([score_B, torch.zeros_like(score_B)], 1)[None].float()
    shown = {"features": torch.zeros(1, len(index_B), 3), "logit_errors": error_TBC}
    pruner.observe(seen(index_B, epoch=epoch, **shown))


def trained(ratio=0.3, until=None, **requested):
    run = bench("sadp", ratio, **requested)
    run.pruner.prepare(run.context)
    rows = run.rows()
    return run, [next(rows) for _ in range(until)] if until else list(rows)


BAD_VALUES = {
    "score": ("one of layers, readout, spikes, exact", ["loss", "", "Layers"]),
    "draw": ("one of independent, balanced", ["", "rs2"]),
    "smoothing": ("above 0 and at most 1", [0.0, -0.1, 1.5, math.nan, math.inf]),
    "gain_limit": ("0 (no limit) or at least 1", [-1.0, 0.5, math.nan]),
    "memory": ("at least 0 and below 1", [-0.1, 1.0, math.nan, math.inf]),
    "weight_power": ("at least 0 and at most 1", [-0.5, 1.01, math.nan]),
}


def test_a_bad_value_is_refused_in_one_line_with_the_allowed_values():
    for option, (allowed, bad) in BAD_VALUES.items():
        for value in bad:
            with pytest.raises(BadInput) as refused:
                SADP(0.3, **{option: value})
            shown = f"{value:g}" if isinstance(value, float) else value
            assert str(refused.value) == f"sadp's {option} is {allowed}, not {shown}"


BAD_SETTINGS = [
    ("memory", "nan", "is a number, not 'nan'"),
    ("smoothing", "much", "is a number, not 'much'"),
    ("calibrate", "maybe", "is true or false, not 'maybe'"),
    ("warmup", "0", "has no setting 'warmup'"),
    ("smothing", "0.1", "has no setting 'smothing'; did you mean 'smoothing'?"),
    ("score", "norm", "sadp's score is one of layers, readout, spikes, exact, not norm"),
]


def test_a_bad_setting_of_a_run_is_refused_before_it_starts():
    for option, text, message in BAD_SETTINGS:
        with pytest.raises(BadInput) as refused:
            resolved(method="sadp", ratio=0.3, set={option: text})
        assert message in str(refused.value) and "\n" not in str(refused.value)


def test_settings_of_a_run_come_as_text_and_reach_the_method():
    text = {"score": "spikes", "calibrate": "false", "memory": "0.25", "draw": "balanced"}
    text |= {"weight_power": "0.5", "smoothing": "0.4"}
    spec, _ = resolved(method="sadp", ratio=0.3, set=text)
    pruner = building.make_pruner(spec)
    assert {name: str(getattr(pruner, name)).lower() for name in text} == text


def test_what_is_watched_is_what_the_score_needs():
    readout = {"features", "logit_errors"}
    assert SADP(0.3).watch(0) == readout | {"middle_input_squares", "middle_error_squares", "bound_ratio"}
    assert SADP(0.3, calibrate=False).watch(0) == readout | {"input_squares", "error_squares"}
    for calibrate in (True, False):
        assert SADP(0.3, score="readout", calibrate=calibrate).watch(0) == readout
        assert SADP(0.3, score="spikes", calibrate=calibrate).watch(0) == {"logit_errors", "input_squares"}


def test_an_uncalibrated_score_is_the_plain_bound():
    generator = stream(0, "options")
    shown = {name: torch.rand(3, 8, generator=generator) for name in ("input_squares", "error_squares")}
    shown |= {"features": torch.zeros(2, 8, 4), "logit_errors": torch.zeros(2, 8, 5)}
    pruner = prepared(SADP(0.3, calibrate=False), 8)
    pruner.observe(seen(torch.arange(8), **shown))
    torch.testing.assert_close(pruner.score_sq_N, (shown["input_squares"] * shown["error_squares"]).sum(0))
    run, _ = trained(0.0, set={"calibrate": False})
    assert run.pruner.score_sq_N.isfinite().all() and run.pruner.score_sq_N.mean() > 0


def test_bound_ratio_is_a_ratio_of_sums_with_a_memory_and_1_for_a_silent_layer(monkeypatch):
    monkeypatch.setattr("sadp_bench.pruners.sadp.BOUND_RATIO_MEMORY", 0.5)
    shown = {"middle_input_squares": torch.tensor([[2.0], [3.0]])}
    shown |= {"middle_error_squares": torch.tensor([[5.0], [7.0]])}
    shown |= {"features": torch.zeros(1, 1, 4), "logit_errors": torch.zeros(1, 1, 5)}
    pruner, one = prepared(SADP(0.0, memory=0.0), 2), torch.tensor([0])
    pruner.observe(seen(one, bound_ratio=torch.tensor([[1.0, 0.0], [4.0, 0.0]]), **shown))
    assert pruner.score_sq_N[0] == 10 / 4 + 21
    pruner.observe(seen(one, **shown))  # a later batch of the epoch
    assert pruner.score_sq_N[0] == 10 / 4 + 21
    pruner.observe(seen(one, bound_ratio=torch.tensor([[3.0, 1.0], [4.0, 3.0]]), **shown))
    assert pruner.score_sq_N[0].item() == pytest.approx(10 * (3.5 / 6) + 21 * (1 / 3))


def test_an_errors_gain_is_limited_to_a_multiple_of_the_whole_batchs():
    # Squared errors at the logits 1, 4, 0, 5 (over two steps): 10 in all. Gains of the two layers: 20 / 10 and 40 / 10.
    logit_errors = torch.tensor(
        [[[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [1.0, 0.0]], [[0.0] * 2, [0.0] * 2, [0.0] * 2, [2.0, 0.0]]]
    )
    error_squares = torch.tensor([[9.0, 8.0, 0.5, 2.5], [1.0, 1.0, 8.0, 30.0]])
    assert limited_error_squares(error_squares, logit_errors, 4).tolist() == [[8, 8, 0, 2.5], [1, 1, 0, 30]]
    assert limited_error_squares(error_squares, logit_errors, 1).tolist() == [[2, 8, 0, 2.5], [1, 1, 0, 20]]
    assert torch.equal(limited_error_squares(error_squares, torch.zeros(1, 4, 2), 4), error_squares)


def test_bound_ratio_is_measured_in_the_first_four_epochs_and_then_every_fourth():
    measured, observe = [], SADP.observe
    run = bench("sadp", 0.3, train_examples=60, epochs=11)
    run.pruner.prepare(run.context)
    run.pruner.observe = lambda shown: (
        measured.append(shown.epoch) if "bound_ratio" in shown.watched else None,
        observe(run.pruner, shown),
    )
    list(run.rows())
    assert measured == [0, 1, 2, 3, 4, 8]


def test_memory_is_a_running_mean_of_the_squares_from_the_first_on():
    pruner = prepared(SADP(0.5, score="readout", memory=0.75), 4)
    observe(pruner, torch.tensor([0, 2]), torch.tensor([2.0, 6.0]))
    assert pruner.score_sq_N.tolist()[::2] == [4, 36] and pruner.score_sq_N[[1, 3]].isnan().all()
    observe(pruner, torch.tensor([0, 1]), torch.tensor([4.0, 3.0]))
    assert pruner.score_sq_N.tolist()[:3] == [0.75 * 4 + 0.25 * 16, 9, 36]
    observe(pruner, torch.tensor([0]), torch.tensor([0.0]))
    assert pruner.score_sq_N[0] == 0.75 * 7


quick = settings(max_examples=150, deadline=None)


@quick
@given(st.integers(1, 40), st.integers(200, 2000), st.sampled_from([0.1, 0.3, 0.5, 0.7]))
def test_budgets_save_exactly_the_ratio(num_epochs, num_examples, ratio):
    for name in ("constant", "falling", "rising"):
        pruner = prepared(SADP(ratio).with_budget(name), num_examples, num_epochs)
        kept = [pruner.num_kept(epoch) for epoch in range(num_epochs)]
        assert all(2 <= k <= num_examples for k in kept)
        budget = (1 - Fraction(str(ratio))) * num_examples * num_epochs
        assert abs(sum(kept) - budget) <= Fraction(1, 2) + Fraction(1, 10**6)
        steps = [b - a for a, b in zip(kept, kept[1:], strict=False)]
        assert all({"constant": abs(s) <= 1, "falling": s <= 1, "rising": s >= -1}[name] for s in steps)


def test_a_falling_run_keeps_most_at_first_and_a_rising_one_at_last():
    kept = {
        kind: [row["kept"] for row in trained(0.5, train_examples=200, budget=kind, set={"score": "readout"})[1]]
        for kind in ("falling", "rising", "constant")
    }
    # 137.5, 112.5, 87.5, 62.5: each epoch's middle, from 0.75 to 0.25; halves are carried on.
    assert kept == {"falling": [138, 112, 88, 62], "rising": [63, 87, 113, 137], "constant": [100] * 4}


def test_protocol_updates_needs_the_same_share_every_epoch():
    requested = {"method": "sadp", "ratio": 0.3, "protocol": "updates", "epochs": 4}
    assert SADP(0.3).fixed_size
    resolved(**requested)
    for name in ("falling", "rising"):
        assert not SADP(0.3).with_budget(name).fixed_size
        with pytest.raises(BadInput, match="--protocol updates needs"):
            resolved(**requested, budget=name)


def test_weight_power_0_gives_no_weights_and_others_mean_1_in_expectation():
    score_N = torch.rand(40, generator=stream(1, "options")) ** 3
    for power in (0.0, 0.5, 1.0):
        options = {"score": "readout", "weight_power": power}
        pruner = prepared(SADP(0.5, **options), 40, num_epochs=4000)
        observe(pruner, torch.arange(40), score_N)
        if power == 0:
            torch.testing.assert_close(pruner.select(1).weight_K, torch.ones(20))
            continue
        means_R1 = weighted_sums(pruner, torch.ones(40, 1, dtype=torch.float64), 2000)
        assert means_R1.std() > 0 and in_standard_errors(means_R1, torch.ones(1)).max() < 4
        assert abs(means_R1.mean() - 1) < 0.02


def test_without_a_score_a_balanced_draw_shows_every_example_once_before_any_twice():
    pruner = prepared(SADP(0.75, smoothing=1.0, draw="balanced"), 40, 8)
    for _ in range(2):
        shown_K = torch.cat([pruner.select(epoch).index_K for epoch in range(4)])
        assert sorted(shown_K.tolist()) == list(range(40))


def test_an_independent_draw_does_not_have_what_was_drawn_before():
    fresh, later = (prepared(SADP(0.5), 40, 8) for _ in range(2))
    for epoch in range(3):
        later.select(epoch)
    assert torch.equal(fresh.select(3).index_K, later.select(3).index_K)


def test_a_run_taken_up_from_its_state_goes_on_as_if_nothing_had_been():
    options = {"memory": 0.5, "draw": "balanced", "weight_power": 0.5, "smoothing": 0.2}
    requested = {"epochs": 5, "budget": "falling", "set": options}
    whole, rows = trained(0.4, **requested)
    half, first = trained(0.4, 2, **requested)
    other = bench("sadp", 0.4, **requested)
    other.state.load_state_dict(half.state.state_dict())
    rest = list(other.rows())
    without = {"seconds": 0, "data_seconds": 0}
    assert [row | without for row in first + rest] == [row | without for row in rows]
    for name in ("score_sq_N", "surplus_N", "bound_ratio_2L"):
        assert torch.equal(getattr(other.pruner, name), getattr(whole.pruner, name)), name
    for name, value in other.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name


@pytest.mark.parametrize("options", [{}, {"memory": 0.5}])
def test_saved_state_gives_the_same_next_selection_and_shares_no_memory(options):
    pruner = prepared(SADP(0.3, score="readout", **options), 50, seed=9)
    observe(pruner, torch.arange(0, 50, 2), torch.rand(25, generator=stream(6, "sadp")))
    other = SADP(0.3, score="readout", **options)
    other.load_state_dict(pruner.state_dict())
    for epoch in (1, 2):
        found, expected = other.select(epoch), pruner.select(epoch)
        assert torch.equal(found.index_K, expected.index_K) and torch.equal(found.weight_K, expected.weight_K)
    before = pruner.score_sq_N[0].item()
    observe(other, torch.tensor([0]), torch.tensor([50.0]))
    assert pruner.score_sq_N[0] == before != other.score_sq_N[0]


def test_scores_that_overflow_while_the_loss_is_finite_end_the_run_as_diverged_in_one_line():
    pruner = prepared(SADP(0.3, score="readout", memory=0.0), 8)
    observe(pruner, torch.tensor([2, 5]), torch.tensor([1e30, 1e30]))  # whose squares leave float32
    with pytest.raises(
        Diverged, match="^training diverged: the sadp scores of 2 examples are not finite after epoch 1"
    ):
        pruner.select(1)
