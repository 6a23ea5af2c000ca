"""Each kind of metric against a number made by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from sadp_bench.claims import metrics
from tests.example_records import make_record, make_spec

FULL, RANDOM = make_spec(), make_spec("random", 0.5)


def test_the_difference_of_accuracies_is_in_points_and_of_equal_data():
    full = make_record(FULL, 0.75)
    assert metrics.accuracy_difference(make_record(RANDOM, 0.5), full) == -25
    other = dataclasses.replace(full, data_sha256="1" * 64)
    assert metrics.accuracy_difference(make_record(RANDOM, 0.5), other) is None


def test_the_accuracy_is_in_percent():
    assert metrics.accuracy(make_record(RANDOM, 0.5)) == 50


def test_the_visits_saved_are_those_not_made():
    # 1,000 examples and 10 epochs are 10,000 visits of full data.
    assert metrics.visits_saved(make_record(RANDOM, examples_seen=7_000)) == pytest.approx(30)
    assert metrics.visits_saved(make_record(FULL)) == 0


def test_the_late_gain_is_that_since_two_thirds_of_the_epochs():
    rows = [{"epoch": epoch, "kept": 1000, "test_accuracy": epoch / 20} for epoch in range(9)]  # of 9: after the 6th
    record = make_record(make_spec(epochs=9), 0.5, epochs=rows)
    assert metrics.late_gain(record) == pytest.approx(100 * (0.5 - 5 / 20))
    del rows[5]["test_accuracy"]
    assert metrics.late_gain(record) is None  # it was not evaluated


def test_the_cosine_is_the_last_of_the_record():
    cosine = {"first": 0.5, "last": 0.25, "least": 0.1, "least_layer": "stem", "examples": 128}
    assert metrics.gradient_cosine(make_record(FULL, gradient_cosine=cosine)) == 0.25
    assert metrics.gradient_cosine(make_record(FULL)) is None
    assert metrics.gradient_cosine(make_record(FULL, gradient_cosine=cosine | {"last": None})) is None


def test_the_correlation_is_that_of_the_ranks():
    # Ranks 1 2 3 4 5 and 2 1 4 3 5: the squared differences sum to 4, and 1 - 6 * 4 / (5 * 24) = 0.8.
    assert metrics.score_correlation([1, 2, 3, 4, 50], [20, 1, 40, 30, 5000]) == pytest.approx(0.8)
    draw = np.random.default_rng(0)
    one, other = draw.integers(0, 5, 200), draw.normal(size=200)  # the first have ties
    assert metrics.score_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert metrics.score_correlation([1, 2, 3], [1, 2, np.inf]) == pytest.approx(1.0)  # "comes first"
    assert metrics.score_correlation([1, 1, 1], [1, 2, 3]) is None
    assert metrics.score_correlation([1, 2, 3], [1, 2]) is None


def test_never_forgotten_are_the_scores_of_0():
    scores = [0, 0, 0, 1, 2, 15, 0, 3]  # 15 presentations, never learned
    assert metrics.never_forgotten(scores) == 50
    assert metrics.never_forgotten_difference(scores, [0, 1, 1, 1]) == 25


def test_never_forgotten_of_a_real_scoring_run_counts_by_presentations():
    """Compares with the answers at each presentation, recorded while the scoring network trains."""
    import torch

    from baselines.forgetting import Forgetting, ForgettingCounter
    from tests.helpers import bench

    answers: dict[int, list[bool]] = {}
    observe = ForgettingCounter.observe

    def noting(self, seen):
        right_B = seen.logits_TBC.mean(0).argmax(1) == seen.label_B
        for index, right in zip(seen.index_B.tolist(), right_B.tolist(), strict=True):
            answers.setdefault(index, []).append(right)
        observe(self, seen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForgettingCounter, "observe", noting)
        trainer = bench("forgetting", 0.5)
        trainer.prepare()
    assert isinstance(trainer.pruner, Forgetting) and len(answers) == 101
    kept_to_it = [
        any(of) and not any(before and not after for before, after in zip(of, of[1:], strict=False))
        for of in answers.values()
    ]
    assert 0 < sum(kept_to_it) < 101
    assert metrics.never_forgotten(torch.as_tensor(trainer.pruner.score_N)) == pytest.approx(100 * np.mean(kept_to_it))
