"""The PQ index, the bound on the weights to keep, and the share to rewire, against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sadp_bench.core.rng import stream
from sadp_bench.sparsity.base import prunable
from sadp_bench.sparsity.pq import keep_bound, pq_index, rewiring_share
from tests.sparsity.helpers import Tiny
from tests.sparsity.pq_in_numpy import index_in_numpy

SHAPES = {name: tuple(weight.shape) for name, weight in prunable(Tiny(1)).items()}
TOTAL = sum(map(math.prod, SHAPES.values()))
ORDERS = [(0.5, 1.0), (1.0, 2.0), (0.3, 1.7)]


def test_pq_index_equals_the_formula_in_plain_numpy():
    for p, q in ORDERS:
        w = torch.randn(200, generator=stream(0, "w")).double()
        assert float(pq_index(w, p, q)) == pytest.approx(index_in_numpy(w.numpy(), p, q), rel=1e-9)
        weight_GM, live_GM = w.view(4, 50), torch.rand(4, 50, generator=stream(0, "live")) < 0.6
        expected = [index_in_numpy(w[live].numpy(), p, q) for w, live in zip(weight_GM, live_GM, strict=True)]
        np.testing.assert_allclose(pq_index(weight_GM, p, q, live_GM), expected, rtol=1e-9)


def test_pq_index_is_0_of_a_constant_and_largest_of_a_single_weight():
    for p, q in ORDERS:
        assert float(pq_index(torch.tensor([3.0, -3.0, 3.0]), p, q)) == pytest.approx(0, abs=1e-12)
        single = torch.zeros(40).index_fill_(0, torch.tensor([7]), -2.0)
        assert float(pq_index(single, p, q)) == pytest.approx(1 - 40 ** (1 / q - 1 / p))
        others = torch.randn(1000, 40, generator=stream(0, "w"))
        assert (pq_index(others, p, q) < pq_index(single, p, q)).all()


def test_pq_index_of_gaussian_weights():
    mean_root = 2**0.25 * math.gamma(0.75) / math.pi**0.5  # E |w|^(1/2)
    expected = 1 - mean_root**2 / (2 / math.pi) ** 0.5
    assert expected == pytest.approx(0.153, abs=1e-3)
    w = 1e-30 * torch.randn(400_000, generator=stream(0, "w"))  # whatever the scale
    assert float(pq_index(w, 0.5, 1.0)) == pytest.approx(expected, abs=2e-3)


def test_pq_index_of_nothing_is_0():
    none = torch.zeros(2, 3, dtype=torch.bool)
    assert pq_index(torch.randn(2, 3, generator=stream(0, "w")), 0.5, 1.0, none).tolist() == [0, 0]
    assert pq_index(torch.zeros(2, 3), 0.5, 1.0).tolist() == [0, 0]


def test_keep_bound_equals_the_formula():
    for p, q in ORDERS:
        index_G, live_G = torch.tensor([0.0, 0.2, 0.9]).double(), torch.tensor([10, 200, 3])
        expected = [
            d * (1 + 0.01) ** (-q / (q - p)) * (1 - i) ** (p * q / (q - p))
            for i, d in zip(index_G.tolist(), live_G.tolist(), strict=True)
        ]
        np.testing.assert_allclose(keep_bound(index_G, live_G, p, q, 0.01), expected)


def test_so_many_weights_of_one_size_and_zeros_beside_them_are_bounded_by_their_number():
    for p, q in ORDERS:
        w = torch.zeros(100).index_fill_(0, torch.arange(30), 5.0)
        assert float(keep_bound(pq_index(w, p, q), torch.tensor(100), p, q, 0.0)) == pytest.approx(30)


def test_rewiring_share_is_scaled_and_capped():
    bound_G, live_G = torch.tensor([100.0, 60.0, 5.0, 0.0]), torch.tensor([100, 100, 100, 0])
    np.testing.assert_allclose(rewiring_share(bound_G, live_G, 1.0, 0.9), [0, 0.4, 0.9, 0.9], atol=1e-6)
    np.testing.assert_allclose(rewiring_share(bound_G, live_G, 0.5, 0.3), [0, 0.2, 0.3, 0.3], atol=1e-6)


# --- Rewiring
