"""DRoP: the authors' algorithm for the classes' densities, and the held-out part that a network is scored on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.drop import DRoP, KeepSome, class_error, held_out
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.pruners.exchange import Survey
from tests.helpers import bench, classes_of, prepared_for


class Given(DRoP):
    """DRoP with given errors of the classes."""

    error_C = torch.tensor([0.05, 0.5, 0.3, 0.15])

    def score(self, context):
        return self.error_C[context.label_N]


def algorithm_1(size_C, recall_C, density):
    """Returns the densities by the paper's loop: the excess of full classes goes to the others."""
    density_C, open_C, excess = np.zeros(len(size_C)), np.ones(len(size_C), dtype=bool), density * size_C.sum()
    while excess > 1e-9:
        norm = (size_C * (1 - recall_C))[open_C].sum() / excess
        density_C[open_C] += (1 - recall_C[open_C]) / norm
        full_C = density_C > 1
        excess = (size_C * (density_C - 1))[full_C].sum()
        density_C[full_C], open_C = 1, open_C & ~full_C
    return density_C


def test_densities_are_those_of_the_papers_algorithm_at_every_ratio():
    sizes = np.array([60, 31, 47, 61])
    label_N = classes_of(*sizes)
    for ratio in (0.1, 0.3, 0.5, 0.7, 0.95):
        pruner = prepared_for(Given(ratio), label_N)
        density_C = algorithm_1(sizes, 1 - Given.error_C.double().numpy(), 1 - ratio)
        for epoch in range(6):
            selection = pruner.select(epoch)
            assert len(selection.index_K) == pruner.num_kept(epoch)
            assert torch.equal(selection.weight_K, torch.ones(len(selection.index_K)))
            assert set(selection.index_K.tolist()) <= set(pruner.ranked_N[: round((1 - ratio) * 199) + 1].tolist())
            found_C = label_N[selection.index_K].bincount(minlength=4).numpy()
            assert (abs(found_C - density_C * sizes) < 1.01).all(), (ratio, found_C, density_C * sizes)
    assert (density_C[:3] < 1).all() and algorithm_1(sizes, 1 - Given.error_C.numpy(), 0.7)[1] == 1, "one class is full"


def test_examples_of_a_class_are_drawn_at_random():
    label_N, taken_N = classes_of(8, 8), torch.zeros(16)
    Other = type("Other", (Given,), {"error_C": torch.tensor([0.1, 0.3])})
    for seed in range(1000):
        taken_N[prepared_for(Other(0.5), label_N, seed=seed).select(0).index_K] += 1
    expected_N = torch.tensor([250.0, 750.0])[label_N]
    assert (taken_N - expected_N).abs().max() < 4.5 * (1000 * 0.25 * 0.75) ** 0.5


def test_no_errors_at_all_mean_equal_densities():
    label_N = classes_of(30, 10, 20)
    Right = type("Right", (Given,), {"error_C": torch.zeros(3)})
    assert label_N[prepared_for(Right(0.5), label_N).select(0).index_K].bincount().tolist() == [15, 5, 10]


def test_the_held_out_part_is_a_tenth_of_each_class():
    label_N = classes_of(100, 40, 61)
    held_N = held_out(label_N, stream(0, "held"))
    assert label_N[held_N].bincount().tolist() == [10, 4, 6]
    assert not torch.equal(held_N, held_out(label_N, stream(1, "held")))
    assert int(held_out(torch.zeros(5, dtype=torch.int64), stream(0, "held")).sum()) == 1


def test_class_error_by_hand():
    label_N = torch.tensor([0, 0, 0, 1, 1, 2])
    said_N = torch.tensor([0, 1, 1, 1, 1, 2])
    held_N = torch.tensor([True, True, False, True, True, False])  # class 2 has no held-out example
    survey = Survey(torch.nn.functional.one_hot(said_N, 3).float(), label_N, torch.zeros(6))
    assert class_error(survey, held_N, 3).tolist() == [2 / 4, 1 / 4, 3 / 8]


def test_a_class_without_an_error_among_few_held_out_examples_stays_in_training():
    label_N, generator = classes_of(*[100] * 10), stream(0, "said")
    held_N = held_out(label_N, generator)
    for recall in (0.9, 1.0, 0.0):
        right_N = torch.rand(1000, generator=generator) < recall
        said_N = torch.where(right_N | (label_N == 0), label_N, (label_N + 1) % 10)  # class 0 has no error
        survey = Survey(torch.nn.functional.one_hot(said_N, 10).float(), label_N, torch.zeros(1000))
        error_C = class_error(survey, held_N, 10)
        Measured = type("Measured", (Given,), {"error_C": error_C})
        kept_C = label_N[prepared_for(Measured(0.5), label_N).select(0).index_K].bincount(minlength=10)
        assert kept_C.sum() == 500 and kept_C.min() >= 5, (recall, kept_C)


def test_the_scoring_network_never_sees_the_held_out_part():
    run = bench("drop", 0.5, set={"score_runs": 2})
    fit, surveyed = run.context.fit, []

    def spied(pruner, epochs, seed):
        assert isinstance(pruner, KeepSome)
        held_N = held_out(run.context.label_N, run.pruner.generator(2))
        assert set(pruner.index_K.tolist()) == set((~held_N).nonzero().squeeze(1).tolist())
        surveyed.append((seed, held_N))
        return fit(pruner, epochs, seed)

    run.context.fit = spied
    run.pruner.prepare(run.context)
    assert [seed for seed, _ in surveyed] == [0, 1]
    num_examples, held = len(run.pruner.score_N), int(surveyed[0][1].sum())
    assert run.context.visits == 2 * (num_examples - held + num_examples), "trained on the rest, and a pass over all"
    by_label = [run.pruner.score_N[run.context.label_N == of].unique() for of in range(10)]
    assert all(len(errors) == 1 and 0 <= float(errors) <= 1 for errors in by_label)


def test_given_scores_below_0_are_refused():
    Negative = type("Negative", (Given,), {"error_C": torch.tensor([0.1, -0.1])})
    with pytest.raises(BadInput, match="drop's scores are errors"):
        prepared_for(Negative(0.5), classes_of(4, 4))
