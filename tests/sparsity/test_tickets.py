"""Lottery tickets: iterative pruning with rewinding, early birds, and their search at fewer time steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import nn

from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import options
from sadp_bench.core.rng import stream
from sadp_bench.sparsity.base import Sparsity, density, prunable
from sadp_bench.sparsity.early_time import divergences, early_timesteps, timesteps_by_max
from sadp_bench.sparsity.eb import EB, Drawing, mask_distance, settled
from sadp_bench.sparsity.imp import IMP, Rewindable, round_densities
from tests.small_runs import assert_same_weights
from tests.sparsity.helpers import Killed, Tiny, TinyContext, restored, sgd, stored

TOTAL = sum(weight.numel() for weight in prunable(Tiny(1)).values())


def prepared(method, **context):
    context = TinyContext(**context)
    model = Tiny(context.timesteps, context.seed)
    return context, model, method.prepare(context, model)


def live(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def largest(model, kept):
    """Returns the positions of the largest weights, from a plain sort."""
    size = np.concatenate([abs(weight.detach().numpy().ravel()) for weight in prunable(model).values()])
    return sorted(np.argsort(-size, kind="stable")[:kept])


def positions(masks):
    return list(np.concatenate([mask.numpy().ravel() for mask in masks.values()]).nonzero()[0])


# --- Iterative magnitude pruning


def test_after_k_full_rounds_the_sparsity_is_1_minus_three_quarters_to_the_k():
    for rounds in [1, 2, 5, 10]:
        found = round_densities(0.75**rounds, 0.25)
        assert found == pytest.approx([0.75**k for k in range(1, rounds + 1)])


def test_rounds_are_as_many_as_the_logarithms_state_and_the_last_prunes_to_the_density():
    for goal, share in [(0.3, 0.25), (0.03, 0.25), (0.9, 0.25), (0.5, 0.6), (1 - 1e-12, 0.25)]:
        found = round_densities(goal, share)
        assert len(found) == max(1, math.ceil(math.log(goal) / math.log(1 - share)))
        assert found[-1] == goal and all(found[k] > goal for k in range(len(found) - 1))


def test_each_round_prunes_a_quarter_of_the_live_weights_for_good():
    context, _, facts = prepared(imp := IMP(0.3), num_epochs=3)
    assert facts["rounds"] == len(context.calls) == 5
    masks = [call["masks"] for call in context.calls[1:]] + [imp.masks]
    assert [live(m) for m in masks] == [round(TOTAL * share) for share in (0.75, 0.75**2, 0.75**3, 0.75**4, 0.3)]
    for before, after in zip(masks, masks[1:], strict=False):
        assert not any((after[name] & ~before[name]).any() for name in before)
    assert facts["density"] == live(imp.masks) / TOTAL == round(0.3 * TOTAL) / TOTAL


def test_a_round_prunes_the_smallest_weights_of_the_whole_network():
    context, _, _ = prepared(imp := IMP(0.75), num_epochs=3)
    *_, trained = TinyContext(num_epochs=3).train(Sparsity(), timesteps=2)
    assert positions(imp.masks) == largest(trained, round(0.75 * TOTAL))


def test_rewinding_restores_the_early_state_bit_for_bit_buffers_too():
    for requested, epoch in [(0, 1), (2, 2)]:
        context, model, facts = prepared(IMP(0.5, rewind=requested), num_epochs=4)
        *_, early = TinyContext(num_epochs=4).train(Sparsity(), timesteps=2, epochs=epoch)
        assert early.norm.running_var.ne(1).all() and early.norm.num_batches_tracked == 8 * epoch  # 4 batches, 2 steps
        assert_same_weights(model.state_dict(), early.state_dict())
        assert facts["rewind_epoch"] == epoch
        for call in context.calls[1:]:
            assert call["first_epoch"] == epoch
            assert_same_weights(call["weights"], early.state_dict())


def test_the_rewind_epoch_is_a_fifteenth_of_the_run():
    for epochs, expected in [(2, 1), (30, 2), (300, 20)]:
        assert IMP(0.5).rewind_epoch(epochs) == expected


def test_a_rewind_that_leaves_nothing_to_train_is_refused_before_training():
    for requested, epochs in [(0, 1), (4, 4)]:
        imp, context = IMP(0.5, rewind=requested), TinyContext(num_epochs=epochs)
        with pytest.raises(BadInput, match="needs more than"):
            imp.estimated_epochs(epochs)
        with pytest.raises(BadInput, match="needs more than"):
            imp.prepare(context, Tiny(2))
        assert not context.trained


# --- Early birds


class Scripted(TinyContext):
    """Yields networks whose largest weights are given, one an epoch."""

    def __init__(self, kept_E):
        super().__init__(num_epochs=len(kept_E))
        self.kept_E = kept_E

    def train(self, sparsity, *, timesteps, weights=None, first_epoch=0, epochs=None, ratio=0.0):
        model = nn.Sequential(nn.Linear(100, 10, bias=False))
        sparsity.attach(model, torch.optim.SGD(model.parameters()))
        for epoch, kept in enumerate(self.kept_E):
            with torch.no_grad():
                model[0].weight.view(-1).fill_(0.1)[kept] = 1.0
            sparsity.after_epoch(epoch, self.num_epochs)
            self.trained.append((0, epoch))
            yield model


def shifted(*shifts):
    """Returns 100 of 1000 positions a shift. Masks of shifts s and t differ in 2 |s - t| of 1000 positions."""
    return [torch.arange(100) + shift for shift in shifts]


def test_mask_distance_is_the_share_of_positions_that_differ():
    one = {"a": torch.rand(50, generator=stream(0, "a")) < 0.5, "b": torch.rand(3, 7, generator=stream(0, "b")) < 0.5}
    other = {"a": torch.rand(50, generator=stream(1, "a")) < 0.5, "b": torch.rand(3, 7, generator=stream(1, "b")) < 0.5}
    expected = np.mean(np.concatenate([(one[name] != other[name]).numpy().ravel() for name in one]))
    assert mask_distance(one, other) == pytest.approx(expected)
    assert mask_distance(one, one) == 0


def test_the_search_ends_when_the_newest_mask_is_close_to_all_others_of_the_window():
    for shifts, epochs, converged in [
        ((0, 0, 0, 0, 0, 50), 5, True),  # settled as soon as the window is full
        ((0, 40, 40, 40, 40, 40, 0), 6, True),
        ((0, 9, 9, 9, 9, 50), 5, True),  # 0.018 is close enough
        ((0, 10, 10, 10, 10, 10, 50), 6, True),  # 0.02 is not
        ((0, 9, 18, 27, 36, 45, 54), 7, False),  # each is close to the one before it alone
        ((0, 0, 0, 0), 4, False),  # the window is never full
    ]:
        context, eb = Scripted(shifted(*shifts)), EB(0.1)
        facts = eb.prepare(context, Tiny(2))
        assert (facts["search_epochs"], facts["converged"]) == (epochs, converged) and len(context.trained) == epochs
        assert positions(eb.masks) == shifted(*shifts)[epochs - 1].tolist()
        assert ("did not settle" in context.messages[-1]) is not converged


def test_window_and_distance_are_settings():
    masks = [{"a": torch.arange(10) < kept} for kept in (5, 3, 4)]
    assert not settled(masks, 3, 0.1) and settled(masks, 3, 0.11) and settled(masks, 2, 0.11)
    assert not settled(masks, 4, 1.0), "fewer masks than the window"
    assert EB(0.1, window=2).prepare(Scripted(shifted(0, 0, 9)), Tiny(2))["search_epochs"] == 2


def test_the_early_bird_is_a_plain_sort_of_dense_training_and_the_run_starts_from_its_own_weights():
    context, model, facts = prepared(eb := EB(0.3, window=2, distance=1.0), num_epochs=4)
    *_, trained = TinyContext(num_epochs=4).train(Sparsity(), timesteps=2, epochs=2)
    assert facts == {"search_epochs": 2, "search_timesteps": 2, "converged": True, "density": density(eb.masks)}
    assert positions(eb.masks) == largest(trained, round(0.3 * TOTAL))
    assert_same_weights(model.state_dict(), context.initial_weights())


# --- Early time


def kl_in_numpy(logits_TBC):
    p_TBC = [softmax(logits_TBC[: t + 1].double().numpy().mean(0), axis=1) for t in range(len(logits_TBC))]
    return [rel_entr(p_TBC[-1], p_BC).sum(1).mean() for p_BC in p_TBC]


# KL_1 .. KL_T in nats, and T' by the paper's section 3.3 and algorithm 1: the first t of {2, .., T - 1} with
# KL_t / KL_2 < 0.6, otherwise T. The former rule divided by the largest KL and began at t = 1.
TABLES = [
    ([9.0, 1.00, 0.59, 0.10, 0.0], 3, 2),
    ([9.0, 1.00, 0.60, 0.59, 0.0], 4, 2),
    ([9.0, 1.00, 0.90, 0.80, 0.0], 5, 2),  # no shorter T, where the former rule has 2
    ([1.0, 1.00, 0.30, 0.20, 0.0], 3, 3),
    ([0.1, 1.00, 1.39, 0.90, 0.0], 5, 1),  # README's setting has KL_3 / KL_2 from 0.90 to 1.39
    ([1.0, 0.50, 0.31, 0.0], 4, 2),
    ([1.0, 0.50, 0.29, 0.0], 3, 2),
    ([0.0, 0.0, 0.0, 0.0, 0.0], 5, 1),  # silent
    ([1.0, 0.0, 0.0, 0.0, 0.0], 5, 2),
]


def test_early_timesteps_of_written_tables():
    for kl_T, expected, by_max in TABLES:
        found = early_timesteps(torch.tensor(kl_T, dtype=torch.float64))
        assert found.timesteps == expected and found.why, kl_T
        assert timesteps_by_max(torch.tensor(kl_T, dtype=torch.float64)) == by_max, kl_T


def test_early_timesteps_equal_the_rules_in_plain_numpy():
    for seed in range(4):
        for share in [0.1, 0.3, 0.6, 1.0]:
            logits_TBC = 3 * torch.randn(6, 20, 4, generator=stream(seed, "logits"))
            kl_T = kl_in_numpy(logits_TBC)
            near = [t for t in range(2, 6) if kl_T[t - 1] / kl_T[1] < share]
            found = divergences(logits_TBC)
            np.testing.assert_allclose(found, kl_T, atol=1e-12)
            assert early_timesteps(found, share).timesteps == (near[0] if near else 6)
            assert timesteps_by_max(found, share) == 1 + next(t for t in range(6) if kl_T[t] / max(kl_T) < share)


def test_divergences_of_made_logits():
    flat, sharp = torch.zeros(3, 2), torch.tensor([[4.0, 0.0]]).expand(3, 2)
    # The means 0, 2, 8/3, 3 and 16/5 are compared with 16/5. With two classes, softmax is a sigmoid.
    whole, means = 1 / (1 + math.exp(-3.2)), [0, 2, 8 / 3, 3, 3.2]
    expected = [rel_entr([whole, 1 - whole], [1 / (1 + math.exp(-m)), 1 / (1 + math.exp(m))]).sum() for m in means]
    found = divergences(torch.stack([flat, sharp, sharp, sharp, sharp]))
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert expected[2] / expected[1] < 0.6 and early_timesteps(found).timesteps == 3


def test_a_silent_network_searches_at_all_steps_and_the_reason_is_stated():
    for logits_BC in [torch.zeros(10, 3), torch.randn(10, 3, generator=stream(0, "logits"))]:
        found = early_timesteps(divergences(logits_BC.expand(5, 10, 3)))
        assert found.timesteps == 5 and "silent" in found.why and "every KL is 0" in found.why

    class Silent(TinyContext):
        def logits(self, model, num_examples):
            return torch.zeros(4, num_examples, 3)

    context = Silent(num_epochs=4, timesteps=4)
    facts = EB(0.5, True).prepare(context, Tiny(4))
    assert facts["search_timesteps"] == 4 and "silent" in facts["early_time_why"]
    assert any("4 of 4 time steps" in line and "silent" in line for line in context.messages)


class Counting(TinyContext):
    """Records the network's number of time steps at each epoch that it trains."""

    def _one_epoch(self, model, optimizer, epoch):
        self.__dict__.setdefault("steps", []).append(model.timesteps)
        super()._one_epoch(model, optimizer, epoch)


def test_the_search_lowers_the_time_steps_of_the_same_network_after_two_epochs():
    for method in [IMP(0.4, True, kl_share=1.0), EB(0.4, True, kl_share=1.0, window=4, distance=1e-9)]:
        context, model = Counting(num_epochs=5, timesteps=6), Tiny(6)
        facts = method.prepare(context, model)
        # By hand: one network, two epochs at all steps, the choice, and the rest with fewer.
        plain = TinyContext(num_epochs=5, timesteps=6)
        by_hand = Tiny(6)
        optimizer = sgd(by_hand)
        for epoch in range(2):
            plain._one_epoch(by_hand, optimizer, epoch)
        kl_T = kl_in_numpy(plain.logits(by_hand, method.kl_examples))
        expected = next((t for t in range(2, 6) if kl_T[t - 1] / kl_T[1] < 1.0), 6)
        assert 2 < expected < 6 and facts["search_timesteps"] == expected
        by_hand.timesteps = expected
        for epoch in range(2, 5):
            plain._one_epoch(by_hand, optimizer, epoch)
        assert context.steps == [6] * 2 + [expected] * (len(context.steps) - 2)
        assert [call["timesteps"] for call in context.calls] == [6] + [expected] * (len(context.calls) - 1)
        assert facts["search_epochs"] == len(context.trained) and facts["probe_epochs"] == 2, "nothing for the bin"
        assert model.timesteps == 6
        first = context.calls[1]["masks"] if isinstance(method, IMP) else method.masks
        assert positions(first) == largest(by_hand, live(first))


def test_the_former_rule_trains_a_network_for_it_alone():
    for method in [
        IMP(0.5, True, early_rule="max"),
        EB(0.5, True, early_rule="max"),
        IMP(0.5, True, early_rule="max", kl_share=0.05, kl_examples=9),
    ]:
        context, _, facts = prepared(method, num_epochs=3, timesteps=4)
        other = TinyContext(num_epochs=3, timesteps=4)
        *_, trained = other.train(Sparsity(), timesteps=4, epochs=1)
        expected = timesteps_by_max(divergences(other.logits(trained, method.kl_examples)), method.kl_share)
        assert facts["search_timesteps"] == expected
        assert [call["timesteps"] for call in context.calls] == [4] + [expected] * (len(context.calls) - 1)
        assert [epoch for number, epoch in context.trained if number == 0] == [0]
        assert facts["search_epochs"] == len(context.trained)


def test_early_time_that_can_shorten_nothing_is_refused_before_training():
    for cls in [IMP, EB]:
        for rule, timesteps, epochs, message in [
            ("max", 1, 9, "the run has 1"),
            ("second", 1, 9, "the run has 1"),
            ("second", 3, 9, "at least 4"),
            ("second", 4, 2, "more than 2 epochs"),
        ]:
            context = TinyContext(num_epochs=epochs, timesteps=timesteps)
            for refuses in (
                lambda m, c: m.check(c.num_epochs, c.timesteps),
                lambda m, c: m.prepare(c, Tiny(c.timesteps)),
            ):
                with pytest.raises(BadInput, match=message):
                    refuses(cls(0.5, True, early_rule=rule), context)
            assert not context.trained
        with pytest.raises(BadInput, match="early_rule=max"):
            cls(0.5, True).prepare(TinyContext(timesteps=4), Tiny(3))


# --- All of them

SEARCHES = {
    "imp": lambda: IMP(0.4, rewind=2),
    "imp early": lambda: IMP(0.6, True, kl_share=1.0),
    "eb": lambda: EB(0.4, window=3, distance=1e-9),
    "eb early": lambda: EB(0.4, True, window=3, distance=1e-9, kl_share=1.0),
    "eb by max": lambda: EB(0.4, True, window=3, distance=0.5, early_rule="max"),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_an_interrupted_and_resumed_search_gives_the_same_ticket(name):
    make = SEARCHES[name]
    at = {"num_epochs": 4, "timesteps": 4}
    context, model, facts = prepared(whole := make(), **at)
    for kill_after in range(1, len(context.trained) + 1):
        killed = TinyContext(**at, kill_after=kill_after)
        with pytest.raises(Killed):
            make().prepare(killed, Tiny(4))
        again, resumed_model, resumed_facts = prepared(resumed := make(), **at, disk=killed.disk)
        assert killed.trained + again.trained == context.trained
        assert resumed_facts == facts
        assert_same_weights(resumed.masks, whole.masks)
        assert_same_weights(resumed_model.state_dict(), model.state_dict())


def test_the_estimate_is_what_a_search_makes_at_most_and_its_facts_are_plain():
    for name in SEARCHES:
        context, _, facts = prepared(method := SEARCHES[name](), num_epochs=4, timesteps=4)
        made, most = len(context.trained), method.estimated_epochs(4)
        assert made == facts["search_epochs"] <= most
        assert made == most or facts["converged"]
        assert all(type(value) in (int, float, bool, str) for value in facts.values())


def test_states_of_searches_come_back_from_a_file():
    for make in (lambda: Rewindable(1), lambda: Drawing(0.3, 2)):
        filled, empty = make(), make()
        for _ in TinyContext(num_epochs=3).train(filled, timesteps=1):
            pass
        empty.load_state_dict(restored(stored(filled.state_dict())))
        assert stored(empty.state_dict()) == stored(filled.state_dict())


def test_bad_settings_of_a_search_are_refused():
    for requested, message in [
        ({"density": 1.0}, "density below 1"),
        ({"density": 0.0}, "above 0 and at most 1"),
        ({"kl_share": 0.0}, "kl_share"),
        ({"kl_share": 1.1}, "kl_share"),
        ({"kl_examples": 0}, "kl_examples"),
        ({"early_rule": "first"}, "early_rule is one of second, max"),
        ({"search_ratio": 1.0}, "search_ratio"),
        ({"search_ratio": -0.1}, "search_ratio"),
    ]:
        for cls in [IMP, EB]:
            with pytest.raises(BadInput, match=message):
                cls(**{"density": 0.5} | requested)


def test_bad_settings_are_refused_by_name():
    for cls, name, values in [
        (IMP, "prune_share", [0.0, 1.0, math.nan]),
        (IMP, "rewind", [-1]),
        (EB, "window", [1, 0]),
        (EB, "distance", [0.0, 1.1, math.nan]),
    ]:
        for value in values:
            with pytest.raises(BadInput, match=name):
                cls(0.5, **{name: value})


def test_settings_and_their_defaults():
    early = {
        "kl_share": (float, 0.6),
        "kl_examples": (int, 1000),
        "early_rule": (str, "second"),
        "search_ratio": (float, 0.0),
    }
    assert options(IMP) == {"prune_share": (float, 0.25), "rewind": (int, 0)} | early
    assert options(EB) == {"window": (int, 5), "distance": (float, 0.02)} | early
