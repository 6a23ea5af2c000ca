"""KAKURENBO: examples hidden and moved back over epochs, the falling shares, and the passes over hidden examples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from baselines.kakurenbo import Kakurenbo, hidden_shares
from sadp_bench.core.errors import BadInput
from tests.helpers import bench, prepared, seen

N, CLASSES, LABEL_N = 311, 4, np.arange(311) % 4


def made(rng, index):
    """Returns losses and logits of two time steps, whether each example is right, and its highest probability."""
    logits_TBC = rng.normal(size=(2, len(index), CLASSES)) * rng.choice([0.3, 3.0])
    logits_TBC[:, np.arange(len(index)), LABEL_N[index]] += 2
    mean = logits_TBC.mean(0)
    p = np.exp(mean) / np.exp(mean).sum(1, keepdims=True)
    loss_B = rng.exponential(size=len(index)).astype(np.float32)
    given = seen(
        torch.from_numpy(index), loss_B=torch.from_numpy(loss_B), logits_TBC=torch.from_numpy(logits_TBC),
        label_B=torch.from_numpy(LABEL_N[index]),
    )  # fmt: skip
    return given, loss_B, mean.argmax(1) == LABEL_N[index], p.max(1)


def hide(loss_N, right_N, p_N, share):
    """Applies the definition: hides the lowest losses, moves some back, and hides the next lowest in their place."""
    number = round(share * N)
    rising = np.argsort(loss_N)
    hidden = [i for i in rising[:number] if right_N[i] and p_N[i] >= 0.7]
    for i in rising[number:]:
        if len(hidden) < number and right_N[i] and p_N[i] >= 0.7:
            hidden.append(i)
    for i in rising:
        if len(hidden) < number and i not in hidden:
            hidden.append(i)
    return set(hidden), number


def test_hidden_examples_are_those_of_the_definition_over_epochs():
    for ratio, refresh in ((0.3, True), (0.5, False), (0.6, True)):
        rng, pruner = np.random.default_rng(0), prepared(Kakurenbo(ratio, refresh=refresh), N, 10)
        loss_N, right_N, p_N = np.full(N, np.inf), np.zeros(N, dtype=bool), np.zeros(N)
        few = 0
        for epoch in range(10):
            selection = pruner.select(epoch)
            kept = selection.index_K.numpy()
            hidden, number = hide(loss_N, right_N, p_N, hidden_shares(ratio, 10)[epoch])
            assert abs(N - len(kept) - number) <= 1, "the rounding is carried on"
            if N - len(kept) == number:
                assert set(range(N)) - set(kept.tolist()) == hidden, (ratio, refresh, epoch)
            few += number > (right_N & (p_N >= 0.7)).sum()
            assert selection.weight_K.tolist() == pytest.approx([N / len(kept)] * len(kept))
            again = pruner.revisit(epoch).numpy()
            away = set(range(N)) - set(kept.tolist())
            assert set(again.tolist()) == (away if refresh and epoch < 9 else set()), (ratio, refresh, epoch)
            for index, observe in ((kept, pruner.observe), (again, pruner.observe_forward)):
                given, loss_N[index], right_N[index], p_N[index] = made(rng, index)
                observe(given)
        assert few or ratio < 0.6, "in no epoch were there too few sure examples"


def test_shares_are_the_published_parts_of_one_level():
    parts = [0] + [1.0] * 5 + [0.8] * 6 + [0.6] * 4 + [0.4] * 4
    share_E = hidden_shares(0.3, 20)
    assert share_E == pytest.approx([part * 0.3 * 20 / sum(parts) for part in parts])
    share_E = hidden_shares(0.7, 20)  # the level would be 1.01
    assert max(share_E) == 0.9 and share_E[0] == 0 and sum(share_E) == pytest.approx(14)
    assert share_E[6:] == pytest.approx([share_E[6] / 0.8 * part for part in parts[6:]])
    for epochs, ratio in itertools.product((3, 5, 8, 30), (0.0, 0.3, 0.5, 0.59)):
        share_E = hidden_shares(ratio, epochs)
        assert len(share_E) == epochs and sum(share_E) == pytest.approx(ratio * epochs)
        assert share_E[1:] == sorted(share_E[1:], reverse=True) and max(share_E) <= 0.9 + 1e-12
    assert hidden_shares(0.9 * 4 / 5, 5) == pytest.approx([0, 0.9, 0.9, 0.9, 0.9])


def test_total_budget_is_exact():
    for epochs, ratio, num_examples in itertools.product((5, 8), (0.3, 0.5, 0.7), (31, 311)):
        pruner, total = prepared(Kakurenbo(ratio), num_examples, epochs), 0
        for epoch in range(epochs):
            total += len(pruner.select(epoch).index_K)
        assert abs(total - (1 - ratio) * epochs * num_examples) <= 0.5 + 1e-6


def test_a_run_looks_at_hidden_examples_and_counts_the_looks():
    run = bench("kakurenbo", 0.4, epochs=4)
    run.pruner.prepare(run.context)
    hidden, looked = [], []
    select, look = run.pruner.select, run.pruner.observe_forward

    def selected(epoch):
        selection = select(epoch)
        hidden.append(set(range(101)) - set(selection.index_K.tolist()))
        return selection

    run.pruner.select = selected
    run.pruner.observe_forward = lambda seen: (looked.extend(seen.index_B.tolist()), look(seen))
    rows = list(run.rows())
    assert [row.get("forward_only", 0) for row in rows] == [0, *map(len, hidden[1:3]), 0]
    assert sorted(looked) == sorted([*hidden[1], *hidden[2]]) and hidden[0] == set() and hidden[1]
    assert run.pruner.loss_N.isfinite().all()


def test_without_rescaling_all_weights_are_1():
    pruners = [prepared(Kakurenbo(0.5, rescale=rescale), 31, 10) for rescale in (True, False)]
    for epoch in range(4):
        weighted, plain = (pruner.select(epoch) for pruner in pruners)
        assert torch.equal(weighted.index_K, plain.index_K) and bool((plain.weight_K == 1).all())
    assert weighted.weight_K.min() > 1


def test_what_can_not_be_saved_is_refused_before_training():
    with pytest.raises(BadInput, match="kakurenbo saves at most 0.72 of the visits in 5 epochs"):
        Kakurenbo(0.73).check(5)
    Kakurenbo(0.72).check(5)
    Kakurenbo(0.0).check(1)
    with pytest.raises(BadInput, match="kakurenbo would hide all 4 examples in an epoch: lower --ratio, or take more"):
        prepared(Kakurenbo(0.7), 4, 5)
    prepared(Kakurenbo(0.3), 4, 5)
    for confidence in (0.0, 1.1):
        with pytest.raises(BadInput, match=f"kakurenbo's confidence is above 0 and at most 1, not {confidence:g}"):
            Kakurenbo(0.3, confidence=confidence)
