"""Erdos-Renyi densities against their equation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.sparsity.base import prunable
from sadp_bench.sparsity.random_masks import erdos_renyi
from tests.sparsity.helpers import Tiny

SHAPES = {name: tuple(weight.shape) for name, weight in prunable(Tiny(1)).items()}
TOTAL = sum(map(math.prod, SHAPES.values()))
ORDERS = [(0.5, 1.0), (1.0, 2.0), (0.3, 1.7)]


def test_erdos_renyi_equals_the_formula_where_no_layer_is_full():
    shapes = {"a": (64, 32, 3, 3), "b": (128, 64, 3, 3), "c": (10, 512)}
    number = erdos_renyi(shapes, 5_000)
    assert sum(number.values()) == 5_000
    weights = {"a": 64 + 32 + 3 + 3, "b": 128 + 64 + 3 + 3, "c": 10 + 512}
    for name in shapes:
        assert abs(number[name] - 5_000 * weights[name] / sum(weights.values())) < 1


def test_erdos_renyi_without_kernels_is_the_papers_equation():
    """A layer's density is in proportion to (inputs + outputs) / (inputs * outputs): Mocanu et al., Eq. 1 of PQ."""
    shapes = {"a": (64, 32, 3, 3), "b": (128, 64, 3, 3), "c": (10, 512)}
    number = erdos_renyi(shapes, 5_000, kernels=False)
    assert sum(number.values()) == 5_000
    density = {name: number[name] / math.prod(shapes[name]) for name in shapes}
    wanted = {"a": 96 / (64 * 32), "b": 192 / (128 * 64), "c": 522 / 5120}
    for name in shapes:
        assert density[name] / wanted[name] == pytest.approx(density["b"] / wanted["b"], rel=2e-3), name


def test_a_full_layer_leaves_the_rest_to_the_others():
    shapes = {"small": (2, 3), "a": (30, 20), "b": (40, 30)}
    assert erdos_renyi(shapes, 306) == {"small": 6, "a": 125, "b": 175}
    assert erdos_renyi(shapes, 6 + 600 + 1200) == {"small": 6, "a": 600, "b": 1200}


@given(
    st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=4), min_size=1, max_size=8),
    st.floats(0, 1),
)
def test_erdos_renyi_sums_to_the_budget_and_fills_no_layer_beyond_its_size(sides, share):
    shapes = {str(number): tuple(sides) for number, sides in enumerate(sides)}
    size = {name: math.prod(shape) for name, shape in shapes.items()}
    budget = round(share * sum(size.values()))
    number = erdos_renyi(shapes, budget)
    assert sum(number.values()) == budget
    assert all(0 <= number[name] <= size[name] for name in shapes)
    open_layers = [name for name in shapes if number[name] < size[name] - 1]
    scales = [(number[name] - 1, number[name] + 1, sum(shapes[name])) for name in open_layers]
    assert max((low / s for low, _, s in scales), default=0) <= min((high / s for _, high, s in scales), default=1)
