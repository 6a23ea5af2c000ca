"""What the tests of `watch` share: one batch seen through it, and the same by one backward pass an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from small import Chosen
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sadp_bench.own_loop import PrunedSampler
from sadp_bench.watching import watch

SQUARES = frozenset({"input_squares", "error_squares"})
MIDDLE = frozenset({"middle_input_squares", "middle_error_squares"})
ALL = SQUARES | MIDDLE | {"features", "logit_errors", "tightness"}


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
