"""Forgetting events."""

from __future__ import annotations

import torch

from baselines.forgetting import Forgetting, ForgettingCounter
from sadp_bench.pruners.base import KeepAll
from tests.helpers import bench, prepared, seen

HISTORIES = {  # right (1) or wrong (0) at each presentation -> events, ever learned
    "11111": (0, True),
    "00000": (0, False),
    "01111": (0, True),
    "10000": (1, True),
    "01010": (2, True),
    "10101": (2, True),
    "00001": (0, True),
    "11011": (1, True),
}


def show(counter, epoch, batches=3):
    """Shows one epoch of the histories, in batches of a shuffled order; class 1 is right."""
    order = torch.randperm(len(HISTORIES), generator=torch.Generator().manual_seed(epoch))
    for index_B in order.tensor_split(batches):
        right_B = torch.tensor([int(list(HISTORIES)[i][epoch]) for i in index_B.tolist()])
        logits_BC = torch.nn.functional.one_hot(right_B, 3).float()
        noise_TBC = torch.stack([logits_BC * 3, logits_BC * -1])  # one step disagrees; the mean over time decides
        counter.observe(seen(index_B, epoch=epoch, label_B=torch.ones_like(index_B), logits_TBC=noise_TBC))


def test_counter_counts_the_changes_from_right_to_wrong():
    counter = prepared(ForgettingCounter(), len(HISTORIES))
    for epoch in range(5):
        show(counter, epoch)
    assert counter.events_N.tolist() == [events for events, _ in HISTORIES.values()]
    assert counter.learned_N.tolist() == [learned for _, learned in HISTORIES.values()]


class HistoryContext:
    """Plays the histories in place of training."""

    num_examples, num_epochs, seed, device = len(HISTORIES), 5, 0, torch.device("cpu")

    def fit(self, pruner, epochs, seed):
        pruner.prepare(self)
        for epoch in range(epochs):
            show(pruner, epoch)

    def scores(self, score):
        return score()


def test_never_learned_ranks_highest_then_the_most_forgotten():
    context = HistoryContext()
    scores = dict(zip(HISTORIES, Forgetting(0.5).score(context).tolist(), strict=True))
    assert scores.pop("00000") == 5, "the number of its presentations"
    assert scores == {h: events for h, (events, learned) in HISTORIES.items() if learned}

    pruner = Forgetting(0.5)
    pruner.prepare(context)
    kept = [list(HISTORIES)[i] for i in pruner.select(0).index_K.tolist()]
    assert kept[0] == "00000" and set(kept[1:3]) == {"01010", "10101"}
    assert kept[3] in ("10000", "11011")


class TwoNetworks(HistoryContext):
    """The first network has the histories, the second those of the examples in reverse."""

    def fit(self, pruner, epochs, seed):
        super().fit(pruner, epochs, seed)
        if seed == 1:
            pruner.events_N, pruner.learned_N = pruner.events_N.flip(0), pruner.learned_N.flip(0)


def test_scores_of_several_networks_are_added_and_never_learned_counts_by_network():
    assert Forgetting(0.5, score_runs=3).score(HistoryContext()).tolist() == [0, 15, 0, 3, 6, 6, 0, 3]
    # Example 1 is never learned by the first network, example 6 never by the second.
    assert Forgetting(0.5, score_runs=2).score(TwoNetworks()).tolist() == [1, 5, 2, 3, 3, 2, 5, 1]


def test_ties_are_broken_by_the_seed():
    def dropped(seed):
        context = HistoryContext()
        context.seed = seed
        pruner = Forgetting(0.3)  # drops about two of the four that were never forgotten
        pruner.prepare(context)
        return frozenset(range(8)) - set(pruner.select(0).index_K.tolist())

    drops = [dropped(seed) for seed in range(40)]
    never_forgotten = {0, 2, 6}
    assert all(drop <= never_forgotten for drop in drops)
    assert set.union(*map(set, drops)) == never_forgotten and len(set(drops)) > 1


def test_scores_equal_a_count_over_the_recorded_training_run():
    history = []

    class Recorder(KeepAll):
        def observe(self, batch):
            right_B = batch.logits_TBC.mean(0).argmax(1) == batch.label_B
            history.append((batch.epoch, batch.index_B, right_B))

    run = bench("forgetting", 0.3, epochs=5)
    run.pruner.prepare(run.context)
    assert run.context.visits == 5 * 101, "by default the scoring run is as long as the run"
    run.context.fit(Recorder(), 5, 0)
    right_EN = torch.zeros(5, 101, dtype=torch.bool)
    for epoch, index_B, right_B in history:
        right_EN[epoch, index_B] = right_B
    for i, score in enumerate(run.pruner.score_N.tolist()):
        text = "".join("01"[int(right)] for right in right_EN[:, i])
        assert score == (text.count("10") if "1" in text else 5)


def test_scoring_takes_the_whole_run_by_default():
    assert [Forgetting(0.3, score_epochs=epochs).scoring_epochs(5) for epochs in (0, 2)] == [5, 2]
