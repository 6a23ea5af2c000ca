"""Networks that are narrower from the start."""

from __future__ import annotations

import numpy as np
import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import options
from sadp_bench.records.axes import weights_factor
from sadp_bench.sparsity.narrow import Narrow, narrowed
from tests.runs.networks import WithoutNeurons
from tests.small_runs import assert_same_weights, make_trainer, resolved, weights_of
from tests.stopping import SIZES


def test_a_narrow_network_is_one_that_was_built_so() -> None:
    """Half the width makes these products of the chain; the run is that of `backbone.width`, bit for bit."""
    full, half = (256 * a + 2 * 64 * a * (2 * a) + 2 * 36 * (2 * a) * (4 * a) + 2 * 40 * (4 * a) for a in (8, 4))
    for more in ({}, {"precision": "fp64"}):
        requested = SIZES | {"epochs": 2} | more
        bench = make_trainer(*resolved(**requested, sparsity="narrow", density=half / full, set={"backbone.width": 8}))
        built = make_trainer(*resolved(**requested, set={"backbone.width": 4}))
        assert_same_weights(weights_of(bench.model), weights_of(built.model))
        found, expected = bench.run(), built.run()
        assert [row["train_loss"] for row in found.epochs] == [row["train_loss"] for row in expected.epochs]
        assert found.num_parameters == expected.num_parameters and found.test_accuracy == expected.test_accuracy
        assert found.ticket["products_share"] == half / full and found.ticket["channels"] == {
            "stem.0": 4, "body.1": 8, "body.4": 16
        }  # fmt: skip
        assert [row["live_products"] for row in found.epochs] == [half, half]
        assert weights_factor(found) == pytest.approx(full / half)


def test_a_narrow_network_makes_at_most_its_share_and_one_channel_more_would_make_more() -> None:
    channels = {"a": 6, "b": 12, "c": 7}
    sides = {"a": ["0", "1"], "b": ["1", "2"], "c": ["2", "3"]}

    def made(a: int, b: int, c: int) -> int:
        return 5 * a + 4 * a * b + 3 * b * c + 2 * c

    dense = {"0": 5 * 6.0, "1": 4 * 6 * 12.0, "2": 3 * 12 * 7.0, "3": 2 * 7.0}
    assert sum(dense.values()) == made(6, 12, 7)
    # The order in which channels are added, by hand: the next is the one whose group then has the smallest share.
    networks = [(1, 1, 1)]
    while networks[-1] != (6, 12, 7):
        width = list(networks[-1])
        shares = [(width[i] + 1) / all_of if width[i] < all_of else 9.0 for i, all_of in enumerate((6, 12, 7))]
        width[int(np.argmin(shares))] += 1
        networks.append((width[0], width[1], width[2]))
    for share in (0.03, 0.1, 0.25, 0.5, 0.77, 0.99):
        found = tuple(narrowed(channels, sides, dense, share).values())
        place = networks.index(found)  # type: ignore[arg-type]
        assert made(*networks[place]) <= share * made(6, 12, 7) < made(*networks[place + 1]), share
    exact = made(*networks[9]) / made(6, 12, 7)  # the share in a network's record allows that network
    assert tuple(narrowed(channels, sides, dense, exact).values()) == networks[9]
    with pytest.raises(BadInput, match="raise --density"):
        narrowed(channels, sides, dense, 0.02)


def test_the_dense_network_is_not_narrow_and_it_has_no_settings() -> None:
    with pytest.raises(BadInput, match="narrow needs a density below 1"):
        resolved(sparsity="narrow")
    assert options(Narrow) == {}
    with pytest.raises(BadInput, match="WithoutNeurons has no method channel_groups and no initialise"):
        Narrow(0.5).check_network(WithoutNeurons, {}, 1)


def test_a_share_that_no_network_can_make_is_refused_before_training() -> None:
    with pytest.raises(BadInput, match="one channel in each layer makes .* of the products, .* raise --density"):
        make_trainer(*resolved(sparsity="narrow", density=1e-6))
