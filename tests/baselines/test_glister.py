"""GLISTER against autograd's gradient of a readout that is moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from baselines.glister import Glister
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from tests.baselines.made_features import MadeContext, made
from tests.baselines.made_gradients import check_epochs, formed, in_blocks, webster


def with_readout(seed: int) -> tuple[MadeContext, Tensor, Tensor]:
    """Returns a context whose logits and errors are those of a readout, its inputs with a column of ones, and its weights."""
    context = made(seed)
    input_ND = torch.nn.functional.pad(context.fields["feature_ND"].double(), (0, 1), value=1.0)
    weight_CD = torch.randn(3, input_ND.shape[1], generator=stream(seed, "readout")).double()
    logits_NC = input_ND @ weight_CD.T
    error_NC = logits_NC.softmax(1) - one_hot(context.label_N, 3)
    context.fields |= {"logits_NC": logits_NC, "error_NC": error_NC}
    return context, input_ND, weight_CD


def oracle(seed: int, num_kept: int, eta: float, rounds: int, index_M: list[int] | None = None) -> list[int]:
    """Returns the choices in order, as positions within `index_M` where it is given."""
    context, input_ND, weight_CD = with_readout(seed)
    index = list(range(61)) if index_M is None else index_M
    gradients, chosen = torch.from_numpy(formed(context))[index], list[int]()
    for turn in range(rounds):
        moved = (weight_CD.flatten() - eta / num_kept * gradients[chosen].sum(0)).requires_grad_()
        loss = cross_entropy(input_ND[index] @ moved.view_as(weight_CD).T, context.label_N[index])
        (of_loss,) = torch.autograd.grad(loss, moved)
        gains = (gradients @ of_loss).tolist()
        others = sorted(set(range(len(gains))) - set(chosen), key=lambda index: -gains[index])
        chosen += others[: (turn + 1) * num_kept // rounds - len(chosen)]
    return chosen


def test_the_rounds_choose_the_highest_gains_of_the_moved_readout() -> None:
    orders = set()
    for seed in range(3):
        for eta, rounds in ((0.0, 1), (1.0, 5), (30.0, 5), (30.0, 28)):
            context, _, _ = with_readout(seed)
            pruner = Glister(0.55, eta=eta, rounds=rounds)
            pruner.prepare(context)
            expected = oracle(seed, 28, eta, rounds)
            assert pruner.index_K.tolist() == expected, (seed, eta, rounds)
            check_epochs(pruner, context, dict.fromkeys(expected, 1.0))
            assert pruner.weight_K.tolist() == [1.0] * 28
            orders.add(tuple(expected))
    assert len(orders) == 12, "the cases are alike"
    assert context.watched == {"errors", "features"}


def test_by_class_each_class_is_a_set_of_its_own() -> None:
    for seed in range(3):
        context, _, _ = with_readout(seed)
        pruner = Glister(0.55, by_class=True, rounds=4, eta=3.0)
        pruner.prepare(context)
        blocks = [block.tolist() for block in pruner.blocks(context.label_N, 61)]
        counts = webster([len(block) for block in blocks], 28)
        expected = [oracle(seed, count, 3.0, 4, block) for block, count in zip(blocks, counts, strict=True)]
        assert in_blocks(pruner, blocks) == expected, seed


def test_more_rounds_than_examples_choose_one_a_round() -> None:
    context, _, _ = with_readout(0)
    for num_kept in (1, 2):
        pruner = Glister(1 - num_kept / 61, rounds=100)
        pruner.prepare(context)
        np.testing.assert_array_equal(pruner.index_K, oracle(0, num_kept, 1.0, num_kept))


def test_bad_settings_are_refused() -> None:
    for options, fault in (
        ({"eta": -1.0}, "glister's eta is at least 0"),
        ({"eta": float("inf")}, "glister's eta is at least 0 and finite"),
        ({"rounds": 0}, "glister's rounds are at least 1"),
    ):
        with pytest.raises(BadInput, match=fault):
            Glister(0.5, **options)  # type: ignore[arg-type]
