"""A sampler as loops use it: looks at a batch, indices of any kind, states read anywhere, and what is forgotten."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from baselines.infobatch import InfoBatch
from baselines.random_subset import Random
from sadp_bench.core.errors import BadInput
from sadp_bench.drop_in.sampler import PrunedSampler, with_index
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.sadp import SADP

N = 130


def sampler_of(pruner: Pruner, **asked: Any) -> PrunedSampler:
    return PrunedSampler(pruner, **{"num_examples": N, "epochs": 4, "batch_size": 10, **asked})


def train(sampler: PrunedSampler, epochs: range) -> None:
    for epoch in epochs:
        sampler.set_epoch(epoch)
        for indices in sampler:
            index_B = torch.tensor(indices)
            sampler.weight(index_B)
            sampler.observe(index_B, torch.ones(len(indices), 3), index_B % 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_look_at_a_batch_does_not_begin_an_epoch(workers: int) -> None:
    sampler = sampler_of(Random(0.5))
    loader: Any = DataLoader(with_index(TensorDataset(torch.arange(N))), batch_sampler=sampler, num_workers=workers)
    first_B = next(iter(loader))[1]
    sampler.set_epoch(0)
    given = [index_B for _, index_B in loader]
    assert torch.equal(given[0], first_B) and len(given) == len(sampler) and len(torch.cat(given)) == 65
    with pytest.raises(BadInput, match=r"call sampler\.set_epoch"):
        next(iter(loader))


def test_an_index_may_be_a_list() -> None:
    sampler = sampler_of(InfoBatch(0.5))
    indices = next(iter(sampler))
    assert torch.equal(sampler.weight(indices), sampler.weight(torch.tensor(indices)))
    sampler.observe(indices, torch.ones(len(indices), 3), torch.zeros(len(indices), dtype=torch.int64))
    assert sampler.visited[0].tolist() == indices


def test_indices_of_another_sampler_are_refused_before_the_first_epoch_too() -> None:
    with pytest.raises(BadInput, match="example 5 is not among those of epoch -1"):
        sampler_of(Random(0.5)).weight(torch.tensor([5]))


def test_the_length_after_a_state_is_loaded_is_the_coming_epochs() -> None:
    first, second = (
        sampler_of(SADP(0.5, score="readout"), batch_size=3),
        sampler_of(SADP(0.5, score="readout"), batch_size=3),
    )
    for epoch in range(3):
        first.set_epoch(epoch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.load_state_dict({**first._identity(), "epoch": 1, "pruner": first.pruner.state_dict()})
        assert len(second) == len(first) < 22  # falling: the half of 130 in threes is 22
        second.set_epoch(2)
    whole = sampler_of(Random(0.5))
    train(whole, range(4))
    over = sampler_of(Random(0.5))
    over.load_state_dict(whole.state_dict())
    assert len(over) == 0


@pytest.mark.parametrize(("other", "told"), [
    (lambda: sampler_of(Random(0.3)), "prune_ratio 0.5, not 0.3"),
    (lambda: sampler_of(InfoBatch(0.5)), "method Random, not InfoBatch"),
    (lambda: sampler_of(Random(0.5), epochs=5), "length 4, not 5"),
])  # fmt: skip
def test_a_state_of_another_run_is_refused(other: Any, told: str) -> None:
    with pytest.raises(BadInput, match=f"the state is of {told}"):
        other().load_state_dict(sampler_of(Random(0.5)).state_dict())


def test_a_state_that_was_read_to_the_cpu_goes_where_the_sampler_has_its_own() -> None:
    pruner = SADP(0.5)
    state = sampler_of(pruner).state_dict()
    state["pruner"]["bound_ratio_2L"] = torch.ones(2, 3)
    sampler = sampler_of(SADP(0.5), device="meta")
    sampler.load_state_dict(state)
    where = {name: value.device.type for name, value in vars(sampler.pruner).items() if isinstance(value, torch.Tensor)}
    assert where == {"score_sq_N": "meta", "bound_ratio_2L": "meta", "surplus_N": "cpu"}


def test_a_forgotten_observe_is_told_and_only_where_it_matters() -> None:
    for pruner, warned in ((InfoBatch(0.5), 3), (Random(0.5), 0)):
        sampler = sampler_of(pruner)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for epoch in range(4):
                sampler.set_epoch(epoch)
                for indices in sampler:
                    sampler.weight(torch.tensor(indices))
        assert ["no batch of epoch" in str(one.message) for one in told] == [True] * warned
        assert all(one.filename == __file__ for one in told)
    seen = sampler_of(InfoBatch(0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(seen, range(4))


def test_batches_too_small_for_all_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sadp_bench.core.distributed.size", lambda: 8)
    for config, batch_size, told in (
        (
            "cpu:gloo,cuda:gloo",
            8,
            "batch_size=8, that of all processes together, gives batches of 7 examples to 8 processes",
        ),
        ("cuda:nccl", 10, r'init_process_group\("cpu:gloo,cuda:nccl"\)'),
    ):
        monkeypatch.setattr("torch.distributed.get_backend_config", lambda config=config: config)
        with pytest.raises(BadInput, match=told):
            sampler_of(Random(0.5), batch_size=batch_size).set_epoch(0)


def test_a_score_that_is_nan_is_refused_with_its_place() -> None:
    scores = torch.arange(10.0)
    scores[[3, 7]] = torch.nan
    with pytest.raises(BadInput, match="^2 of the 10 scores are NaN, the first that of example 3"):
        PrunedSampler(Random(0.5), num_examples=10, epochs=2, batch_size=2, scores=scores)


def test_the_length_changes_no_state() -> None:
    measured, plain = (sampler_of(SADP(0.5, score="readout"), batch_size=3) for _ in range(2))
    before = measured.state_dict()
    assert len(measured) == len(measured) > 0
    assert str(measured.state_dict()) == str(before) and measured.epoch == -1
    for epoch in (0, 1):
        for sampler in (measured, plain):
            sampler.set_epoch(epoch)
        assert list(measured) == list(plain) and len(measured) == len(plain)
