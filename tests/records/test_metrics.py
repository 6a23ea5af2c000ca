"""Every derived number against one worked by hand."""

import dataclasses

import pytest

from sadp_bench.records import comparison, metrics
from tests.example_records import ENVIRONMENT, make_record, make_spec


def test_charged_seconds_leave_evaluation_out():
    record = make_record(make_spec(), seconds={"prepare": 1.0, "select": 2.0, "train": 4.0, "evaluate": 8.0})
    assert metrics.charged_seconds(record) == 7
    assert metrics.training_seconds(record) == 6


def test_worked_example_of_a_comparison():
    # N = 1000 examples, 10 epochs, 7500 visits; full took 100 s, the run 10 s of scoring and 80 s of training.
    full = make_record(make_spec(), 0.75, 100)
    run = make_record(make_spec("el2n", 0.2), 0.73, 80, prepare=10, examples_seen=7500)
    pair = comparison.compare(run, full)
    assert pair.realised_ratio == 0.25
    assert pair.nominal_maximum == 1.25
    assert pair.ceiling == pytest.approx(4 / 3)
    assert pair.seconds == 90
    assert pair.speedup == pytest.approx(10 / 9)
    assert pair.efficiency == pytest.approx(5 / 6)
    assert pair.training_speedup == 1.25
    assert pair.training_efficiency == pytest.approx(15 / 16)
    assert pair.accuracy_difference == pytest.approx(-0.02)
    assert pair.mismatch == ()


def test_run_without_reference_has_a_ceiling_but_no_speedup():
    pair = comparison.compare(make_record(make_spec("random", 0.5)), None)
    assert pair.ceiling == 2
    assert pair.speedup is pair.efficiency is pair.training_speedup is pair.accuracy_difference is None


def test_reference_of_another_environment_serves_for_accuracy_never_for_time():
    for name in comparison.TIMED_TOGETHER:
        run = make_record(make_spec("random", 0.5), 0.6, 50, environment=ENVIRONMENT | {name: "other"})
        pair = comparison.compare(run, make_record(make_spec(), 0.7))
        assert pair.speedup is pair.efficiency is pair.training_speedup is pair.training_efficiency is None, name
        assert pair.accuracy_difference == pytest.approx(-0.1)
        assert pair.mismatch == (f"{name} {ENVIRONMENT[name]} -> other",)


def test_commit_and_dirty_tree_do_not_forbid_a_speedup():
    run = make_record(make_spec("random", 0.5), train=50, environment=ENVIRONMENT | {"commit": "f" * 40, "dirty": True})
    assert comparison.compare(run, make_record(make_spec())).speedup == 2


def test_reference_on_other_data_serves_for_nothing():
    run = make_record(make_spec("random", 0.5), data_sha256="1" * 64)
    pair = comparison.compare(run, make_record(make_spec()))
    assert pair.speedup is pair.accuracy_difference is None
    assert pair.mismatch == ("other data",)


def test_runs_are_paired_with_the_reference_of_their_own_seed():
    records = [make_record(make_spec(seed=seed), train=100 - 10 * seed) for seed in (0, 1)]
    records += [make_record(make_spec("random", 0.5, seed), train=50) for seed in (1, 0, 2)]
    speedup = {
        pair.record.spec.seed: pair.speedup
        for pair in comparison.paired(records)
        if pair.record.spec.method == "random"
    }
    assert speedup == {0: 2.0, 1: 1.8, 2: None}


def test_reference_with_other_settings_is_no_reference():
    for changed in ({"epochs": 11}, {"timesteps": 8}, {"threads": 2}, {"backbone_options": {"width": 64}}):
        [_, pair] = comparison.paired([make_record(make_spec()), make_record(make_spec("random", 0.5, **changed))])
        assert pair.reference is None, changed


def test_equal_updates_have_nominal_maximum_1_and_the_reference_of_equal_epochs():
    spec = make_spec("random", 0.75, protocol="updates")
    run = make_record(spec, train=125, examples_seen=10_000)
    # The last epoch ends with the updates: its size is not the subset's.
    epochs = [{**row, "kept": kept} for row, kept in zip(run.epochs, [250, 250, 10], strict=False)]
    [pair] = [p for p in comparison.paired([make_record(make_spec()), dataclasses.replace(run, epochs=epochs)])][1:]
    assert (pair.nominal_maximum, pair.ceiling, pair.realised_ratio) == (1, 1, 0.75)
    assert pair.speedup == 0.8


def test_summary_is_mean_and_sample_standard_deviation():
    assert metrics.summary([1.0, None, 2.0, 3.0]) == metrics.Summary(mean=2.0, spread=1.0, n=3)
    assert metrics.summary([0.5]) == metrics.Summary(mean=0.5, spread=None, n=1)
    assert metrics.summary([None]) is None


def timed(spec, accuracies, seconds, prepare=0.0, **changed):
    """Returns a run whose epochs took so long. An epoch with an accuracy was evaluated."""
    rows = [
        {"epoch": epoch, "kept": 1, "seconds": spent} | ({} if shown is None else {"test_accuracy": shown})
        for epoch, (shown, spent) in enumerate(zip(accuracies, seconds, strict=True))
    ]
    return make_record(spec, accuracies[-1], sum(seconds), prepare=prepare, epochs=rows, **changed)


def test_time_to_accuracy_equals_hand_worked_seconds():
    full = timed(make_spec(), [0.5, 0.695, None, 0.70], [10, 10, 10, 10])
    run = timed(make_spec("el2n", 0.5), [0.6, None, 0.69, 0.71], [4, 5, 6, 7], prepare=3)
    # full ends at 0.70 and first shows 0.69 after its second epoch; the run after its third
    pair = comparison.compare(run, full)
    assert (pair.seconds_to_accuracy, pair.share_to_accuracy) == (3 + 4 + 5 + 6, 18 / 20)
    own = comparison.compare(full, full)
    assert (own.seconds_to_accuracy, own.share_to_accuracy) == (20, 1)


def test_time_to_accuracy_of_a_run_that_never_gets_there_is_none():
    full = timed(make_spec(), [0.5, 0.7], [10, 10])
    pair = comparison.compare(timed(make_spec("random", 0.5), [0.6, 0.68], [5, 5]), full)
    assert pair.speedup == 2
    assert pair.seconds_to_accuracy is pair.share_to_accuracy is None


def test_time_to_accuracy_requests_for_a_reference_that_was_timed_alike():
    full, spec = timed(make_spec(), [0.5, 0.7], [10, 10]), make_spec("random", 0.5)
    assert comparison.compare(timed(spec, [0.7, 0.7], [5, 5]), None).seconds_to_accuracy is None
    for changed in ({"environment": ENVIRONMENT | {"threads": 2}}, {"data_sha256": "1" * 64}):
        assert comparison.compare(timed(spec, [0.7, 0.7], [5, 5], **changed), full).seconds_to_accuracy is None


def test_accuracy_at_the_goal_itself_counts_as_reached():
    # 0.6291 - 0.01 is a little above 0.6191 in binary
    assert metrics.seconds_to_accuracy(timed(make_spec(), [0.6191, 0.2], [1, 1]), 0.6291 - 0.01) == 1


def test_last_epoch_shows_the_final_accuracy_even_where_its_row_does_not():
    record = timed(make_spec(), [None, 0.7], [1, 2])
    bare = dataclasses.replace(record, epochs=[{"kept": 1, "seconds": 1}, {"kept": 1, "seconds": 2}])
    assert metrics.seconds_to_accuracy(bare, 0.7) == 3
    assert metrics.seconds_to_accuracy(dataclasses.replace(record, epochs=[{"kept": 1}] * 2), 0.7) is None
