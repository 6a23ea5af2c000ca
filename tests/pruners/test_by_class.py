"""Counts by class: Webster's method, full classes, classes of weight 0."""

from __future__ import annotations

import numpy as np
import torch

from sadp_bench.core.rng import stream
from sadp_bench.pruners.sampling import by_class
from tests.helpers import classes_of

SIZES = (40, 7, 25, 0, 31)


def webster(weight_C, size_C, num_seats):
    """Gives each seat in turn to the class, not yet full, with the highest weight / (2 seats + 1)."""
    seats_C = np.zeros(len(size_C), dtype=int)
    for _ in range(num_seats):
        quotient_C = np.where(seats_C < size_C, weight_C / (2 * seats_C + 1), -1)
        seats_C[quotient_C.argmax()] += 1
    return seats_C


def test_every_start_has_websters_counts():
    label_N = classes_of(*SIZES)
    for weights in ((0.3, 0.21, 0.017, 0.5, 0.11), (0.001, 0.9, 0.37, 0.2, 0.93)):
        order_N = by_class(torch.arange(len(label_N)), label_N, torch.tensor(weights))
        assert order_N.sort().values.equal(torch.arange(103))
        for num_kept in range(1, 104):
            found_C = label_N[order_N[:num_kept]].bincount(minlength=5).tolist()
            assert found_C == webster(np.array(weights), np.array(SIZES), num_kept).tolist(), (weights, num_kept)


def test_counts_are_the_water_filling_within_one():
    label_N, size_C = classes_of(*SIZES), np.array(SIZES)
    weight_C = np.array([3.0, 20.0, 1.0, 1.0, 5.0])
    order_N = by_class(torch.arange(len(label_N)), label_N, torch.from_numpy(weight_C))
    for num_kept in (10, 31, 60, 90, 103):
        low, high = 0.0, 1e6
        for _ in range(200):
            level = (low + high) / 2
            low, high = (level, high) if np.minimum(size_C, level * weight_C).sum() < num_kept else (low, level)
        exact_C = np.minimum(size_C, high * weight_C)
        found_C = label_N[order_N[:num_kept]].bincount(minlength=5).numpy()
        assert (abs(found_C - exact_C) < 1).all(), (num_kept, found_C, exact_C)


def test_classes_of_weight_0_come_last_in_proportion_to_their_sizes():
    label_N = classes_of(20, 10, 40)
    order_N = by_class(torch.arange(70), label_N, torch.tensor([0.0, 1.0, 0.0]))
    assert label_N[order_N[:10]].tolist() == [1] * 10
    assert label_N[order_N[:40]].bincount().tolist() == [10, 10, 20]
    order_N = by_class(torch.arange(70), label_N, torch.zeros(3))
    assert label_N[order_N[:35]].bincount().tolist() == [10, 5, 20]


def test_a_class_and_equal_places_keep_the_given_order():
    label_N = classes_of(9, 9, 9)
    rank_N = torch.randperm(27, generator=stream(0, "rank"))
    order_N = by_class(rank_N, label_N, torch.ones(3))
    for of in range(3):
        assert order_N[label_N[order_N] == of].equal(rank_N[label_N[rank_N] == of])
    first = {of: rank_N.tolist().index(int(rank_N[label_N[rank_N] == of][0])) for of in range(3)}
    assert label_N[order_N[:3]].tolist() == sorted(first, key=first.__getitem__)
