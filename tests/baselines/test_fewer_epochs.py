"""Fewer epochs: a share of the run's epochs on all data, with a schedule of that length."""

from __future__ import annotations

import math
from itertools import product

import pytest

from baselines.fewer_epochs import FewerEpochs
from sadp_bench.training.optimizer import learning_rate
from tests.helpers import Updates, bench, prepared


def run(ratio, **requested):
    """Returns the rows, and the learning rate and size of every batch."""
    steps = []

    class Steps(Updates):
        def advance(self, visits):
            steps.append((made.state.optimizer.param_groups[0]["lr"], visits))

    made = bench("fewer-epochs", ratio, Steps(), **requested)
    made.pruner.prepare(made.context)
    return made, list(made.rows()), steps


def test_last_epoch_is_partial_and_the_visits_are_the_budget():
    _, rows, _ = run(0.3, epochs=3)
    assert [row["kept"] for row in rows] == [101, 101, 10]  # 0.7 x 3 = 2.1 epochs
    assert all(row["mean_weight"] == 1 for row in rows)


def test_no_epoch_is_added_by_rounding():
    assert (1 - 0.7) * 10 > 3  # in floating point
    for ratio, epochs, expected in ((0.7, 10, [101] * 3), (0.5, 4, [101] * 2), (0.333, 3, [101] * 2)):
        _, rows, _ = run(ratio, epochs=epochs)
        assert [row["kept"] for row in rows] == expected


def test_length_is_the_budget_to_half_an_example():
    grid = product([7, 101, 1437, 1_281_167], [0.1, 1 / 3, 0.5, 0.7, 0.9], [1, 3, 10, 200])
    for num_examples, ratio, epochs in grid:
        length = prepared(FewerEpochs(ratio), num_examples).run_epochs(epochs)
        assert abs(length - (1 - ratio) * epochs) * num_examples <= 0.5 + 1e-6, (num_examples, ratio, epochs)
        last = (length - math.floor(length)) * num_examples
        assert abs(last - round(last)) < 1e-6 * num_examples**0.5


def test_whole_cosine_schedule_is_squeezed_in():
    made, _, steps = run(0.3, epochs=3)
    rate, shown, total = made.spec.learning_rate, 0, 212
    assert sum(visits for _, visits in steps) == total
    for found, visits in steps:
        expected = rate / 2 * (1 + math.cos(math.pi * shown / total))
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-6)
        assert learning_rate(made.spec, shown / total) == pytest.approx(expected, rel=1e-12)
        shown += visits
    assert steps[0][0] == rate
    assert steps[-1][0] < 0.01 * rate


def test_constant_schedule_stays():
    _, _, steps = run(0.5, epochs=2, schedule="constant")
    assert {rate for rate, _ in steps} == {0.1}
