"""Helpers for the tests of methods that use the last layer's gradients: explicit gradients, and shares of classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.baselines.made_features import MadeContext


def formed(context: MadeContext, features: str = "feature_ND") -> np.ndarray:
    """Returns the gradients at the readout's weights and bias, [N, C (D + 1)]."""
    inputs = np.hstack([context.fields[features].double().numpy(), np.ones((context.num_examples, 1))])
    error_NC = context.fields["error_NC"].double().numpy()
    return np.stack([np.outer(error, given).ravel() for error, given in zip(error_NC, inputs, strict=True)])


def webster(sizes: list[int], num_kept: int) -> list[int]:
    """Returns counts in proportion to sizes, seat by seat."""
    counts = [0] * len(sizes)
    for _ in range(num_kept):
        counts[int(np.argmax([size / (count + 0.5) for size, count in zip(sizes, counts, strict=True)]))] += 1
    return counts


def in_blocks(pruner: Any, blocks: list[list[int]]) -> list[list[int]]:
    """Returns the positions that a prepared pruner chose within each block, in the order of its choice."""
    order = pruner.index_K.tolist()
    return [[block.index(index) for index in order if index in block] for block in blocks]


def check_epochs(pruner: Any, context: MadeContext, expected: dict[int, float]) -> None:
    """Compares a prepared pruner's selections with expected weights before scaling, and the budget with the ratio."""
    mean = np.mean(list(expected.values()))
    total = 0
    for epoch in range(context.num_epochs):
        selection = pruner.select(epoch)
        found = dict(zip(selection.index_K.tolist(), selection.weight_K.tolist(), strict=True))
        assert len(found) == len(selection.index_K) and len(expected) - 1 <= len(found) <= len(expected)
        assert found.keys() <= expected.keys(), "other examples"
        for index, weight in found.items():
            np.testing.assert_allclose(weight, expected[index] / mean, rtol=2e-5, err_msg=f"weight of {index}")
        total += len(found)
    assert abs(total - (1 - pruner.prune_ratio) * context.num_examples * context.num_epochs) <= 0.5
