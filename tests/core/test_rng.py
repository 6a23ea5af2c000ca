"""Named random streams."""

from __future__ import annotations

import itertools

import pytest
import torch

from sadp_bench.core.rng import isolated, stream, stream_seed

CPU = torch.device("cpu")
PLACES = list(itertools.product((0, 1, 2, 10), ("order", "augmentation", "pruner", "weights"), (0, 1, 2, 10)))


def test_a_stream_is_the_same_every_time_and_in_any_order() -> None:
    first = [torch.rand(5, generator=stream(*place)) for place in PLACES]
    for place, draw in reversed(list(zip(PLACES, first, strict=True))):
        assert torch.equal(torch.rand(5, generator=stream(*place)), draw)
    assert (
        torch.rand(3, generator=stream(0, "order")).tolist() == torch.rand(3, generator=stream(0, "order", 0)).tolist()
    )


def test_the_draws_are_pinned_so_that_old_records_can_be_had_again() -> None:
    """The seed by hand: the first eight bytes of SHA-256 of '7/order/3', little-endian, without the lowest bit."""
    assert stream_seed(7, "order", 3) == 8447054841603909260


def test_seeds_names_and_epochs_give_unrelated_streams() -> None:
    seeds = {stream_seed(*place) for place in PLACES}
    assert len(seeds) == len(PLACES) and all(0 <= seed < 2**63 for seed in seeds)
    draws = torch.stack([torch.randn(4000, generator=stream(*place)) for place in PLACES])
    correlation = torch.corrcoef(draws) - torch.eye(len(PLACES))
    assert correlation.abs().max() < 5 / 4000**0.5  # five standard errors, 2016 pairs


def test_isolated_draws_depend_on_the_seed_and_name_alone_and_leave_the_global_state() -> None:
    draws = []
    for outer in (1, 2):
        torch.manual_seed(outer)
        before = torch.get_rng_state()
        with isolated(0, "weights", CPU):
            draws.append(torch.rand(4))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])
    with isolated(0, "dropout", CPU):
        assert not torch.equal(torch.rand(4), draws[0])


def test_isolation_is_undone_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), isolated(0, "weights", CPU):
        torch.rand(4)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_making_a_stream_does_not_touch_the_global_state() -> None:
    before = torch.get_rng_state()
    torch.rand(9, generator=stream(0, "order"))
    assert torch.equal(torch.get_rng_state(), before)
