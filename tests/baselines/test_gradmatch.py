"""GRAD-MATCH against a pursuit by non-negative least squares of gradients that are formed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from baselines.coreset import Gradients
from baselines.gradmatch import GradMatch, products, products_of_means, pursuit
from sadp_bench.core.errors import BadInput
from tests.baselines.made_features import made
from tests.baselines.made_gradients import check_epochs, formed, in_blocks, webster

L2 = 0.5


def oracle(gradients: np.ndarray, num_chosen: int, l2: float = L2) -> dict[int, float]:
    """Returns the pursuit's weights by position; where it ends early, the first of the others have weight 1."""
    target, weights = gradients.sum(0), dict[int, float]()
    penalty = l2 * np.mean(np.sum(gradients**2, axis=1))
    while len(weights) < num_chosen:
        residual = target - sum((weight * gradients[j] for j, weight in weights.items()), np.zeros_like(target))
        slope = [-np.inf if j in weights else row @ residual for j, row in enumerate(gradients)]
        if max(slope) <= 1e-9:
            break
        tried = [*weights, int(np.argmax(slope))]
        rows = np.vstack([gradients[tried].T, np.sqrt(penalty) * np.eye(len(tried))])
        found, _ = nnls(rows, np.append(target, np.zeros(len(tried))))
        weights = {j: weight for j, weight in zip(tried, found, strict=True) if weight > 1e-12}
    others = [j for j in range(len(gradients)) if j not in weights]
    return weights | dict.fromkeys(others[: num_chosen - len(weights)], 1.0)


def test_the_pursuit_is_that_of_the_definition_where_weights_become_zero_and_where_it_ends_early() -> None:
    removed = early = 0
    cases = itertools.product((0.05, L2), (3, 12), (0, 0.3), range(4), (7, 13, 20))
    for l2, dimension, shift, seed, num_chosen in cases:
        gradients = np.random.default_rng(seed).normal(shift, 1, (21, dimension))
        place_k, weight_k = pursuit(gradients @ gradients.T, num_chosen, l2)
        expected = oracle(gradients, num_chosen, l2)
        found = dict(zip(place_k.tolist(), weight_k.tolist(), strict=True))
        assert found.keys() == expected.keys(), (l2, dimension, shift, seed, num_chosen)
        np.testing.assert_allclose([found[j] for j in expected], [*expected.values()], rtol=1e-9)
        num_filled = sum(weight == 1 for weight in expected.values())
        matched = weight_k[: num_chosen - num_filled]
        assert bool((matched.diff() <= 0).all()), "falling weights"
        early += num_filled > 0
        removed += any(j not in expected for j in oracle(gradients, num_chosen - 2, l2))
    assert early >= 10 and removed >= 2, "the cases are others"


def test_every_class_is_matched_by_its_share_of_the_examples() -> None:
    for seed in range(3):
        for features, field in (("readout", "feature_ND"), ("spikes", "spikes_ND")):
            context, pruner = made(seed), GradMatch(0.55, features=features, block=15)
            pruner.prepare(context)
            gradients = formed(context, field)
            blocks = [block.tolist() for block in pruner.blocks(context.label_N, 15)]
            counts = webster([len(block) for block in blocks], 28)  # 27.45 of 61 on average
            assert [len(of) for of in in_blocks(pruner, blocks)] == counts
            expected: dict[int, float] = {}
            for block, count in zip(blocks, counts, strict=True):
                weights = oracle(gradients[block], count)
                mean = np.mean([*weights.values()]) if weights else 1.0
                expected |= {block[j]: weight / mean for j, weight in weights.items()}
            check_epochs(pruner, context, expected)


def test_batches_are_matched_by_their_mean_gradients() -> None:
    for seed in range(3):
        context, pruner = made(seed), GradMatch(0.55, by="batch", batch=4)
        pruner.prepare(context)
        gradients = formed(context)
        batches = [batch.tolist() for batch in pruner.blocks(context.label_N, 4, by_class=False)]
        assert len(batches) == 16 and {len(batch) for batch in batches} == {3, 4}
        assert sorted(index for batch in batches for index in batch) == list(range(61))
        chosen = oracle(np.stack([gradients[batch].mean(0) for batch in batches]), 10)  # at least 28 examples
        filled = [place for place, weight in chosen.items() if weight == 1]
        order = sorted(chosen, key=lambda place: (place in filled, -chosen[place]))
        index = [index for place in order for index in batches[place]][:28]
        weights = [chosen[place] for place in order for _ in batches[place]][:28]
        assert pruner.index_K.tolist() == index
        check_epochs(pruner, context, dict(zip(index, weights, strict=True)))


def test_products_need_no_formed_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    context = made(0)
    input_ND = torch.nn.functional.pad(context.fields["feature_ND"].double(), (0, 1), value=1.0)
    gradients = Gradients(context.fields["error_NC"].double(), input_ND)
    np.testing.assert_allclose(products(gradients), formed(context) @ formed(context).T, atol=1e-12)
    batches = list(torch.randperm(61).tensor_split(7))
    means = np.stack([formed(context)[batch].mean(0) for batch in batches])
    for elements in (1, 2 * 7 * 6, 1 << 25):  # one class at a time, two, and all
        monkeypatch.setattr("baselines.gradmatch.FORMED", elements)
        np.testing.assert_allclose(products_of_means(gradients, batches), means @ means.T, atol=1e-12)


def test_bad_settings_are_refused() -> None:
    for options, fault in (
        ({"by": "layer"}, "gradmatch's by is class or batch, not 'layer'"),
        ({"l2": 0.0}, "gradmatch's l2 is above 0 and finite, not 0"),
        ({"batch": 0}, "gradmatch's batch is at least 1"),
        ({"block": 1}, "gradmatch's block is at least 2"),
        ({"features": "logits"}, "features are readout or spikes"),
    ):
        with pytest.raises(BadInput, match=fault):
            GradMatch(0.5, **options)  # type: ignore[arg-type]
