"""What the tests of `watch` share: a batch seen through it, the same by one backward pass an example, and a small loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sadp_bench.core.rng import stream
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.drop_in.watch import watch
from tests.small_runs import Chosen

SQUARES = frozenset({"input_squares", "error_squares"})
MIDDLE = frozenset({"middle_input_squares", "middle_error_squares"})
ALL = SQUARES | MIDDLE | {"features", "logit_errors", "bound_ratio"}


def own_loss(logits: Tensor, label_B: Tensor) -> Tensor:
    """Cross-entropy of the logits' mean over time, an example each."""
    return cross_entropy(logits.mean(0) if logits.dim() == 3 else logits, label_B, reduction="none")


def sampler_for(
    names: frozenset[str], weight_N: Tensor, epochs: int = 9, batch_size: int | None = None
) -> PrunedSampler:
    """Of a pruner that keeps all with these weights, and what it is shown."""
    pruner = Chosen(torch.arange(len(weight_N)), weight_N.float(), names)
    sampler = PrunedSampler(pruner, num_examples=len(weight_N), epochs=epochs, batch_size=batch_size or len(weight_N))
    sampler.set_epoch(0)
    return sampler


def uneven(batch: int) -> Tensor:
    """Weights far from each other, exact in float32."""
    return torch.tensor([0.5, 2.0, 0.125, 1.0, 4.0])[torch.arange(batch) % 5]


def watched(
    model: nn.Module,
    logits: Callable[[], Tensor],
    label_B: Tensor,
    names: frozenset[str] = ALL,
    trained_by: Callable[[Tensor, Tensor], Tensor] = own_loss,
    **how: Any,
) -> dict[str, Tensor]:
    """What one batch shows. logits: makes them, with a forward pass of the model."""
    sampler = sampler_for(names, uneven(len(label_B)))
    index_B = torch.arange(len(label_B))
    with watch(model.train(), sampler, **how):
        made = logits()
        (sampler.weight(index_B) * trained_by(made, label_B)).mean().backward()
        sampler.observe(index_B, made, label_B)
    assert isinstance(sampler.pruner, Chosen)
    return dict(sampler.pruner.seen[0].watched)


def layer_squares(model: nn.Module, layer: nn.Module, logits_of: Callable[[int], Tensor], label_B: Tensor) -> Tensor:
    """A layer's squared gradient norm by one backward pass an example. [B]. logits_of: of that example alone."""
    found = []
    for i in range(len(label_B)):
        total = own_loss(logits_of(i), label_B[i : i + 1]).sum()
        gradients = torch.autograd.grad(total, list(layer.parameters()))
        found.append(sum((g.square().sum() for g in gradients), torch.zeros(())))
    return torch.stack(found)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], rtol=rtol, atol=1e-30, msg=lambda m, name=name: f"{name}: {m}"
        )


N = 12
LABELS = torch.arange(N) % 3


def small_net(**kind: Any) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        head = nn.Linear(6, 3, **kind)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), head).double()


INPUT = torch.randn(N, 1, 4, 4, generator=stream(1, "watch"), dtype=torch.float64)


class Loop:
    """A loop of someone's own over one batch or several, on a small network."""

    def __init__(
        self, names: frozenset[str] = ALL, weight_N: Tensor | None = None, net: nn.Module | None = None, **how: Any
    ):
        self.net = small_net() if net is None else net
        self.weight_N = uneven(N) if weight_N is None else weight_N
        self.sampler = sampler_for(names, self.weight_N)
        self.watch = watch(self.net, self.sampler, **how)

    @property
    def seen(self) -> list[dict[str, Tensor]]:
        assert isinstance(self.sampler.pruner, Chosen)
        return [dict(seen.watched) for seen in self.sampler.pruner.seen]

    def logits(self, index_B: Tensor) -> Tensor:
        out: Tensor = self.net(INPUT[index_B].to(next(self.net.parameters()).dtype))
        return out

    def step(self, index_B: Tensor | None = None, total: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
        """total: of weights and losses, what is driven backward; by default their product's mean."""
        index_B = torch.arange(N) if index_B is None else index_B
        logits = self.logits(index_B)
        loss_B, weight_B = own_loss(logits, LABELS[index_B]), self.sampler.weight(index_B)
        ((weight_B * loss_B).mean() if total is None else total(weight_B, loss_B)).backward()
        self.sampler.observe(index_B, logits, LABELS[index_B])
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
