"""RCAP: the classes' shares from their losses, and the draw within a class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from baselines.rcap import RCAP, with_every_class
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from tests.helpers import classes_of, prepared_for, seen
from tests.pruners.test_by_class import webster

SIZES = (60, 31, 20)


def test_shares_follow_the_class_losses_over_epochs():
    label_N = classes_of(*SIZES)
    for class_loss, ratio in (("mean", 0.3), ("mean", 0.7), ("kept", 0.5)):
        pruner = prepared_for(RCAP(ratio, class_loss=class_loss), label_N)
        label, size_C = label_N.numpy(), np.array(SIZES)
        loss_N, kept = np.full(111, math.log(3)), np.arange(111)
        for epoch in range(5):
            if class_loss == "mean":
                of_C = np.array([loss_N[label == c].mean() for c in range(3)])
            else:
                softmax_N = np.exp((loss_N - 1) / 0.25)
                for c in range(3):
                    softmax_N[label == c] /= softmax_N[label == c].sum()
                of_C = np.array([softmax_N[kept][label[kept] == c].sum() for c in range(3)])
            expected = webster(np.sqrt(of_C * size_C / 111), size_C, pruner.num_kept(epoch))
            selection = pruner.select(epoch)
            kept = selection.index_K.numpy()
            assert len(set(kept.tolist())) == len(kept) == pruner.num_kept(epoch)
            assert torch.equal(selection.weight_K, torch.ones(len(kept)))
            assert np.bincount(label[kept], minlength=3).tolist() == expected.tolist(), (class_loss, epoch)
            draw_N = torch.rand(111, generator=stream(epoch, "losses")).numpy() * [0.5, 3, 1][epoch % 3] * (1 + label)
            pruner.observe(seen(selection.index_K, loss_B=torch.from_numpy(draw_N[kept]).float()))
            loss_N[kept] = np.minimum(draw_N[kept].astype(np.float32), math.log(3))


def test_the_first_epoch_has_shares_of_the_square_root_of_the_sizes():
    label_N = classes_of(100, 25)
    for class_loss in ("mean", "kept"):
        index_K = prepared_for(RCAP(0.76, class_loss=class_loss), label_N).select(0).index_K
        assert label_N[index_K].bincount().tolist() == [20, 10]


def test_no_class_is_lost_for_good():
    for class_loss, num_classes, ratio, num_examples in (
        ("mean", 10, 0.7, 200), ("kept", 10, 0.7, 200), ("kept", 20, 0.85, 100)
    ):  # fmt: skip
        label_N = torch.arange(num_examples) % num_classes
        pruner, visits_C = prepared_for(RCAP(ratio, class_loss=class_loss), label_N, 40), torch.zeros(num_classes)
        for epoch in range(40):
            index_K = pruner.select(epoch).index_K
            counts_C = label_N[index_K].bincount(minlength=num_classes)
            assert len(index_K.unique()) == len(index_K) == pruner.num_kept(epoch)
            assert len(index_K) < num_classes or counts_C.min() >= 1, (class_loss, num_classes, epoch, counts_C)
            visits_C += (counts_C > 0) * (epoch >= 20)
            loss_B = (0.001 + 0.4 * (label_N[index_K] % 2)) * torch.rand(
                len(index_K), generator=stream(epoch, "losses")
            )
            pruner.observe(seen(index_K, loss_B=loss_B))
        assert visits_C.min() >= 1, (class_loss, num_classes, visits_C)


def test_every_class_has_its_first_example_and_full_starts_stay():
    label_N = torch.tensor([0, 0, 0, 1, 3, 1, 0, 3])
    order_N = torch.tensor([2, 0, 1, 3, 6, 5, 7, 4])  # classes 0 0 0 1 0 1 3 3
    for num_kept, expected in ((4, [2, 0, 3, 7]), (3, [2, 3, 7]), (2, [2, 3]), (7, [2, 0, 1, 3, 6, 5, 7])):
        assert with_every_class(order_N, label_N, num_kept).tolist() == expected


def test_draws_within_a_class_are_successive_and_proportional_to_the_exponential():
    loss_N, beta, count_N = torch.tensor([0.1, 0.3, 0.5, 0.6]), 0.25, torch.zeros(4)
    for seed in range(1200):
        pruner = prepared_for(RCAP(0.5, beta=beta), torch.tensor([0, 0, 0, 0]), seed=seed)
        pruner.observe(seen(torch.arange(4), loss_B=loss_N))
        count_N[pruner.select(0).index_K] += 1
    p = np.exp(loss_N.numpy() / beta)
    p /= p.sum()
    expected = [p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i) for i in range(4)]
    error = np.sqrt(1200 * np.array(expected) * (1 - np.array(expected)))
    assert (abs(count_N.numpy() - 1200 * np.array(expected)) < 4.5 * error).all(), (count_N, expected)


def test_a_full_class_leaves_its_share_to_the_others():
    label_N = classes_of(10, 50, 51)
    pruner = prepared_for(RCAP(0.5), label_N)
    pruner.observe(seen(torch.arange(111), loss_B=torch.where(label_N == 0, 1.0, 0.01)))
    counts = label_N[pruner.select(1).index_K].bincount().tolist()
    assert counts[0] == 10 and sum(counts) == pruner.num_kept(1) and abs(counts[1] - counts[2]) <= 1


def test_settings_out_of_range_are_refused():
    for settings, message in (
        ({"beta": 0.0}, "rcap's beta is above 0 and finite, not 0"),
        ({"beta": math.inf}, "rcap's beta is above 0 and finite, not inf"),
        ({"class_loss": "sum"}, "rcap's class_loss is one of mean, kept, not 'sum'"),
    ):
        with pytest.raises(BadInput, match=message):
            RCAP(0.5, **settings)
