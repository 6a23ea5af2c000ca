"""InfoBatch: the dropped examples, the weights of the rest, and the costs."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from baselines.infobatch import InfoBatch
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from tests.helpers import bench, in_standard_errors, prepared, seen, weighted_sums


def with_losses(loss_N, prune_ratio, num_epochs=10, seed=0, **options):
    loss_N = torch.as_tensor(loss_N, dtype=torch.float32)
    pruner = prepared(InfoBatch(prune_ratio, **options), len(loss_N), num_epochs, seed)
    pruner.observe(seen(torch.arange(len(loss_N)), loss_B=loss_N))
    return pruner


LOSSES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 5.0, 6.0, 7.0]  # mean 2.08: seven below


def test_weights_and_drops_by_hand():
    # E = 10, delta = 0.8: 2 epochs on all data, so d = 0.3 x 10 x 10 / 8 = 3.75: 3 or 4. Seven are below the mean. Three of
    # them are less than half; for four the threshold rises to the eight lowest losses.
    pruner = with_losses(LOSSES, 0.3, delta=0.8)
    dropped = []
    for epoch in range(1, 8):
        selection = pruner.select(epoch)
        kept = selection.index_K.tolist()
        dropped.append(10 - len(kept))
        below = {3: 7, 4: 8}[dropped[-1]]
        assert set(range(below, 10)) <= set(kept), "those above the threshold stay"
        expected = [1.0 if i >= below else below / (below - dropped[-1]) for i in kept]
        assert selection.weight_K.tolist() == pytest.approx(expected)
    assert set(dropped) == {3, 4} and sum(dropped) == 26  # round(30) less round(3.75) of the first epoch


def test_native_drops_the_published_share_of_those_below_the_mean():
    pruner = with_losses(LOSSES, 0.5, native=True)
    selection = pruner.select(1)
    assert len(selection.index_K) == 7  # floor(0.5 x 7) = 3 dropped
    assert {7, 8, 9} <= set(selection.index_K.tolist())
    of_below = selection.weight_K[selection.index_K < 7]
    torch.testing.assert_close(of_below, torch.full((4,), 7 / 4))
    assert pruner.exempt


def test_native_first_epoch_and_last_epochs_use_all_data():
    pruner = prepared(InfoBatch(0.5, native=True), 10, 8)
    assert len(pruner.select(0).index_K) == 10, "no loss is below the mean of none"
    pruner.observe(seen(torch.arange(10), loss_B=torch.tensor(LOSSES)))
    assert len(pruner.select(6).index_K) == 7
    assert torch.equal(pruner.select(7).weight_K, torch.ones(10))  # floor(0.875 x 8) = 7 epochs drop


def test_a_loss_equal_to_the_mean_is_not_below_it():
    pruner = with_losses([1.0, 2.0, 2.0, 3.0], 0.99, native=True, num_epochs=100)
    for epoch in range(1, 20):
        selection = pruner.select(epoch)
        assert {1, 2, 3} <= set(selection.index_K.tolist())


def test_first_epoch_counts_all_as_below_the_mean():
    pruner = prepared(InfoBatch(0.35), 20, 8)  # d = 0.35 x 20 x 8 / 7 = 8
    selection = pruner.select(0)
    assert len(selection.index_K) == 12
    torch.testing.assert_close(selection.weight_K, torch.full((12,), 20 / 12))


def test_last_epochs_use_all_data_with_weight_1():
    cases = [(8, 0.875, 1), (20, 0.875, 3), (10, 0.875, 1), (3, 0.875, 0), (10, 0.5, 5)]
    for num_epochs, delta, annealed in cases:
        pruner = with_losses(LOSSES, 0.2, num_epochs=num_epochs, delta=delta)
        kept = [pruner.select(epoch) for epoch in range(num_epochs)]
        whole = [len(selection.index_K) == 10 for selection in kept]
        assert whole == [False] * (num_epochs - annealed) + [True] * annealed, (num_epochs, delta)
        for selection in kept[num_epochs - annealed :]:
            assert torch.equal(selection.weight_K, torch.ones(10))


@pytest.mark.parametrize("num_examples", [31, 100, 311])
def test_total_budget_is_exact(num_examples):
    for num_epochs, ratio in product([5, 8, 13, 20], [0.1, 0.3, 1 / 3, 0.55, 0.7]):
        generator = stream(num_examples, "losses", num_epochs)
        pruner = prepared(InfoBatch(ratio), num_examples, num_epochs)
        kept = 0
        for epoch in range(num_epochs):
            selection = pruner.select(epoch)
            index_K = selection.index_K
            assert len(index_K.unique()) == len(index_K)
            assert selection.weight_K.min() >= 1 and selection.weight_K.max() <= 1 / (0.1 - 1 / num_examples)
            kept += len(index_K)
            pruner.observe(seen(index_K, loss_B=torch.rand(len(index_K), generator=generator) ** 4))
        assert abs(kept - (1 - ratio) * num_examples * num_epochs) <= 0.5 + 1e-6, (num_epochs, ratio)


def test_the_threshold_rises_before_the_share_of_drops_does():
    # 30 of 100 are below the mean. Of d = 36 the 72 lowest lose half; d = 15 takes half of the 30; d = 70 takes 70 of all.
    loss_N = torch.cat([torch.linspace(0, 0.1, 30), torch.linspace(1.0, 1.1, 70)])
    for ratio, options, below, weight in (
        (0.36, {}, 72, 2), (0.15, {}, 30, 2), (0.12, {}, 30, 30 / 18), (0.7, {}, 100, 100 / 30),
        # With the former rule, the share of drops first rises to 0.9.
        (0.36, {"drop_share": 0.9}, 40, 10), (0.27, {"drop_share": 0.9}, 30, 10),
    ):  # fmt: skip
        selection = with_losses(loss_N, ratio, delta=1.0, **options).select(1)
        weights = dict(zip(selection.index_K.tolist(), selection.weight_K.tolist(), strict=True))
        assert len(weights) == 100 - round(100 * ratio) and set(range(below, 100)) <= weights.keys()
        assert all(found == pytest.approx(weight if i < below else 1) for i, found in weights.items()), ratio


def test_native_prunes_the_whole_part_of_delta_times_the_epochs():
    pruner = with_losses(LOSSES, 0.5, native=True, num_epochs=10)  # 8.75
    assert [len(pruner.select(epoch).index_K) for epoch in (1, 7, 8, 9)] == [7, 7, 10, 10]


def test_quantile_keeps_a_quarter_a_half_and_all():
    loss_N = torch.rand(200, generator=stream(0, "losses"))
    rank_N = loss_N.argsort().argsort()
    # 17 of 20 epochs drop, the first has no losses: 16 / 20 x (0.2 x 0.75 + 0.65 x 0.5) = 0.38.
    pruner = with_losses(loss_N, 0.38, num_epochs=20, variant="quantile")
    selection = pruner.select(1)
    rank_K, weight_K = rank_N[selection.index_K], selection.weight_K
    for low, high, kept, weight in ((0, 40, 10, 4), (40, 170, 65, 2), (170, 200, 30, 1)):
        within_K = (low <= rank_K) & (rank_K < high)
        assert int(within_K.sum()) == kept and torch.equal(weight_K[within_K], torch.full((kept,), float(weight)))
    kept = [len(pruner.select(epoch).index_K) for epoch in range(20)]
    assert kept == [200, *[105] * 16, *[200] * 3] and sum(kept) == (1 - 0.38) * 200 * 20


def test_quantile_refuses_a_ratio_that_it_does_not_realise():
    with pytest.raises(BadInput, match=r"saves 0\.380 of the visits in 20 epochs.*give --ratio 0\.380"):
        prepared(InfoBatch(0.5, variant="quantile"), 100, 20)
    with pytest.raises(BadInput, match="leave out native"):
        InfoBatch(0.5, variant="quantile", native=True)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.7])
def test_expected_weighted_sum_is_the_full_sum(ratio):
    loss_N = torch.rand(30, generator=stream(0, "losses")) ** 2
    pruner = with_losses(loss_N, ratio, num_epochs=10**6, delta=0.999)
    value_ND = torch.randn(30, 5, generator=stream(1, "values"), dtype=torch.float64)
    sums = []
    for epoch in range(1, 3001):
        selection = pruner.select(epoch)
        sums.append(selection.weight_K.double() @ value_ND[selection.index_K])
    assert in_standard_errors(torch.stack(sums), value_ND.sum(0)).max() < 4


def test_expected_weight_of_every_example_is_1_where_all_losses_are_tied():
    pruner = with_losses([0.0] * 12, 0.6, num_epochs=10**6, delta=0.999)
    weight_RN = torch.zeros(4000, 12)
    for epoch, weight_N in enumerate(weight_RN):
        selection = pruner.select(epoch + 1)
        weight_N[selection.index_K] = selection.weight_K
    assert in_standard_errors(weight_RN, torch.ones(12)).max() < 4


def test_mean_weight_exceeds_1_as_published():
    ones_N1 = torch.ones(10, 1, dtype=torch.float64)
    assert (weighted_sums(with_losses(LOSSES, 0.3), ones_N1, 5, first_epoch=1) > 1).all()


def test_refusal_names_the_largest_ratio_and_that_one_is_accepted():
    largest = largest_ratio_named(0.8, 8)
    assert largest == 0.787  # 0.9 x 7 / 8 = 0.7875
    pruner = prepared(InfoBatch(largest), 100, 8)
    assert sum(100 - len(pruner.select(epoch).index_K) for epoch in range(8)) == round(largest * 800)
    prepared(InfoBatch(0.95, native=True), 100, 8)  # exempt


def largest_ratio_named(ratio, num_epochs):
    with pytest.raises(BadInput, match=rf"in {num_epochs} epochs, not {ratio:g}") as refusal:
        prepared(InfoBatch(ratio), 100, num_epochs)
    return float(str(refusal.value).split("at most ")[1].split()[0])


def test_the_largest_ratio_that_a_refusal_names_is_never_itself_refused():
    for num_epochs in range(1, 40):
        prepared(InfoBatch(largest_ratio_named(0.99, num_epochs)), 100, num_epochs)


def test_settings_out_of_range_are_refused():
    for delta in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(BadInput, match=f"delta is above 0 and at most 1, not {delta:g}"):
            InfoBatch(0.3, delta=delta)
    for share in (0.0, 0.95, float("nan")):
        with pytest.raises(BadInput, match=f"drop_share is above 0 and at most 0.9, not {share:g}"):
            InfoBatch(0.3, drop_share=share)
    with pytest.raises(BadInput, match="variant is one of mean, quantile, not 'max'"):
        InfoBatch(0.3, variant="max")


def test_scores_are_the_training_losses_of_the_last_visit():
    run = bench("infobatch", 0.3, epochs=3)
    run.pruner.prepare(run.context)
    last_N, observe = torch.zeros(101), run.pruner.observe

    def spy(batch):
        last_N[batch.index_B] = torch.nn.functional.cross_entropy(
            batch.logits_TBC.mean(0), batch.label_B, reduction="none"
        )
        observe(batch)

    run.pruner.observe = spy
    list(run.rows())
    torch.testing.assert_close(run.pruner.score_N, last_N)


def test_draws_follow_the_seed():
    first, same, other = (with_losses(LOSSES * 4, 0.3, seed=seed).select(1).index_K for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_saved_state_gives_the_same_next_selection():
    pruner = with_losses(LOSSES * 3, 0.4, seed=2)
    other = InfoBatch(0.4)
    other.load_state_dict(pruner.state_dict())
    for epoch in (1, 9):
        found, expected = other.select(epoch), pruner.select(epoch)
        assert torch.equal(found.index_K, expected.index_K) and torch.equal(found.weight_K, expected.weight_K)
