"""Helpers of the tests of `watch`: a watched batch, the same by one backward pass for each example, and a small loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench.capture.recorder import Recorder
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import logit_errors, mean_loss
from sadp_bench.core.rng import stream
from sadp_bench.drop_in.indexed import with_index
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.watch import watch
from sadp_bench.pruners.base import Pruner
from sadp_bench.runs.trainer import RunTrainer
from sadp_bench.training.augmentation import draw_augmentation
from sadp_bench.training.backprop import at_precision
from sadp_bench.training.optimizer import learning_rate, set_learning_rate
from tests.small_runs import Chosen

SQUARES = frozenset({"input_squares", "error_squares"})
MIDDLE = frozenset({"middle_input_squares", "middle_error_squares"})
ALL = SQUARES | MIDDLE | {"features", "logit_errors", "bound_ratio"}


def example_loss(logits: Tensor, label_B: Tensor) -> Tensor:
    """Returns the cross-entropy of the logits' mean over time, for each example."""
    return cross_entropy(logits.mean(0) if logits.dim() == 3 else logits, label_B, reduction="none")


def sampler_for(
    names: frozenset[str], weight_N: Tensor, epochs: int = 9, batch_size: int | None = None
) -> PrunedSampler:
    """Returns a sampler whose pruner keeps all examples with these weights and stores its observations."""
    pruner = Chosen(torch.arange(len(weight_N)), weight_N.float(), names)
    sampler = PrunedSampler(pruner, num_examples=len(weight_N), epochs=epochs, batch_size=batch_size or len(weight_N))
    sampler.set_epoch(0)
    return sampler


def uneven(batch: int) -> Tensor:
    """Returns weights far from each other, exact in float32."""
    return torch.tensor([0.5, 2.0, 0.125, 1.0, 4.0])[torch.arange(batch) % 5]


def watched(
    model: nn.Module,
    logits: Callable[[], Tensor],
    label_B: Tensor,
    names: frozenset[str] = ALL,
    trained_by: Callable[[Tensor, Tensor], Tensor] = example_loss,
    **how: Any,
) -> dict[str, Tensor]:
    """Returns the signals of one batch. `logits` makes the logits by a forward pass of the model."""
    sampler = sampler_for(names, uneven(len(label_B)))
    index_B = torch.arange(len(label_B))
    with watch(model.train(), sampler, **how):
        made = logits()
        (sampler.weight(index_B) * trained_by(made, label_B)).mean().backward()
        sampler.observe(index_B, made, label_B)
    assert isinstance(sampler.pruner, Chosen)
    return dict(sampler.pruner.seen[0].watched)


def layer_squares(model: nn.Module, layer: nn.Module, logits_of: Callable[[int], Tensor], label_B: Tensor) -> Tensor:
    """Returns a layer's squared gradient norms by a backward pass for each example. [B].

    Args:
        model: The network.
        layer: A layer of it.
        logits_of: Returns the logits of the example at a place of the batch.
        label_B: The labels.
    """
    found = []
    for i in range(len(label_B)):
        total = example_loss(logits_of(i), label_B[i : i + 1]).sum()
        gradients = torch.autograd.grad(total, list(layer.parameters()))
        found.append(sum((g.square().sum() for g in gradients), torch.zeros(())))
    return torch.stack(found)


def assert_bounded(
    model: nn.Module,
    layers: list[nn.Module],
    logits_of: Callable[[int], Tensor],
    label_B: Tensor,
    found: dict[str, Tensor],
    rtol: float = 1e-9,
    ratio_rtol: float = 1e-9,
) -> Tensor:
    """Asserts that squares bound every layer's exact norms, and that the bound ratio's are exact. Returns them, [L, B]."""
    exact_LB = torch.stack([layer_squares(model, layer, logits_of, label_B) for layer in layers])
    assert (exact_LB > 0).any(1).all()
    assert (exact_LB <= found["input_squares"] * found["error_squares"] * (1 + rtol)).all()
    measured_L = exact_LB[:, : len(label_B) // 4].sum(1)
    torch.testing.assert_close(found["bound_ratio"][0], measured_L, rtol=ratio_rtol, atol=1e-30)
    return exact_LB


@contextmanager
def no_warning() -> Iterator[None]:
    """Turns warnings into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def assert_refused(mistakes: list[tuple[Callable[..., Any], str]], made: Callable[[], tuple[Any, ...]] = tuple) -> None:
    """Asserts that each mistake, a call with what `made` returns, raises BadInput with one line that fits its pattern."""
    for mistake, message in mistakes:
        with pytest.raises(BadInput, match=message) as error:
            mistake(*made())
        assert "\n" not in str(error.value), error.value


def sampler_of(pruner: Pruner, **requested: Any) -> PrunedSampler:
    """Returns a sampler of 130 examples for four epochs."""
    return PrunedSampler(pruner, **{"num_examples": 130, "epochs": 4, "batch_size": 50, **requested})


def observe_all(sampler: PrunedSampler, generator: torch.Generator | None = None) -> None:
    """Weighs and observes every batch of the current epoch, with drawn logits."""
    for indices in sampler:
        index_B = torch.tensor(indices)
        sampler.weight(index_B)
        sampler.observe(index_B, torch.randn(len(indices), 3, generator=generator), index_B % 3)


def drawn(*shape: int) -> Tensor:
    """Returns normal numbers in float64, the same for every call."""
    return torch.randn(*shape, generator=stream(0, "watch"), dtype=torch.float64)


def train_by_hand(bench: RunTrainer, sampler: PrunedSampler, epoch: int, recorder: Recorder | None = None) -> int:
    """Trains one epoch on the bench's network, written as a user would. Returns the number of visits.

    Args:
        bench: A run, for its data, network and optimiser.
        sampler: The sampler of the epoch.
        epoch: The epoch.
        recorder: Records the pruner's signals where no `watch` does.
    """
    spec, data, optimizer = bench.spec, bench.data, bench.state.optimizer
    forward = at_precision(bench.model, spec.precision, data.device)
    augmentation = draw_augmentation(
        spec.augment, len(data), data.padding, data.sides, stream(spec.seed, "augmentation", epoch)
    )
    num_visits, num_kept = 0, sum(map(len, sampler.batches))
    portion = min(1.0, sampler.length - epoch)
    bench.model.train()
    loader: Any = DataLoader(with_index(TensorDataset(data.label_N)), batch_sampler=sampler)
    for label_B, index_B in loader:
        share = (epoch + portion * num_visits / num_kept) / sampler.length
        set_learning_rate(optimizer, learning_rate(spec, share))
        optimizer.zero_grad()
        logits_TBC = forward(data.input(index_B, augmentation))
        loss_B = mean_loss(logits_TBC, label_B)
        weight_B = sampler.weight(index_B)
        ((weight_B * loss_B).sum() / len(index_B)).backward()
        watched = None
        if recorder is not None:
            watched = recorder.seen(weight_B / len(index_B))
            if "logit_errors" in sampler.pruner.watch(epoch):
                watched["logit_errors"] = logit_errors(mean_loss, logits_TBC, label_B)
        sampler.observe(index_B, logits_TBC, label_B, loss_B, watched)
        optimizer.step()
        num_visits += len(index_B)
    return num_visits


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], rtol=rtol, atol=1e-30, msg=lambda m, name=name: f"{name}: {m}"
        )


N = 12
EVERY = torch.arange(N)
LABELS = EVERY % 3


def small_net(**kind: Any) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        head = nn.Linear(6, 3, **kind)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), head).double()


INPUT = torch.randn(N, 1, 4, 4, generator=stream(1, "watch"), dtype=torch.float64)


class Loop:
    """A user's loop over one batch or several, on a small network. Keyword arguments go to `watch`."""

    def __init__(
        self, names: frozenset[str] = ALL, weight_N: Tensor | None = None, net: nn.Module | None = None, **how: Any
    ):
        self.net: Any = small_net() if net is None else net
        self.weight_N = uneven(N) if weight_N is None else weight_N
        self.sampler = sampler_for(names, self.weight_N)
        self.watch = watch(self.net, self.sampler, **how)

    @property
    def seen(self) -> list[dict[str, Tensor]]:
        assert isinstance(self.sampler.pruner, Chosen)
        return [dict(seen.watched) for seen in self.sampler.pruner.seen]

    def logits(self, index_B: Tensor = EVERY) -> Tensor:
        out: Tensor = self.net(INPUT[index_B].to(next(self.net.parameters()).dtype))
        return out

    def observe(self, logits: Tensor, index_B: Tensor = EVERY) -> None:
        self.sampler.observe(index_B, logits, LABELS[index_B])

    def step(
        self,
        index_B: Tensor = EVERY,
        total: Callable[[Tensor, Tensor], Tensor] = lambda weight_B, loss_B: (weight_B * loss_B).mean(),
        autocast: torch.dtype | None = None,
    ) -> Tensor:
        """Trains on a batch and observes it. Returns the logits.

        Args:
            index_B: The examples.
            total: Returns the batch's loss, of weights and losses.
            autocast: The data type of the forward pass and the loss.
        """
        with torch.autocast("cpu", autocast) if autocast else nullcontext():
            logits = self.logits(index_B)
            loss = total(self.sampler.weight(index_B), example_loss(logits, LABELS[index_B]))
        loss.backward()
        self.observe(logits, index_B)
        return logits


def plain() -> dict[str, Tensor]:
    loop = Loop()
    loop.step()
    return loop.seen[0]


class Head(nn.Module):
    """[B, 1, 4, 4] -> logits by 3 steps of a linear head, in one of the ways in which networks give theirs."""

    def __init__(self, give: Callable[[Tensor], Any], bias: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(6)
            self.body, self.head = nn.Linear(16, 6).double(), nn.Linear(6, 3, bias=bias).double()
        self.give = give

    def forward(self, x: Tensor) -> Any:
        steps = torch.stack([(k * self.body(x.flatten(1))).tanh() for k in (0.5, 1.0, 2.0)])
        return self.give(self.head(steps))
