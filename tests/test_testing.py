"""`check_pruner` passes every registered method and catches each way of breaking the contract."""

import random

import pytest
import torch

from sadp_bench.core.registry import table
from sadp_bench.pruners.base import Pruner, Selection, unweighted
from sadp_bench.testing import ContractBroken, check_pruner


@pytest.mark.parametrize("method", sorted(table("method")))
def test_every_registered_method_keeps_the_contract(method):
    check_pruner(method, ratio=0.0 if method == "full" else 0.4)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("random", {"fresh": False}),
        ("infobatch", {"native": True}),
        ("el2n", {"offset": 0.1}),
        ("sadp", {"schedule": "falling", "warmup": 0.2, "memory": 0.5, "weight_power": 0.5}),
        ("sadp", {"score": "spikes"}),
    ],
)
def test_settings_keep_the_contract(method, options):
    check_pruner(method, options)


class Plain(Pruner):
    """Keeps a fresh random part, as a stranger would write it."""

    def select(self, epoch: int) -> Selection:
        order = torch.randperm(self.num_examples, generator=self.generator(epoch))
        return unweighted(order[: self.num_kept(epoch)])


class Twice(Plain):
    def select(self, epoch):
        return unweighted(super().select(epoch).index_K // 2)


class ZeroWeight(Plain):
    def select(self, epoch):
        index_K = super().select(epoch).index_K
        return Selection(index_K, torch.zeros(len(index_K)))


class WrongType(Plain):
    def select(self, epoch):
        index_K = super().select(epoch).index_K
        return Selection(index_K.int(), torch.ones(len(index_K)))


class OffByFew(Plain):
    def select(self, epoch):
        return unweighted(super().select(epoch).index_K[:-3])


class Unseeded(Plain):
    def select(self, epoch):
        order = torch.randperm(
            self.num_examples, generator=torch.Generator().manual_seed(random.SystemRandom().randrange(9**9))
        )
        return unweighted(order[: self.num_kept(epoch)])


class GlobalState(Plain):
    def select(self, epoch):
        torch.rand(1)
        return super().select(epoch)


class Unsaveable(Plain):
    """Keeps what `select` needs in what no checkpoint holds."""

    def __init__(self, prune_ratio):
        super().__init__(prune_ratio)
        self.hidden = {1, 2}

    def select(self, epoch):
        if epoch == 0:
            self.hidden = frozenset(range(40, self.num_examples))
        rest = torch.tensor(sorted(set(range(self.num_examples)) - self.hidden))
        return unweighted(
            torch.cat([rest, torch.tensor(sorted(self.hidden), dtype=torch.int64)])[: self.num_kept(epoch)]
        )


class Forgetful(Unsaveable):
    """Leaves it out of its state."""

    def state_dict(self):
        return {name: value for name, value in vars(self).items() if name != "hidden"}


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Twice, "twice"),
        (ZeroWeight, "above 0"),
        (WrongType, "int64"),
        (OffByFew, "saves"),
        (Unseeded, "same seed"),
        (GlobalState, "global random state"),
        (Unsaveable, "attribute hidden is a frozenset, which no checkpoint holds"),
        (Forgetful, "saved and loaded"),
    ],
)
def test_a_broken_contract_is_caught(broken, says):
    with pytest.raises(ContractBroken, match=says):
        check_pruner(f"{__name__}:{broken.__name__}")


def test_a_stranger_s_method_keeps_the_contract():
    check_pruner(f"{__name__}:Plain")
