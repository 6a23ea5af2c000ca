"""Methods that use the last layer's gradients: the length of scoring, and classes of any gradient length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.coreset import Gradients
from baselines.craig import CRAIG
from baselines.gradmatch import GradMatch
from tests.baselines.made_features import made
from tests.helpers import bench


def test_a_scoring_network_trains_by_epochs_or_by_updates() -> None:
    for method in ("craig", "gradmatch", "glister"):
        for options, visits in (({}, 101), ({"score_updates": 2}, 2 * 17)):
            run = bench(method, 0.5, epochs=5, set=options)
            run.pruner.prepare(run.context)
            assert run.context.visits == visits + 101, (method, options)  # of training, and of the pass


def test_a_class_keeps_its_weight_whatever_the_length_of_its_gradients() -> None:
    for make in (CRAIG, GradMatch):
        kept = []
        for scale in (1.0, 1e-3, 1e-25, 0.0):
            context = made(0)
            context.fields["error_NC"][context.label_N == 0] *= scale
            pruner = make(0.5)
            pruner.prepare(context)
            label_K = context.label_N[pruner.index_K]
            for label in range(3):
                mean = float(pruner.weight_K[label_K == label].mean())
                assert abs(mean - 1) < (0.1 if make is CRAIG else 1e-5), (make, scale, label)
            kept.append(dict(zip(pruner.index_K.tolist(), pruner.weight_K.tolist(), strict=True)))
        assert kept[1] == pytest.approx(kept[0], rel=1e-4), "the unit of the gradients is no matter"
        assert kept[2] == pytest.approx(kept[0], rel=1e-4), "the unit of the gradients is no matter"


def test_gradients_are_exact_where_the_error_is_equal_at_all_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    input_TND, error_NC = torch.rand(4, 7, 5, generator=generator), torch.randn(7, 3, generator=generator)
    of_step = torch.einsum("nc,tnd->ncd", error_NC / 4, input_TND)
    gradients = Gradients(error_NC, input_TND.mean(0))
    np.testing.assert_allclose(gradients.inner(gradients), torch.einsum("ncd,mcd->nm", of_step, of_step), rtol=1e-4)
