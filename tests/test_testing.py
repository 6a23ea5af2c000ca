"""`check_pruner` passes every registered method and catches each way of breaking the contract."""

import random

import pytest
import torch

from sadp_bench.core.registry import table
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.batching import in_order
from sadp_bench.pruners.exchange import Selection, unweighted
from sadp_bench.testing import SETTING, SIMULATED, ContractBroken, SecondDevice, check_pruner
from tests.small_runs import needed_options

# Each registered method with options that change what it keeps or watches.
OPTIONS = {
    "random": [{"fresh": False}],
    "infobatch": [{"native": True}],
    "el2n": [{"offset": 0.1}],
    "balanced-random": [{"fresh": False, "share": "proportional"}],
    "rcap": [{"class_loss": "kept"}],
    "seta": [{"groups": 9, "window": 3, "delta": 1.0}],
    "kakurenbo": [{"refresh": False, "rescale": False}],
    "sadp": [{"draw": "balanced", "memory": 0.5, "weight_power": 0.5}, {"score": "spikes"}, {"score": "exact"}],
}


@pytest.mark.parametrize("method", sorted(table("method")))
def test_every_registered_method_keeps_the_contract(method):
    for options in (needed_options(method, SETTING["train_examples"]), *OPTIONS.get(method, [])):
        check_pruner(method, options, ratio=0.0 if method == "full" else 0.4)


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
    """Keeps the state of `select` in an object that no checkpoint can contain."""

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
    """Leaves `hidden` out of its state."""

    def state_dict(self):
        return {name: value for name, value in vars(self).items() if name != "hidden"}


class MixesDevices(Plain):
    """Keeps scores on the CPU, whatever the device of its observations."""

    def prepare(self, context):
        super().prepare(context)
        self.score_N = torch.zeros(self.num_examples)

    def observe(self, seen):
        self.score_N[seen.index_B] = seen.loss_B


class SelectsOnTheDevice(Plain):
    """Scores, draws and weights on the context's device."""

    def prepare(self, context):
        super().prepare(context)
        self.score_N = torch.ones(self.num_examples, device=context.device)

    def observe(self, seen):
        self.score_N[seen.index_B] = 0.5 * self.score_N[seen.index_B] + seen.loss_B

    def select(self, epoch):
        index_K = super().select(epoch).index_K.to(self.score_N.device)
        return Selection(index_K, torch.ones(len(index_K), device=self.score_N.device) + 0 * self.score_N[index_K])


def broken(pruner):
    with pytest.raises(ContractBroken) as error:
        check_pruner(f"{__name__}:{pruner.__name__}")
    return str(error.value)


def test_a_broken_contract_is_caught():
    for pruner, expected in (
        (Twice, "twice"),
        (ZeroWeight, "above 0"),
        (WrongType, "int64"),
        (OffByFew, "saves"),
        (Unseeded, "same seed"),
        (GlobalState, "global random state"),
        (Unsaveable, "attribute hidden is a frozenset, which no checkpoint holds"),
        (Forgetful, "saved and loaded"),
        (MixesDevices, "would fail on a GPU: `__setitem__` meets tensors of `context.device` and of the CPU"),
    ):
        assert expected in broken(pruner), pruner


def test_methods_of_other_packages_keep_the_contract():
    for pruner in (Plain, SelectsOnTheDevice):
        check_pruner(f"{__name__}:{pruner.__name__}")


def test_the_loop_takes_a_selection_from_any_device():
    order_N = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    selection = unweighted(torch.arange(5))
    with SecondDevice():
        moved = Selection(selection.index_K.to(SIMULATED), selection.weight_K.to(SIMULATED))
        assert moved.index_K.device == SIMULATED
        found = in_order(moved, order_N)
    assert all(map(torch.equal, found, in_order(selection, order_N)))


def test_the_simulated_device_refuses_what_a_gpu_refuses():
    with SecondDevice():
        there, here = torch.arange(4.0, device=SIMULATED), torch.arange(4)
        assert (2 * there[here] + torch.tensor(1.0)).device == there.cpu().to(there).device == SIMULATED
        assert there.cpu().device == here.device == torch.device("cpu") and float(there.sum()) == 6
        for mixed in (
            lambda: there + here,
            lambda: here[there.long()],
            lambda: torch.cat([there, here]),
            lambda: there.index_add_(0, here, there),
            lambda: torch.rand(3, device=SIMULATED, generator=torch.Generator()),
        ):
            with pytest.raises(ContractBroken, match="GPU"):
                mixed()
