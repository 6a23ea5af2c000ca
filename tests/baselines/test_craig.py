"""CRAIG against a greedy choice that evaluates every gain of gradients that are formed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.coreset import Gradients
from baselines.craig import CRAIG, distances, medoids
from sadp_bench.core.errors import BadInput
from sadp_bench.drop_in.sampler import PrunedSampler
from tests.baselines.made_features import made
from tests.baselines.made_gradients import check_epochs, formed, in_blocks, webster


def check_choice(gradients: np.ndarray, chosen: list[int]) -> np.ndarray:
    """Checks that each choice is a best one after those before it, and returns the cluster sizes of the definition.

    Two examples whose nearest chosen example is farther than they are from each other have equal gains.
    """
    distance = np.linalg.norm(gradients[:, None] - gradients[None], axis=2)
    for number, choice in enumerate(chosen):
        before = chosen[:number]
        totals = [distance[:, [*before, j]].min(1).sum() for j in range(len(gradients))]
        assert totals[choice] <= min(totals) * (1 + 1e-6), f"choice {number}"
    return np.bincount(distance[:, chosen].argmin(1), minlength=len(chosen))


def test_the_choice_and_its_weights_are_those_of_the_definition() -> None:
    for seed in range(4):
        for features, field in (("readout", "feature_ND"), ("spikes", "spikes_ND")):
            context, pruner = made(seed), CRAIG(0.55, features=features, block=15)
            pruner.prepare(context)
            gradients = formed(context, field)
            blocks = [block.tolist() for block in pruner.blocks(context.label_N, 15)]
            assert max(map(len, blocks)) <= 15 and len(blocks) > 3
            assert sorted(index for block in blocks for index in block) == list(range(61))
            assert all(len(context.label_N[block].unique()) == 1 for block in blocks)
            chosen = in_blocks(pruner, blocks)
            assert [len(of) for of in chosen] == webster([len(block) for block in blocks], 28)  # 27.45 of 61 on average
            sizes = [check_choice(gradients[block], of) for block, of in zip(blocks, chosen, strict=True)]
            index = np.concatenate([np.array(block)[of] for block, of in zip(blocks, chosen, strict=True)])
            check_epochs(pruner, context, dict(zip(index.tolist(), np.concatenate(sizes), strict=True)))
            assert context.watched == {"errors", {"feature_ND": "features"}.get(field, "spikes")}


def test_ties_go_to_the_first_row_and_equal_gradients_have_a_weight_each() -> None:
    gradients = Gradients(torch.tensor([[1.0], [1], [1], [5], [5]]).double(), torch.ones(5, 1).double())
    assert distances(gradients).tolist()[3] == [4, 4, 4, 0, 0]
    for num_chosen, chosen, sizes in ((0, [], []), (1, [0], [5]), (2, [0, 3], [3, 2]), (4, [0, 3, 1, 2], [1, 2, 1, 1])):
        position_k, size_k = medoids(distances(gradients), num_chosen)
        assert position_k.tolist() == chosen and size_k.tolist() == sizes


def test_equally_near_chosen_examples_share_a_cluster() -> None:
    shared = 0
    for seed in range(4):
        rows = torch.randint(0, 3, (60, 2), generator=torch.Generator().manual_seed(seed)).double()  # exact, with ties
        position_k, size_k = medoids(distances(Gradients(rows, torch.ones(60, 1).double())), 25)
        chosen = position_k.tolist()
        expected = dict.fromkeys(chosen, 1.0)
        for row in set(range(60)) - set(chosen):
            square = {place: float((rows[row] - rows[place]).square().sum()) for place in chosen}
            owners = [place for place in chosen if square[place] == min(square.values())]
            shared += len(owners) > 1
            for place in owners:
                expected[place] += 1 / len(owners)
        assert size_k.tolist() == pytest.approx([expected[place] for place in chosen]), seed
    assert shared > 20, "the cases are others"
    equal = Gradients(torch.ones(200, 3).double(), torch.ones(200, 1).double())
    assert medoids(distances(equal), 100)[1].tolist() == pytest.approx([2.0] * 100)


def test_equal_gradients_have_no_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    error_NC, input_ND = torch.randn(30, 10, generator=generator), torch.rand(30, 65, generator=generator)
    gradients = Gradients(error_NC.repeat(2, 1).double(), input_ND.repeat(2, 1).double())
    distance_MM = distances(gradients)
    assert not distance_MM.diagonal().any() and not distance_MM.diagonal(30).any()
    assert int((distance_MM == 0).sum()) == 4 * 30, "others differ"


def test_the_sampler_refuses_a_method_that_trains_a_network() -> None:
    with pytest.raises(
        BadInput, match=r"this method trains a network before the run, which the sampler can't: .* Subset"
    ):
        PrunedSampler(CRAIG(0.5), labels=torch.arange(20) % 2, epochs=3, batch_size=5)


def test_bad_settings_are_refused() -> None:
    for options, fault in (
        ({"block": 1}, "craig's block is at least 2"),
        ({"features": "logits"}, "CRAIG's features are readout or spikes, not 'logits'"),
        ({"score_epochs": -1}, "score_epochs is at least 0"),
    ):
        with pytest.raises(BadInput, match=fault):
            CRAIG(0.5, **options)  # type: ignore[arg-type]
