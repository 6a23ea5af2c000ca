"""Inputs of the fused block, and a function's results of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sadp_bench.core.lif_equation import LIFEquation

Results = dict[str, Tensor]
Block = Callable[["Case", Tensor, nn.BatchNorm2d | None], tuple[Tensor, Tensor]]
PLAIN = LIFEquation(2.0, 1.0, 1.0, False, "atan")


@dataclass(frozen=True)
class Case:
    shape: tuple[int, int, int, int]
    timesteps: int = 4
    pool: int = 1
    still: bool = False
    norm: str = "training"  # "evaluation", "untracked", "none"
    carried: bool = False
    neuron: LIFEquation = PLAIN
    dtype: torch.dtype = torch.float32
    shared: bool = False  # whether the examples have shares in the batch's statistics

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)

    def y(self) -> Tensor:
        return (1.5 * self.draw(*self.shape) + 1).to(self.dtype)

    def norm_layer(self) -> nn.BatchNorm2d | None:
        if self.norm == "none":
            return None
        channels = self.shape[1]
        made = nn.BatchNorm2d(channels, momentum=0.3, track_running_stats=self.norm != "untracked").to(self.dtype)
        made = made.float() if self.dtype == torch.bfloat16 else made
        state = {"weight": torch.linspace(0.5, 1.5, channels), "bias": torch.linspace(-0.3, 0.5, channels)}
        state |= {"running_mean": torch.full((channels,), 0.7), "running_var": torch.full((channels,), 2.0)}
        made.load_state_dict(state, strict=False)
        return made.train(self.norm != "evaluation")

    def share_B(self) -> Tensor | None:
        """Shares of mean 1, the second of which is 0."""
        batch = self.shape[0] if self.still else self.shape[0] // self.timesteps
        weight_B = torch.arange(1.0, batch + 1, dtype=torch.float64).square()
        weight_B[1] = 0
        return weight_B / weight_B.mean() if self.shared else None

    def before(self) -> Tensor | None:
        number, channels, height, width = self.shape
        batch = number if self.still else number // self.timesteps
        return self.draw(batch, channels, height // self.pool, width // self.pool).float() if self.carried else None


def outcome(case: Case, block: Block, dtype: torch.dtype, device: str = "cpu") -> Results:
    """Returns a block's results of the case, computed in a type on a device, as float64 on the CPU."""
    y, norm = case.y().to(device, dtype).requires_grad_(), case.norm_layer()
    if norm is not None:
        norm.to(device, torch.float64 if dtype == torch.float64 else None)
    spikes, after = block(case, y, norm)
    error = torch.linspace(-1, 1, spikes.numel()).view(spikes.shape).to(case.dtype)
    spikes.backward(error.to(device, dtype))
    assert y.grad is not None
    made = {"spikes": spikes.detach(), "membrane": after.detach(), "input's gradient": y.grad}
    if norm is not None:
        made |= {f"{name}'s gradient": parameter.grad for name, parameter in norm.named_parameters()}
        made |= dict(norm.named_buffers())
    return {name: value.double().cpu() for name, value in made.items() if value is not None}


CASES = {
    "training": Case((12, 3, 7, 5)),
    "pooled, odd sides, two tiles": Case((76, 5, 9, 7), pool=2),
    "one channel, carried": Case((12, 1, 5, 6), carried=True, neuron=LIFEquation(2.0, 1.0, 0.4, False, "atan")),
    "one step, two tiles of channels": Case((5, 130, 3, 3), timesteps=1),
    "evaluation, sigmoid": Case((12, 3, 4, 5), norm="evaluation", neuron=LIFEquation(3.0, 1 / 3, 0.5, False, "sigmoid")),
    "no running statistics": Case((12, 3, 4, 4), norm="untracked"),
    "no norm, pooled": Case((12, 3, 6, 5), pool=2, norm="none"),
    "still, soft": Case((5, 3, 6, 7), still=True, pool=2, neuron=LIFEquation(3.0, 1.0, 0.7, True, "atan")),
    "bfloat16, soft, triangle": Case(
        (12, 3, 6, 7), pool=2, neuron=LIFEquation(1.5, 1.0, 0.5, True, "triangle"), dtype=torch.bfloat16
    ),
    "shares, pooled, two tiles": Case((76, 5, 9, 7), pool=2, shared=True),
    "shares, bfloat16": Case((12, 3, 6, 7), dtype=torch.bfloat16, shared=True),
    "shares, still, float64": Case((6, 2, 5, 5), still=True, dtype=torch.float64, shared=True),
    "float64, still, carried": Case((6, 2, 5, 5), still=True, carried=True, dtype=torch.float64),
}  # fmt: skip
