"""A loop that stops after any batch and goes on from the sampler's state is the loop that never stopped."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from baselines.infobatch import InfoBatch
from baselines.random_subset import Random
from sadp_bench.drop_in.indexed import with_index
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.watch import watch
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.sadp import SADP
from tests.drop_in.helpers import INPUT, LABELS, N, assert_refused, example_loss

EPOCHS, BATCH_SIZE = 2, 3


def hidden_layer_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)).double()


class Process:
    """A process of a user who trains: the network, its optimiser, the sampler, and a watch."""

    def __init__(self, pruner: Pruner, saved: dict[str, Any] | None = None) -> None:
        self.net = hidden_layer_net()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.5, momentum=0.9)
        self.sampler = PrunedSampler(pruner, num_examples=N, epochs=EPOCHS, batch_size=BATCH_SIZE)
        if saved is not None:
            self.net.load_state_dict(saved["net"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.sampler.load_state_dict(saved["sampler"])

    def saved(self) -> dict[str, Any]:
        """Returns the states, written to a file and read from it."""
        file = io.BytesIO()
        parts = {"net": self.net, "optimizer": self.optimizer, "sampler": self.sampler}
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)
        file.seek(0)
        states: dict[str, Any] = torch.load(file, weights_only=True)
        return states

    def train(self, states: list[Any] | None = None) -> int:
        """Trains to the end. Returns the number of batches.

        Args:
            states: Receives the states after every batch.
        """
        loader: Any = DataLoader(with_index(TensorDataset(INPUT.flatten(1), LABELS)), batch_sampler=self.sampler)
        done = 0
        with watch(self.net, self.sampler):
            for epoch in range(self.sampler.next_epoch, self.sampler.epochs):
                self.sampler.set_epoch(epoch)
                for image, label, index in loader:
                    logits = self.net(image)
                    self.optimizer.zero_grad()
                    (self.sampler.weight(index) * example_loss(logits, label)).mean().backward()
                    self.sampler.observe(index, logits, label)
                    self.optimizer.step()
                    done += 1
                    if states is not None:
                        states.append(self.saved())
        return done


def values(saved: Any) -> dict[str, list[Any]]:
    """Returns all numbers of the states."""
    state = saved["sampler"]
    return {
        "weights of the network": [value.tolist() for value in saved["net"].values()],
        "pruner": [x.nan_to_num(-1).tolist() if isinstance(x, torch.Tensor) else x for x in state["pruner"].values()],
        "rest": [x.tolist() for x in (*state["rest"]["batches"], *state["rest"]["weights"])],
    }


PRUNERS: list[Callable[[], Pruner]] = [lambda: SADP(0.25), lambda: InfoBatch(0.25), lambda: Random(0.25)]


def test_a_loop_that_stops_after_any_batch_goes_on_as_if_it_had_not() -> None:
    for pruner in PRUNERS:
        whole, states = Process(pruner()), list[Any]()
        num_batches, expected = whole.train(), values(whole.saved())
        Process(pruner()).train(states)
        for done, saved in enumerate(states, 1):
            rest = Process(pruner(), saved)
            assert rest.train() == num_batches - done
            assert values(rest.saved()) == expected, f"{type(pruner()).__name__}, stopped after batch {done}"


def test_a_state_goes_on_after_the_last_observed_batch_however_far_a_loader_is_ahead() -> None:
    sampler = PrunedSampler(InfoBatch(0.0), num_examples=N, epochs=EPOCHS, batch_size=BATCH_SIZE)

    def rest() -> list[list[int]]:
        other = PrunedSampler(InfoBatch(0.0), num_examples=N, epochs=EPOCHS, batch_size=BATCH_SIZE)
        other.load_state_dict(sampler.state_dict())
        assert other.next_epoch == (1 if not other.batches else 0)
        other.set_epoch(other.next_epoch)
        return list(other) if other.epoch == 0 else []

    sampler.set_epoch(0)
    assert rest() == [whole_B.tolist() for whole_B in sampler.batches]
    given = list(sampler)
    for k, index in enumerate(given):
        sampler.weight(index)
        sampler.observe(index[:2], torch.zeros(2, 3), LABELS[index[:2]])
        assert_refused(
            [(sampler.state_dict, f"batch {k + 1} of 4 was observed in part: take the state between batches")]
        )
        sampler.observe(index[2:], torch.zeros(1, 3), LABELS[index[2:]])
        assert rest() == given[k + 1 :]


def test_a_state_whose_place_is_unknown_is_refused() -> None:
    sampler = PrunedSampler(Random(0.0), num_examples=N, epochs=EPOCHS, batch_size=BATCH_SIZE)
    next(iter(sampler))
    assert_refused(
        [(sampler.state_dict, "1 of 4 batches were given out, and none was observed: .* call sampler.observe")]
    )


def test_a_state_of_another_setting_is_refused_and_numpys_scalars_are_plain_numbers_at_once() -> None:
    how = {"num_examples": np.int64(N), "epochs": np.int64(EPOCHS), "batch_size": np.int64(3), "seed": np.int64(1)}
    sampler = PrunedSampler(SADP(np.float64(0.25), smoothing=np.float64(0.9)), **how)
    state = sampler.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    PrunedSampler(SADP(0.25, smoothing=0.9), **how).load_state_dict(state)
    other = PrunedSampler(SADP(0.25), **how)
    assert_refused([(lambda: other.load_state_dict(state), "the state is of smoothing 0.9, not 0.2: load it into")])
    assert other.pruner.smoothing == 0.2
    del state["settings"], state["rest"]  # as states of earlier versions
    other.load_state_dict(state)
