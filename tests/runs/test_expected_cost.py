"""Visits that a run is expected to make, and what a visit cost in records."""

import dataclasses

import pytest

from sadp_bench.runs import expected_cost
from sadp_bench.runs.expected_cost import expected_visits, seconds_per_visit, shape
from tests.example_records import make_record, make_spec


@pytest.fixture(autouse=True)
def evaluation_costs_half(monkeypatch):
    monkeypatch.setattr(expected_cost, "EVALUATION_COST", 0.5)


def test_a_shape_with_records_is_estimated_from_their_seconds_and_visits():
    slow = make_record(make_spec(), train=100.0, examples_seen=10_000)  # 1,000 s of evaluation, on 100 examples
    slow = dataclasses.replace(slow, fitted_examples=200)
    fast = make_record(make_spec("el2n", 0.5), train=300.0, prepare=40.0, examples_seen=5_000, prepare_examples=1_000)
    for number, row in enumerate(fast.epochs):
        row.update({"test_accuracy": 0.5} if number % 2 else {})
    other = make_record(make_spec(batch_size=32), train=1.0)
    rates = seconds_per_visit([slow, fast, other])
    expected = (1100 / (10_000 + 50 + 100) + 1340 / (6_000 + 6 * 50)) / 2
    assert rates[shape(make_spec("random", 0.7, epochs=3))] == pytest.approx(expected)
    assert shape(make_spec(threads=2)) not in rates and len(rates) == 2


def test_visits_are_those_of_training_preparation_and_evaluation():
    fitted = 500  # the trained network passes over its 1,000 training images once
    assert expected_visits(make_spec(), 0) == 10_000 + fitted
    assert expected_visits(make_spec("random", 0.7), 0) == pytest.approx(3_000 + fitted)
    assert expected_visits(make_spec("random", 0.7, protocol="updates"), 0) == 10_000 + fitted
    assert expected_visits(make_spec("random", 0.7, evaluate_every=3), 100) == pytest.approx(3_000 + 5 * 50 + fitted)
    assert expected_visits(make_spec("el2n", 0.5), 0, 2.5) == 7_500 + fitted
    assert expected_visits(make_spec(train_examples=50_000), 0) == 500_000 + 5_000
