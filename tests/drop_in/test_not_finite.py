"""A batch with a loss or an input that is not finite is left out and named, by the same rule for every batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

from baselines.infobatch import InfoBatch
from sadp_bench.core.errors import Diverged
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.watch import CHECKED_BATCHES, watch
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.sadp import SADP
from tests.drop_in.helpers import example_loss

N, BATCH_SIZE, BAD = 40, 4, 2  # BAD: the place in the batch.


class Spiking(nn.Module):
    """[B, 6] -> logits. A neuron turns a NaN into no spike, so the logits of a NaN are finite."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.fire, self.readout = nn.Linear(6, 5), neuron.IFNode(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        logits: Tensor = self.readout(self.fire(self.hidden(x)))
        return logits


def analogue() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def trained(net: nn.Module, pruner: Pruner, bad_batch: int) -> tuple[PrunedSampler, int, list[str]]:
    """Trains an epoch in which an example of one batch has a NaN. Returns the sampler, that example, and the warnings."""
    torch.manual_seed(0)
    input, bad = torch.randn(N, 6), -1
    sampler = PrunedSampler(pruner, num_examples=N, epochs=2, batch_size=BATCH_SIZE)
    sampler.set_epoch(0)
    with watch(net, sampler), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number, index in enumerate(sampler):
            image, label_B = input[index].clone(), torch.tensor(index) % 3
            if number == bad_batch:
                image[BAD, 1], bad = torch.nan, index[BAD]
            logits = net(image)
            (sampler.weight(index) * example_loss(logits, label_B)).mean().backward()
            sampler.observe(index, logits, label_B)
    assert all(warning.filename == __file__ for warning in caught)
    return sampler, bad, [str(warning.message) for warning in caught]


CASES: list[tuple[Callable[[], nn.Module], Callable[[], Pruner], str]] = [
    (analogue, lambda: SADP(0.0), "the loss of example {bad}, in epoch 0, is not finite: its batch is left out"),
    (analogue, lambda: InfoBatch(0.0), "the loss of example {bad}, in epoch 0, is not finite: its batch is left out"),
    (
        Spiking,
        lambda: SADP(0.0),
        "an input of a layer is not finite in the batch of example {bad}, although the loss is",
    ),
]


def test_a_batch_with_a_nan_is_named_and_left_out_wherever_it_comes() -> None:
    for network, pruner, message in CASES:
        for bad_batch in (0, 3, CHECKED_BATCHES + 1):
            sampler, bad, warned = trained(network(), pruner(), bad_batch)
            [text] = warned
            assert text.startswith(message.format(bad=bad)) and "\n" not in text, (network, bad_batch)
            assert len(sampler.visited) == N // BATCH_SIZE - 1
            left_out = sampler.batches[bad_batch]
            [score_N] = (
                value for name, value in sampler.pruner.per_example().items() if name in ("score_sq_N", "score_N")
            )
            seen = torch.ones(N, dtype=torch.bool).index_fill(0, left_out, False)
            assert score_N[seen].isfinite().all() and score_N[seen].count_nonzero() > N / 2
            assert score_N[left_out].nan_to_num(0).count_nonzero() == 0
            sampler.set_epoch(1)


def test_where_no_batch_is_looked_at_a_loss_that_is_not_finite_ends_the_run_at_the_epochs_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler: Any = PrunedSampler(InfoBatch(0.0), num_examples=N, epochs=2, batch_size=BATCH_SIZE)
    sampler.set_epoch(0)
    for number, index in enumerate(sampler):
        loss_B = torch.full((BATCH_SIZE,), torch.nan if number == 9 else 1.0)
        monkeypatch.setattr("sadp_bench.drop_in.sampler.looks_at", lambda *given: False)  # As on a GPU.
        sampler.observe(index, torch.zeros(BATCH_SIZE, 3), torch.zeros(BATCH_SIZE, dtype=torch.int64), loss_B)
    with pytest.raises(Diverged, match=f"the losses of 4 examples of epoch 0 are not finite, .* example {min(index)}:"):
        sampler.set_epoch(1)
