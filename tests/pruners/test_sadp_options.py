"""SADP's options: schedules, warm-up, memory, weights, refresh, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import mean_loss
from sadp_bench.core.rng import stream
from sadp_bench.pruners.sadp import SADP, limited_error_squares
from sadp_bench.runs import resolve
from sadp_bench.training import loop
from tests.helpers import bench, in_standard_errors, prepared, seen, weighted_sums
from tests.small_runs import hooks_of, resolved, weights_of


def observe(pruner, index_B, score_B, epoch=0):
    error_TBC = torch.stack([score_B, torch.zeros_like(score_B)], 1)[None].float()
    shown = {"features": torch.zeros(1, len(index_B), 3), "logit_errors": error_TBC}
    pruner.observe(seen(index_B, epoch=epoch, **shown))


def trained(ratio=0.3, until=None, **asked):
    run = bench("sadp", ratio, **asked)
    run.pruner.prepare(run.context)
    rows = run.rows()
    return run, [next(rows) for _ in range(until)] if until else list(rows)


@pytest.mark.parametrize(
    ("option", "allowed", "bad"),
    [
        ("score", "one of layers, readout, spikes", ["loss", "", "Layers"]),
        ("draw", "one of balanced, independent", ["", "rs2"]),
        ("schedule", "one of constant, falling, rising", ["linear", ""]),
        ("smoothing", "above 0 and at most 1", [0.0, -0.1, 1.5, math.nan, math.inf]),
        ("gain_limit", "0 (no limit) or at least 1", [-1.0, 0.5, math.nan]),
        ("memory", "at least 0 and below 1", [-0.1, 1.0, math.nan, math.inf]),
        ("warmup", "at least 0 and below 1", [-0.1, 1.0, math.nan]),
        ("weight_power", "at least 0 and at most 1", [-0.5, 1.01, math.nan]),
        ("refresh", "at least 0 epochs", [-1, math.nan]),
        ("refresh_share", "above 0 and at most 1", [0.0, 1.5, -1.0, math.nan]),
    ],
)
def test_a_bad_value_is_refused_in_one_line_with_what_is_allowed(option, allowed, bad):
    for value in bad:
        with pytest.raises(BadInput) as refused:
            SADP(0.3, **{option: value})
        shown = f"{value:g}" if isinstance(value, float) else value
        assert str(refused.value) == f"sadp's {option} is {allowed}, not {shown}"


@pytest.mark.parametrize(
    ("option", "text", "says"),
    [
        ("memory", "nan", "is a number, not 'nan'"),
        ("smoothing", "much", "is a number, not 'much'"),
        ("refresh", "1.5", "is a whole number, not '1.5'"),
        ("calibrate", "maybe", "is true or false, not 'maybe'"),
        ("warmup", "inf", "is a number, not 'inf'"),
        ("smothing", "0.1", "has no setting 'smothing'; did you mean 'smoothing'?"),
        ("score", "norm", "sadp's score is one of layers, readout, spikes, not norm"),
    ],
)
def test_a_bad_setting_of_a_run_is_refused_before_it_starts(option, text, says):
    with pytest.raises(BadInput) as refused:
        resolved(method="sadp", ratio=0.3, set={option: text})
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_settings_of_a_run_come_as_text_and_reach_the_method():
    text = {"score": "spikes", "calibrate": "false", "memory": "0.25", "schedule": "rising", "warmup": "0.1"}
    text |= {"weight_power": "0.5", "refresh": "3", "refresh_share": "0.2", "smoothing": "0.4"}
    spec, _ = resolved(method="sadp", ratio=0.3, set=text)
    pruner = resolve.make_pruner(spec)
    assert {name: str(getattr(pruner, name)).lower() for name in text} == text


def test_what_is_watched_is_what_the_score_needs():
    readout = {"features", "logit_errors"}
    assert SADP(0.3).watch == readout | {"middle_input_squares", "middle_error_squares", "bound_ratio"}
    assert SADP(0.3, calibrate=False).watch == readout | {"input_squares", "error_squares"}
    for calibrate in (True, False):
        assert SADP(0.3, score="readout", calibrate=calibrate).watch == readout
        assert SADP(0.3, score="spikes", calibrate=calibrate).watch == {"logit_errors", "input_squares"}


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
    monkeypatch.setattr("sadp_bench.pruners.sadp.MEMORY_OF_BOUND_RATIO", 0.5)
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
    shown = {"logit_errors": logit_errors, "error_squares": error_squares}
    assert limited_error_squares(shown, 4).tolist() == [[8, 8, 0, 2.5], [1, 1, 0, 30]]
    assert limited_error_squares(shown, 1).tolist() == [[2, 8, 0, 2.5], [1, 1, 0, 20]]
    silent = {"logit_errors": torch.zeros(1, 4, 2), "error_squares": error_squares}
    assert torch.equal(limited_error_squares(silent, 4), error_squares)


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
    pruner = prepared(SADP(0.5, score="readout", memory=0.75, schedule="constant"), 4)
    observe(pruner, torch.tensor([0, 2]), torch.tensor([2.0, 6.0]))
    assert pruner.score_sq_N.tolist()[::2] == [4, 36] and pruner.score_sq_N[[1, 3]].isnan().all()
    observe(pruner, torch.tensor([0, 1]), torch.tensor([4.0, 3.0]))
    assert pruner.score_sq_N.tolist()[:3] == [0.75 * 4 + 0.25 * 16, 9, 36]
    observe(pruner, torch.tensor([0]), torch.tensor([0.0]))
    assert pruner.score_sq_N[0] == 0.75 * 7


quick = settings(max_examples=150, deadline=None)


@quick
@given(
    st.integers(1, 40),
    st.integers(200, 2000),
    st.sampled_from([0.1, 0.3, 0.5, 0.7]),
    st.sampled_from([0, 0.05, 0.2, 0.4, 0.9]),
)
def test_schedules_and_warm_up_save_exactly_the_budget_or_are_refused(num_epochs, num_examples, ratio, warmup):
    for schedule in ("constant", "falling", "rising"):
        pruner = SADP(ratio, schedule=schedule, warmup=warmup)
        warm = round(warmup * num_epochs)
        if Fraction(str(ratio)) * num_epochs >= num_epochs - warm:
            with pytest.raises(
                BadInput, match=f"^sadp with warmup={warmup:g} can't save {ratio:g} of the visits .*: lower"
            ):
                pruner.check(num_epochs)
            continue
        pruner.check(num_epochs)
        prepared(pruner, num_examples, num_epochs)
        kept = [pruner.num_kept(epoch) for epoch in range(num_epochs)]
        assert kept[:warm] == [num_examples] * warm
        assert all(2 <= k <= num_examples for k in kept)
        assert abs(sum(kept) - (1 - Fraction(str(ratio))) * num_examples * num_epochs) <= Fraction(1, 2) + Fraction(
            1, 10**6
        )
        steps = [b - a for a, b in zip(kept[warm:], kept[warm + 1 :], strict=False)]
        assert all({"constant": abs(s) <= 1, "falling": s <= 1, "rising": s >= -1}[schedule] for s in steps)


def test_a_falling_run_keeps_most_at_first_and_a_rising_one_at_last():
    kept = {
        kind: [row["kept"] for row in trained(0.5, train_examples=200, set={"schedule": kind, "score": "readout"})[1]]
        for kind in ("falling", "rising", "constant")
    }
    # 137.5, 112.5, 87.5, 62.5: each epoch's middle, from 0.75 to 0.25; halves are carried on.
    assert kept == {"falling": [138, 112, 88, 62], "rising": [63, 87, 113, 137], "constant": [100] * 4}


def test_a_warm_up_shows_everything_with_weight_1_and_then_saves_more():
    _, rows = trained(0.4, epochs=8, train_examples=100, set={"warmup": 0.25, "schedule": "constant"})
    assert [row["kept"] for row in rows[:2]] == [100, 100] and [row["mean_weight"] for row in rows[:2]] == [1, 1]
    assert sum(row["kept"] for row in rows) == 480 and max(row["kept"] for row in rows[2:]) <= 47


@pytest.mark.parametrize(("ratio", "warmup"), [(0.5, 0.5), (0.1, 0.95), (0.9, 0.2)])
def test_a_run_whose_warm_up_leaves_too_little_is_refused_before_it_starts(ratio, warmup):
    with pytest.raises(BadInput, match="lower warmup or --ratio$"):
        resolved(method="sadp", ratio=ratio, epochs=20, train_examples=500, set={"warmup": warmup})


def test_a_run_whose_epochs_would_be_left_without_examples_is_refused():
    run = bench("sadp", 0.5, epochs=51, train_examples=40, set={"warmup": 0.49, "schedule": "constant"})
    with pytest.raises(BadInput, match="leave an epoch 0.8 examples: lower warmup or --ratio$"):
        run.pruner.prepare(run.context)


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"schedule": "constant"}, True),
        ({}, False),
        ({"schedule": "rising"}, False),
        ({"schedule": "constant", "warmup": 0.3}, False),
    ],
)
def test_protocol_updates_needs_the_same_share_every_epoch(options, fits):
    asked = {"method": "sadp", "ratio": 0.3, "protocol": "updates", "epochs": 4, "set": options}
    assert SADP(0.3, **options).fixed_size == fits
    if fits:
        resolved(**asked)
    else:
        with pytest.raises(BadInput, match="--protocol updates needs"):
            resolved(**asked)


def test_weight_power_0_gives_no_weights_and_others_mean_1_in_expectation():
    score_N = torch.rand(40, generator=stream(1, "options")) ** 3
    for power in (0.0, 0.5, 1.0):
        options = {"score": "readout", "weight_power": power, "schedule": "constant", "draw": "independent"}
        pruner = prepared(SADP(0.5, **options), 40, num_epochs=4000)
        observe(pruner, torch.arange(40), score_N)
        if power == 0:
            torch.testing.assert_close(pruner.select(1).weight_K, torch.ones(20))
            continue
        means_R1 = weighted_sums(pruner, torch.ones(40, 1, dtype=torch.float64), 2000)
        assert means_R1.std() > 0 and in_standard_errors(means_R1, torch.ones(1)).max() < 4
        assert abs(means_R1.mean() - 1) < 0.02


def test_without_a_score_every_example_is_shown_once_before_any_is_twice():
    pruner = prepared(SADP(0.75, smoothing=1.0, schedule="constant"), 40, 8)
    for _ in range(2):
        shown_K = torch.cat([pruner.select(epoch).index_K for epoch in range(4)])
        assert sorted(shown_K.tolist()) == list(range(40))


def test_an_independent_draw_does_not_know_what_was_drawn_before():
    fresh, later = (prepared(SADP(0.5, draw="independent", schedule="constant"), 40, 8) for _ in range(2))
    for epoch in range(3):
        later.select(epoch)
    assert torch.equal(fresh.select(3).index_K, later.select(3).index_K)


def test_a_refresh_asks_for_those_scored_longest_ago():
    pruner = prepared(SADP(0.5, score="readout", refresh=3, refresh_share=0.3), 10)
    for epoch, visited in ((0, [0, 1, 2, 3, 4, 5]), (1, [2, 0, 8]), (2, [9, 5])):
        observe(pruner, torch.tensor(visited), torch.ones(len(visited)), epoch)
    # Last seen: 6, 7 never; 1, 3, 4 in epoch 0; 0, 2, 8 in 1; 5, 9 in 2.
    assert pruner.to_survey(3).tolist() == [6, 7, 1]
    assert [epoch for epoch in range(10) if pruner.to_survey(epoch) is not None] == [3, 6, 9]
    observe(pruner, torch.tensor([6, 7, 1]), torch.ones(3), 3)
    assert pruner.to_survey(6).tolist() == [3, 4, 0]
    pruner.refresh_share = 0.01
    assert pruner.to_survey(6).tolist() == [3], "at least one"
    pruner.refresh = 0
    assert all(pruner.to_survey(epoch) is None for epoch in range(10))


def survey(run, epoch):
    backprop = loop.backprop_of(run.spec, run.model, run.data)
    return loop.survey_for(run.pruner, backprop, run.data, run.spec, epoch, stream(0, "steps", epoch))


def test_a_refresh_scores_in_evaluation_mode_without_augmentation_and_leaves_no_trace():
    options = {"refresh": 2, "score": "readout", "memory": 0.0}
    run, _ = trained(0.3, 2, augment="crop", precision="fp64", epochs=5, set=options)
    model, pruner = run.model, run.pruner
    wanted = pruner.to_survey(2)
    assert len(wanted) == 10
    before, state = weights_of(model), torch.get_rng_state()
    modes, batches, look = [], [], pruner.observe
    pruner.observe = lambda shown: modes.append(model.training) or batches.append(shown) or look(shown)
    old_N, rows = pruner.score_sq_N.clone(), len(run.training.rows)
    assert survey(run, 2) == 10
    assert modes == [False] and batches[0].epoch == 2
    assert torch.cat([shown.index_B for shown in batches]).tolist() == wanted.tolist()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state) and hooks_of(model) == 0 and len(run.training.rows) == rows
    model.eval()
    for i in wanted.tolist():
        loss = mean_loss(model(run.data.input(torch.tensor([i]))), run.data.label_N[i : i + 1]).sum()
        own = torch.autograd.grad(loss, list(model.readout.parameters()))
        assert pruner.score_sq_N[i].item() == pytest.approx(sum(float(g.square().sum()) for g in own), rel=1e-5)
    others = torch.ones(101, dtype=torch.bool)
    others[wanted] = False
    assert torch.equal(pruner.score_sq_N[others], old_N[others]) and not torch.equal(pruner.score_sq_N, old_N)


def test_a_refresh_bigger_than_a_batch_comes_in_batches_of_its_size_at_most():
    run, _ = trained(0.3, 1, set={"refresh": 1, "refresh_share": 0.5})
    sizes, look = [], run.pruner.observe
    run.pruner.observe = lambda shown: sizes.append(len(shown.index_B)) or look(shown)
    assert survey(run, 1) == 50
    assert sizes == [17, 17, 16]


def test_a_refresh_is_charged_and_counted_apart_from_the_budget():
    asked = {"epochs": 5, "evaluate_every": 5, "set": {"refresh": 2, "refresh_share": 0.25}}
    run = bench("sadp", 0.4, **asked)
    phases, look = [], run.pruner.observe
    run.pruner.observe = lambda shown: phases.append((shown.epoch, run.clock._phase)) or look(shown)
    record = run.run()
    assert [row.get("surveyed", 0) for row in record.epochs] == [0, 0, 25, 0, 25]
    assert record.prepare_examples == 50 and record.examples_seen == 303 == sum(row["kept"] for row in record.epochs)
    assert phases.count((2, "select")) == phases.count((4, "select")) == 2
    assert {phase for _, phase in phases} == {"select", "train"}
    plain = bench("sadp", 0.4, **asked | {"set": {}}).run()
    assert plain.prepare_examples == 0 and plain.examples_seen == 303
    assert not any("surveyed" in row for row in plain.epochs)


def test_a_run_taken_up_from_its_state_goes_on_as_if_nothing_had_been():
    options = {"memory": 0.5, "refresh": 1, "schedule": "falling", "weight_power": 0.5, "smoothing": 0.2}
    whole, rows = trained(0.4, epochs=5, set=options)
    half, first = trained(0.4, 2, epochs=5, set=options)
    other = bench("sadp", 0.4, epochs=5, set=options)
    other.training.load_state_dict(half.training.state_dict())
    rest = list(other.rows())
    assert [{**row, "seconds": 0} for row in first + rest] == [{**row, "seconds": 0} for row in rows]
    for name in ("score_sq_N", "visit_N", "surplus_N", "bound_ratio_2L"):
        assert torch.equal(getattr(other.pruner, name), getattr(whole.pruner, name)), name
    for name, value in other.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name


@pytest.mark.parametrize("options", [{}, {"memory": 0.5, "refresh": 1}])
def test_saved_state_gives_the_same_next_selection_and_shares_no_memory(options):
    pruner = prepared(SADP(0.3, score="readout", **options), 50, seed=9)
    observe(pruner, torch.arange(0, 50, 2), torch.rand(25, generator=stream(6, "sadp")))
    other = SADP(0.3, score="readout", **options)
    other.load_state_dict(pruner.state_dict())
    for epoch in (1, 2):
        found, expected = other.select(epoch), pruner.select(epoch)
        assert torch.equal(found.index_K, expected.index_K) and torch.equal(found.weight_K, expected.weight_K)
        assert str(other.to_survey(epoch)) == str(pruner.to_survey(epoch))
    before = pruner.score_sq_N[0].item()
    observe(other, torch.tensor([0]), torch.tensor([50.0]))
    assert pruner.score_sq_N[0] == before != other.score_sq_N[0]
