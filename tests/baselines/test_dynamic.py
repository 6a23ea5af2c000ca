"""Dynamic methods: several processes have the state of one, and an own loop passes all that they need."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch

from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.contract import selection_of
from tests.drop_in.helpers import observe_all, sampler_of
from tests.helpers import prepared_for, seen

METHODS = (
    "infobatch",
    "hwbs",
    "orderdp",
    "repb",
    "ucb",
    "eps-greedy",
    "dyn-unc-dynamic",
    "seta",
    "rcap",
    "balanced-random",
)
REVISITING = ("kakurenbo", "ies")  # a sampler can not pass examples forward
N, B = 131, 8


def made(method: str, ratio: float) -> Pruner:
    pruner: Pruner = registry.resolve("method", method)(ratio)
    return pruner


def observe(pruner: Pruner, index_B: torch.Tensor, epoch: int) -> None:
    """Lets a pruner observe results that depend on the example and the epoch alone."""
    logits_NC = 3 * torch.randn(N, 4, generator=stream(epoch, "logits"))
    logits_BC, label_B = logits_NC[index_B], index_B % 4
    loss_B = torch.nn.functional.cross_entropy(logits_BC, label_B, reduction="none")
    pruner.observe(seen(index_B, logits_TBC=logits_BC[None], label_B=label_B, loss_B=loss_B, epoch=epoch))


@pytest.mark.parametrize("method", (*METHODS, *REVISITING))
def test_two_ranks_that_exchange_what_they_visited_select_as_one_process(method: str) -> None:
    whole, *ranks = [prepared_for(made(method, 0.4), torch.arange(N) % 4, 6) for _ in range(3)]
    for epoch in range(6):
        selection = whole.select(epoch)
        for rank in ranks:
            found = rank.select(epoch)
            assert torch.equal(found.index_K, selection.index_K), (method, epoch)
            assert torch.equal(found.weight_K, selection.weight_K), (method, epoch)
        parts: list[list[torch.Tensor]] = [[], []]
        for whole_B in selection.index_K[
            torch.randperm(len(selection.index_K), generator=stream(epoch, "order"))
        ].split(B):
            observe(whole, whole_B, epoch)
            for rank, mine, index_B in zip(ranks, parts, whole_B.tensor_split(2), strict=True):
                observe(rank, index_B, epoch)
                mine.append(index_B)
        exchange(ranks, [torch.cat(mine) for mine in parts])
    assert whole.per_example()


def exchange(ranks: list[Pruner], visited: list[torch.Tensor]) -> None:
    """Gives each rank the other's entries of the examples that the other visited, as the training loop does."""
    (first, second), (by_first, by_second) = (rank.per_example() for rank in ranks), visited
    for name in first:
        first[name][by_second] = second[name][by_second]
        second[name][by_first] = first[name][by_first]


@pytest.mark.parametrize("method", METHODS)
def test_a_users_loop_draws_the_budget_and_resumes_exactly(method: str) -> None:
    whole, first, second = (sampler_of(made(method, 0.5), labels=torch.arange(130) % 3) for _ in range(3))
    visits, generators = 0, [stream(0, "own loop"), stream(0, "own loop")]
    for epoch in range(4):
        if epoch == 2:
            second.load_state_dict(first.state_dict())
        parts = whole, first if epoch < 2 else second
        for sampler, generator in zip(parts, generators, strict=True):
            sampler.set_epoch(epoch)
            observe_all(sampler, generator)
        ours, theirs = (torch.cat(sampler.batches) for sampler in parts)
        assert torch.equal(ours, theirs) and len(ours.unique()) == len(ours), (method, epoch)
        assert torch.equal(parts[0].weight(ours), parts[1].weight(ours)), (method, epoch)
        visits += len(ours)
    assert visits == 130 * 4 / 2


def test_a_few_examples_are_selected_or_refused_in_one_line() -> None:
    for method, num_examples, ratio in itertools.product((*METHODS, *REVISITING), (2, 3, 4, 5), (0.5, 0.7)):
        try:
            pruner = made(method, ratio)
            pruner.check(5)
            prepared_for(pruner, torch.arange(num_examples) % 2, 5)
            for epoch in range(5):
                observe(pruner, selection_of(pruner, epoch).index_K, epoch)
        except BadInput as error:
            assert "\n" not in str(error) and ("ratio" in str(error)), (method, num_examples, ratio, str(error))


def test_every_setting_of_a_method_is_finite() -> None:
    tried = 0
    for method in registry.table("method"):
        cls = registry.resolve("method", method)
        for name, (kind, _) in registry.options(cls).items():
            if kind is float or float in get_args(kind):
                for value in (math.nan, math.inf, -math.inf):
                    tried += 1
                    with pytest.raises(BadInput, match=f" not {value:g}"):
                        pytest.fail(f"{method} takes {name}={value}: {cls(0.5, **{name: value})}")
    assert tried > 60
