"""A pruner in a hand-written loop: the same selections and weights as the suite's own loop, and refused mistakes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from baselines.ceiling import Ceiling
from baselines.el2n import EL2N
from baselines.fewer_epochs import FewerEpochs
from baselines.infobatch import InfoBatch
from baselines.random_subset import Random
from sadp_bench.capture.recorder import Recorder
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.drop_in.indexed import with_index
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.watch import watch
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Selection
from sadp_bench.pruners.sadp import SADP
from sadp_bench.runs.preflight import check_runs
from tests.drop_in.helpers import assert_refused, observe_all, sampler_of, train_by_hand
from tests.small_runs import small_bench

N = 130


def noted_selections(pruner: Pruner, monkeypatch: pytest.MonkeyPatch) -> list[Selection]:
    """Returns a list that receives each selection of the pruner."""
    selections: list[Selection] = []
    select = pruner.select

    def noted(epoch: int) -> Selection:
        selections.append(select(epoch))
        return selections[-1]

    monkeypatch.setattr(pruner, "select", noted)
    return selections


METHODS: dict[str, Any] = {
    "sadp": lambda: SADP(0.5),
    "infobatch": lambda: InfoBatch(0.5),
    "random": lambda: Random(0.5),
    "el2n": lambda: EL2N(0.5),
    "fewer-epochs": lambda: FewerEpochs(0.3),
    "ceiling": lambda: Ceiling(0.5),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_loop_by_hand_has_the_selections_and_weights_of_the_suites_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = small_bench(method=name, ratio=METHODS[name]().prune_ratio, epochs=5, augment="crop")
    expected = noted_selections(bench.pruner, monkeypatch)
    rows = list(bench.rows())

    hand = small_bench(method="full", epochs=5, augment="crop")  # For its data, network and optimiser only.
    scores = getattr(bench.pruner, "score_N", None) if name == "el2n" else None
    sampler = PrunedSampler(
        METHODS[name](), labels=hand.data.label_N, epochs=5, batch_size=50, seed=hand.spec.seed, scores=scores
    )
    found = noted_selections(sampler.pruner, monkeypatch)
    assert sampler.epochs == len(rows)
    for epoch in range(sampler.epochs):
        sampler.set_epoch(epoch)
        assert len(sampler) == (2 if name == "ceiling" else -(-rows[epoch]["kept"] // 50))
        with Recorder(hand.model, sampler.pruner.watch(0)) as recorder:
            train_by_hand(hand, sampler, epoch, recorder)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.index_K, b.index_K) and torch.equal(a.weight_K, b.weight_K)
    for ours, theirs in zip(hand.model.parameters(), bench.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_image_label_and_index_of_the_selection(workers: int) -> None:
    images = torch.arange(N).float()
    sampler = sampler_of(Random(0.3))
    persistent = {"persistent_workers": True} if workers else {}
    loader: Any = DataLoader(
        with_index(TensorDataset(images, torch.arange(N) % 7)), batch_sampler=sampler, num_workers=workers, **persistent
    )
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(loader)
        assert [len(index_B) for *_, index_B in batches] == [46, 45] and len(loader) == 2
        index_K = torch.cat([index_B for *_, index_B in batches])
        assert len(index_K.unique()) == 91
        for image_B, label_B, index_B in batches:
            assert torch.equal(image_B.long(), index_B) and torch.equal(label_B, index_B % 7)
            assert sampler.weight(index_B).tolist() == [1.0] * len(index_B)


@pytest.mark.parametrize("pruner", [lambda: InfoBatch(0.5), lambda: Random(0.5)])
def test_a_state_goes_on_exactly(pruner: Any) -> None:
    whole, first, second = (sampler_of(pruner(), labels=torch.arange(N) % 3) for _ in range(3))
    ways = []
    for parts in ([whole] * 4, [first, first, second, second]):
        generator, epochs = stream(0, "own loop"), []
        for epoch, sampler in enumerate(parts):
            if epoch == 2 and sampler is second:
                second.load_state_dict(first.state_dict())
            sampler.set_epoch(epoch)
            epochs.append((sampler.batches, sampler.weight_N.nan_to_num(-1)))
            observe_all(sampler, generator)
        ways.append(epochs)
    for (batches, weights), (again, weights_again) in zip(*ways, strict=True):
        assert [b.tolist() for b in batches] == [b.tolist() for b in again] and torch.equal(weights, weights_again)


def test_len_before_the_first_epoch_is_that_of_the_first() -> None:
    sampler = sampler_of(Random(0.5))
    assert len(sampler) == 2 and len(list(sampler)) == 2


def with_epoch(pruner: Pruner, **requested: Any) -> PrunedSampler:
    sampler = sampler_of(pruner, **requested)
    sampler.set_epoch(0)
    return sampler


INDEX, LABEL, LOGITS = torch.arange(3), torch.tensor([0, 1, 2]), torch.randn(3, 5)
MISTAKES: list[tuple[Any, str]] = [
    (lambda: PrunedSampler(Random(0.5), epochs=3, batch_size=5), "labels= or num_examples="),
    (lambda: sampler_of(Random(0.5), labels=[0, 1]), "num_examples=130 does not fit the 2 labels"),
    (lambda: sampler_of(Random(0.5), epochs=0), "epochs is at least 1"),
    (lambda: sampler_of(Random(0.5), batch_size=0), "batch_size is at least 1"),
    (lambda: sampler_of(InfoBatch(0.9)), "infobatch with delta"),
    (lambda: sampler_of(EL2N(0.5)), "pass scores="),
    (lambda: sampler_of(EL2N(0.5), scores=[1.0]), "one number for each of the 130"),
    (lambda: sampler_of(EL2N(0.5), scores=[0.0] * 3 + [float("nan")] * 127), "127 of the 130 .* NaN, .* of example 3"),
    (lambda: with_epoch(Random(0.5)).set_epoch(2), "does not follow epoch 0"),
    (lambda: [with_epoch(Random(0.5), epochs=1).set_epoch(e) for e in (0, 1)], "0 to 0"),
    (lambda: [list(s) for s in [with_epoch(Random(0.5))] * 2], "call sampler.set_epoch"),
    (lambda: with_epoch(Random(0.5)).observe(INDEX, LOGITS, LABEL, LOGITS.mean()), 'reduction="none"'),
    (lambda: with_epoch(Random(0.5)).observe(INDEX, LOGITS[:2], LABEL), "of the 3 examples, not"),
    (lambda: with_epoch(SADP(0.5)).observe(INDEX, LOGITS, LABEL), r"SADP needs logit_errors, .*: call watch\("),
    (lambda: sampler_of(Random(0.5)).weight(torch.tensor([5])), "example 5 is not among those of epoch -1"),
]


def test_mistakes_are_refused_in_one_line() -> None:
    assert_refused(MISTAKES)


def test_a_weight_of_an_example_that_was_not_drawn_is_refused() -> None:
    sampler = with_epoch(Random(0.5))
    drawn = set(torch.cat(sampler.batches).tolist())
    other = next(i for i in range(N) if i not in drawn)
    with pytest.raises(BadInput, match=f"example {other} is not among those of epoch 0"):
        sampler.weight(torch.tensor([other]))


def test_forgotten_weights_cause_one_warning_and_only_where_they_matter() -> None:
    logits = torch.randn(N, 3)
    for pruner, warned in ((InfoBatch(0.5), 1), (Random(0.5), 0)):
        sampler = with_epoch(pruner)
        with warnings.catch_warnings(record=True) as warned_of:
            warnings.simplefilter("always")
            for indices in sampler:
                sampler.observe(torch.tensor(indices), logits[: len(indices)], torch.tensor(indices) % 3)
        assert len(warned_of) == warned


def test_a_state_needs_no_observation_of_a_pruner_that_looks_at_nothing() -> None:
    sampler = with_epoch(Random(0.5))
    list(sampler)
    assert sampler.state_dict()["epoch"] == 0


class FormerWatch(Random):
    """A pruner whose `watch` is an attribute."""

    watch = frozenset({"logit_errors"})  # type: ignore[assignment]


def test_a_watch_that_is_no_method_is_refused_by_sampler_loop_and_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, sampler = small_bench(FormerWatch(0.5)), sampler_of(FormerWatch(0.5))
    monkeypatch.setattr("sadp_bench.runs.preflight.make_pruner", lambda spec: FormerWatch(0.5))
    sampler.set_epoch(0)
    uses: list[Any] = [
        lambda: next(bench.rows()),
        lambda: check_runs([bench.spec], bench.resources),
        lambda: sampler.observe(INDEX, LOGITS, LABEL),
        lambda: watch(bench.model, sampler),
    ]
    for use in uses:
        with pytest.raises(
            BadInput, match=r"^FormerWatch.watch is a frozenset, and must be a method: write 'def watch"
        ):
            use()


def test_nothing_else_of_torch_is_touched() -> None:
    before = torch.get_rng_state()
    loader = DataLoader.__iter__
    sampler = with_epoch(SADP(0.5))
    list(sampler)
    assert torch.equal(torch.get_rng_state(), before) and DataLoader.__iter__ is loader


def test_a_dataset_of_single_items_gets_an_index_too() -> None:
    dataset = with_index([10, 20])
    assert dataset[1] == (20, 1) and len(dataset) == 2
