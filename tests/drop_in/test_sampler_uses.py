"""A sampler as loops use it: looks at a batch, indices of any kind, states read anywhere, and what is forgotten."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from baselines.forgetting import ForgettingCounter
from baselines.infobatch import InfoBatch
from baselines.random_subset import Random
from sadp_bench.core.errors import BadInput
from sadp_bench.drop_in.indexed import with_index
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.watch import watch
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.sadp import SADP
from tests.drop_in.helpers import assert_refused, no_warning, observe_all, sampler_of

N = 130


def small_batches(pruner: Pruner, **requested: Any) -> PrunedSampler:
    return sampler_of(pruner, **{"batch_size": 10, **requested})


def train(sampler: PrunedSampler, epochs: range) -> None:
    for epoch in epochs:
        sampler.set_epoch(epoch)
        observe_all(sampler)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_look_at_a_batch_does_not_begin_an_epoch(workers: int) -> None:
    sampler = small_batches(Random(0.5))
    loader: Any = DataLoader(with_index(TensorDataset(torch.arange(N))), batch_sampler=sampler, num_workers=workers)
    first_B = next(iter(loader))[1]
    sampler.set_epoch(0)
    given = [index_B for _, index_B in loader]
    assert torch.equal(given[0], first_B) and len(given) == len(sampler) and len(torch.cat(given)) == 65
    with pytest.raises(BadInput, match=r"call sampler\.set_epoch"):
        next(iter(loader))


def test_an_index_may_be_a_list() -> None:
    sampler = small_batches(InfoBatch(0.5))
    indices = next(iter(sampler))
    assert torch.equal(sampler.weight(indices), sampler.weight(torch.tensor(indices)))
    sampler.observe(indices, torch.ones(len(indices), 3), torch.zeros(len(indices), dtype=torch.int64))
    assert sampler.visited[0].tolist() == indices


def test_the_length_after_a_state_is_loaded_is_the_coming_epochs() -> None:
    first, second = (small_batches(SADP(0.5, score="readout"), batch_size=3, budget="falling") for _ in range(2))
    for epoch in range(3):
        first.set_epoch(epoch)
    with no_warning():
        second.load_state_dict({**first._identity(), "epoch": 1, "pruner": first.pruner.state_dict()})
        assert len(second) == len(first) < 22  # falling: the half of 130 in threes is 22
        second.set_epoch(2)
    whole = small_batches(Random(0.5))
    train(whole, range(4))
    over = small_batches(Random(0.5))
    over.load_state_dict(whole.state_dict())
    assert len(over) == 0


def test_a_state_of_another_run_is_refused() -> None:
    state = small_batches(Random(0.5)).state_dict()
    refused: list[tuple[Any, str]] = [
        (small_batches(Random(0.3)), "the state is of prune_ratio 0.5, not 0.3"),
        (small_batches(InfoBatch(0.5)), "the state is of method Random, not InfoBatch"),
        (small_batches(Random(0.5), epochs=5), "the state is of length 4, not 5"),
        (small_batches(Random(0.5), num_examples=99), "the state is of num_examples 130, not 99"),
    ]
    assert_refused([(lambda sampler=sampler: sampler.load_state_dict(state), message) for sampler, message in refused])


def test_a_state_that_was_read_to_the_cpu_goes_where_the_sampler_has_its_own() -> None:
    pruner = SADP(0.5)
    state = small_batches(pruner).state_dict()
    state["pruner"]["bound_ratio_2L"] = torch.ones(2, 3)
    sampler = small_batches(SADP(0.5), device="meta")
    sampler.load_state_dict(state)
    where = {name: value.device.type for name, value in vars(sampler.pruner).items() if isinstance(value, torch.Tensor)}
    assert where == {"score_sq_N": "meta", "bound_ratio_2L": "meta", "factor_L": "meta", "surplus_N": "cpu"}


def test_a_forgotten_observe_causes_a_warning_and_only_where_it_matters() -> None:
    for pruner, warned in ((InfoBatch(0.5), 3), (Random(0.5), 0)):
        sampler = small_batches(pruner)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for epoch in range(4):
                sampler.set_epoch(epoch)
                for indices in sampler:
                    sampler.weight(torch.tensor(indices))
        assert ["no batch of epoch" in str(warning.message) for warning in caught] == [True] * warned
        assert all(warning.filename == __file__ for warning in caught)
    seen = small_batches(InfoBatch(0.5))
    with no_warning():
        train(seen, range(4))


def test_an_epoch_observed_in_part_causes_a_warning_that_counts() -> None:
    sampler = small_batches(InfoBatch(0.0))
    sampler.set_epoch(0)
    for number, indices in enumerate(sampler):
        if number == 6:
            break
        sampler.observe(indices, torch.zeros(len(indices), 3), torch.zeros(len(indices), dtype=torch.int64))
    with pytest.warns(UserWarning, match="only 60 of the 130 examples of epoch 0 were observed") as warned:
        sampler.set_epoch(1)
    assert [warning.filename for warning in warned] == [__file__]


def test_batches_that_something_divides_again_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sadp_bench.core.distributed.size", lambda: 2)
    monkeypatch.setattr("torch.distributed.get_backend_config", lambda: "cpu:gloo")
    for rank in range(2):
        monkeypatch.setattr("sadp_bench.core.distributed.rank", lambda rank=rank: rank)
        mine = list(epoch_of_all())
        for first in (mine[0], mine[0][:2], mine[2]):  # Also a part of a batch, and a batch left out by all.
            with no_warning():
                epoch_of_all().weight(first)
        for first in ([*mine[0], *mine[1]], *([mine[1]] if rank else [])):
            with pytest.raises(
                BadInput, match=f"process {rank} began epoch 0 with another batch .* accelerate's prepare"
            ):
                epoch_of_all().weight(first)


def epoch_of_all() -> PrunedSampler:
    sampler = small_batches(Random(0.0))
    sampler.set_epoch(0)
    return sampler


def test_losses_alone_are_enough_where_the_pruner_reads_nothing_else_and_logits_may_have_any_shape() -> None:
    logits: list[Any] = [torch.zeros(10, 4, 8, 8), {"out": torch.zeros(10, 4, 8, 8)}, None, torch.zeros(10, 7, 4)]
    labels: list[Any] = [torch.zeros(10, 8, 8, dtype=torch.int64), [{"box": 1}] * 10]
    for pruner in (InfoBatch(0.0), Random(0.0)):
        sampler = small_batches(pruner)
        with watch(torch.nn.DataParallel(torch.nn.Tanh()), sampler), no_warning():
            for indices, of_batch in zip(sampler, itertools.product(logits, labels), strict=False):
                loss_B = torch.tensor(indices).float()
                sampler.weight(indices)
                sampler.observe(indices, *of_batch, loss_B)
                if isinstance(pruner, InfoBatch):
                    assert torch.equal(pruner.score_N[indices], loss_B)
    index, label, loss_B = torch.arange(10), torch.zeros(10, dtype=torch.int64), torch.zeros(10)
    shape = r"logits are \[B, C\] or \[T, B, C\] of the 10 examples, not \[10, 4, 8, 8\]"
    refused: list[tuple[Pruner, tuple[Any, ...], str]] = [
        (
            ForgettingCounter(),
            (loss_B,),
            r"this pruner reads logits, \[B, C\] or \[T, B, C\], and these are \[10, 4, 8, 8\]",
        ),
        (InfoBatch(0.5), (), shape),
        (SADP(0.5), (loss_B,), shape),
    ]
    for pruner, more, message in refused:
        sampler = small_batches(pruner)
        sampler.set_epoch(0)
        assert_refused([(lambda s=sampler, m=more: s.observe(index, logits[0], label, *m), message)])


def test_batches_too_small_for_all_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sadp_bench.core.distributed.size", lambda: 8)
    for config, batch_size, message in (
        (
            "cpu:gloo,cuda:gloo",
            8,
            "batch_size=8, that of all processes together, gives batches of 7 examples to 8 processes",
        ),
        ("cuda:nccl", 10, r'init_process_group\("cpu:gloo,cuda:nccl"\)'),
    ):
        monkeypatch.setattr("torch.distributed.get_backend_config", lambda config=config: config)
        with pytest.raises(BadInput, match=message):
            small_batches(Random(0.5), batch_size=batch_size).set_epoch(0)


def test_the_length_changes_no_state() -> None:
    measured, plain = (small_batches(SADP(0.5, score="readout"), batch_size=3) for _ in range(2))
    before = measured.state_dict()
    assert len(measured) == len(measured) > 0
    assert str(measured.state_dict()) == str(before) and measured.epoch == -1
    for epoch in (0, 1):
        for sampler in (measured, plain):
            sampler.set_epoch(epoch)
        assert list(measured) == list(plain) and len(measured) == len(plain)
