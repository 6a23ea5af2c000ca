"""D2: forward messages, and greedy choices that lower their neighbours' scores, against NumPy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import softmax

from baselines import d2
from baselines.d2 import D2
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from tests.baselines.made_features import MadeContext, check_order, made


def greedy(
    feature_MD: np.ndarray, index_M: np.ndarray, context: MadeContext, neighbours: int, gamma: float, relative: bool
) -> list[int]:
    distance_MM = np.linalg.norm(feature_MD[:, None] - feature_MD, axis=-1)
    near_MM = np.zeros(distance_MM.shape, dtype=bool)
    for row in range(len(feature_MD)):
        nearest = [other for other in np.argsort(distance_MM[row]) if other != row][:neighbours]
        near_MM[row, nearest] = near_MM[nearest, row] = True
    if relative:
        distance_MM = distance_MM / distance_MM[near_MM].mean()
    logits_MC, label_M = context.fields["logits_NC"].double().numpy()[index_M], context.label_N.numpy()[index_M]
    s_M = np.linalg.norm(softmax(logits_MC, axis=1) - np.eye(logits_MC.shape[1])[label_M], axis=1)
    x_M = s_M + (near_MM * np.exp(-distance_MM)) @ s_M
    chosen: list[int] = []
    while len(chosen) < len(x_M):
        best = max(set(range(len(x_M))) - set(chosen), key=lambda row: x_M[row])
        chosen.append(best)
        x_M = x_M - near_MM[best] * np.exp(-gamma * distance_MM[best]) * x_M[best]
    return chosen


@pytest.mark.parametrize(
    "options",
    [
        {"neighbours": 5, "gamma": 0.1, "relative": True},
        {"neighbours": 1, "gamma": 1.0, "relative": False},
        {"neighbours": 100, "gamma": 3.0, "relative": True},  # more than a block has
    ],
)
def test_the_order_is_that_of_the_messages(options: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d2, "ELEMENTS", 500)  # a few rows of distances at a time
    check_order(D2, partial(greedy, **options), **options)


def test_without_neighbours_in_reach_it_keeps_the_hardest() -> None:
    context = made(2)
    context.fields["feature_ND"] = 1e6 * context.fields["feature_ND"]
    pruner = D2(0.5, by_class=False, gamma=1.0, relative=False)
    pruner.prepare(context)
    p_NC = softmax(context.fields["logits_NC"].double().numpy(), axis=1)
    error_N = np.linalg.norm(p_NC - np.eye(3)[context.label_N.numpy()], axis=1)
    assert pruner.ranked_N.tolist() == np.argsort(-error_N).tolist()


def test_rows_that_are_alike_do_not_all_choose_the_same_neighbours() -> None:
    same_MD = torch.ones(20, 3, dtype=torch.float64)
    degree_M = d2.graph_of(same_MD, 3, relative=True).start_E.bincount(minlength=20)
    assert degree_M.tolist() == [6] * 20, "a circle: the 3 rows before and the 3 after"
    pairs_MD = torch.arange(20, dtype=torch.float64)[:, None] // 10  # two clusters
    graph = d2.graph_of(pairs_MD[torch.randperm(20, generator=stream(0, "pairs"))], 4, relative=False)
    assert graph.start_E.bincount(minlength=20).tolist() == [8] * 20 and not graph.distance_E.any()
    line_MD = torch.arange(7, dtype=torch.float64)[:, None]
    graph = d2.graph_of(line_MD, 1, relative=False)  # between two neighbours at 1, the next row is taken
    assert set(zip(graph.start_E.tolist(), graph.end_E.tolist(), strict=True)) == {
        edge for low in range(6) for edge in ((low, low + 1), (low + 1, low))
    }


def test_settings_are_checked() -> None:
    for options, message in (
        ({"neighbours": 0}, "D2's neighbours are at least 1, not 0"),
        ({"gamma": -0.5}, "D2's gamma is at least 0 and finite, not -0.5"),
    ):
        with pytest.raises(BadInput, match=message):
            D2(0.5, **options)
