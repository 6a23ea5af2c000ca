"""A scoring context whose survey has made features, for the tests of the geometry methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sadp_bench.core.rng import stream
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Survey
from tests.helpers import PlainContext


class MadeContext(PlainContext):
    """Returns one survey, of features and labels, with the watched fields alone."""

    def __init__(self, label_N: Tensor, seed: int = 0, **fields: Tensor) -> None:
        super().__init__(len(label_N), seed=seed, num_classes=int(label_N.max()) + 1)
        self.label_N, self.fields = label_N, fields
        self.watched: frozenset[str] = frozenset()

    def fit(self, pruner: Pruner, epochs: float, seed: int) -> nn.Module:
        return nn.Identity()

    def survey(self, model: nn.Module, watch: frozenset[str]) -> Survey:
        self.watched = watch
        logits_NC = self.fields.get("logits_NC", torch.zeros(self.num_examples, self.num_classes))
        optional = {"feature_ND": "features", "spikes_ND": "spikes", "error_NC": "errors"}
        found = {name: value for name, value in self.fields.items() if optional.get(name) in watch}
        return Survey(logits_NC, self.label_N, torch.zeros(self.num_examples), **found)


def made(seed: int, num_examples: int = 61, num_features: int = 5, num_classes: int = 3) -> MadeContext:
    """Returns a context with random features, counts of spikes and logits, and classes of unequal sizes."""
    generator = stream(seed, "made features")
    label_N = (3 * torch.rand(num_examples, generator=generator) ** 2).long() % num_classes
    return MadeContext(
        label_N,
        seed,
        feature_ND=torch.randn(num_examples, num_features, generator=generator) + label_N[:, None],
        spikes_ND=torch.poisson(torch.full((num_examples, num_features), 400.0), generator=generator),
        logits_NC=torch.randn(num_examples, num_classes, generator=generator),
        error_NC=torch.randn(num_examples, num_classes, generator=generator),
    )


def check_order(
    make: Callable[..., Pruner], order: Callable[[np.ndarray, np.ndarray, MadeContext], Any], **options: Any
) -> None:
    """Compares a method's ranking, by class and over all, with an oracle's order, for both features and several seeds.

    Args:
        make: Makes the pruner from settings.
        order: Returns positions within a block from float64 features [M, D], the indices of the block in the method's
            random order [M], and the context.
        options: Further settings.
    """
    for seed in range(3):
        context = made(seed)
        for features, feature_ND in (
            ("readout", context.fields["feature_ND"]),
            ("spikes", context.fields["spikes_ND"]),
        ):
            for by_class in (True, False):
                pruner: Any = make(0.5, features=features, by_class=by_class, **options)
                pruner.prepare(context)
                for index_M in pruner.blocks(context.label_N):
                    expected = index_M.numpy()[order(feature_ND[index_M].double().numpy(), index_M.numpy(), context)]
                    found = pruner.ranked_N[torch.isin(pruner.ranked_N, index_M)].numpy()
                    what = f"{features}, by_class={by_class}, seed {seed}"
                    np.testing.assert_array_equal(found, expected, err_msg=what)
