"""Backpropagation of a batch: forward pass, loss, weighted backward pass. A run has one of the strategies.

T time steps, B examples, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.recorder import Recorder
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import Loss
from sadp_bench.core.precision import widened

Forward = Callable[[Tensor], Tensor]  # model input -> logits_TBC, at least float32


class Backprop(ABC):
    """A way to make a batch's gradient.

    Args:
        model: The network.
        precision: "fp32", "bf16" (autocast) or "fp64".
        device: The network's.

    Attributes:
        gradient_share: The share of the time steps that give gradients.
    """

    gradient_share = 1.0

    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        self.model, self.precision, self.device = model, precision, device

    @abstractmethod
    def __call__(
        self,
        loss: Loss,
        input: Tensor,
        label_B: Tensor,
        weight_B: Tensor,
        batch_size: float,
        draws: torch.Generator,
        recorder: Recorder | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Accumulates into `.grad` the gradient of sum(weight_B * loss_B) / batch_size, or an estimate of it.

        Args:
            loss: See `core.losses`.
            input: As `Loader.input` gives it.
            label_B: int64.
            weight_B: Weights of the losses, float32.
            batch_size: Size of the whole batch divided by the number of processes, whose gradients are averaged.
            draws: Where random numbers come from.
            recorder: Records the pass. It receives which step is the middle one where the network runs step by step.

        Returns:
            logits_TBC, and loss_B before weighting, detached.
        """


class BPTT(Backprop):
    """Backpropagation through time: all steps in one graph, whose memory grows with T."""

    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        super().__init__(model, precision, device)
        self.forward = at_precision(distributed.wrapped(model), precision, device)

    def __call__(
        self,
        loss: Loss,
        input: Tensor,
        label_B: Tensor,
        weight_B: Tensor,
        batch_size: float,
        draws: torch.Generator,
        recorder: Recorder | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Backprop`."""
        logits_TBC = self.forward(input)
        loss_B = loss(logits_TBC, label_B)
        ((loss_B * weight_B.to(loss_B.dtype)).sum() / batch_size).backward()
        return logits_TBC.detach(), loss_B.detach()


class SLTT(Backprop):
    """Spatial learning through time: gradients flow through the layers of each step, and not from step to step.

    Source: Meng, Xiao, Yan, Wang, Lin & Luo, "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
    Networks", ICCV 2023.

    A membrane is charged from the one before as from a constant: v[t] = (1 - 1/tau) detach(v[t-1]) + x[t]. Each step has
    a separate graph, of its loss / T, which is freed before the next step, so the memory does not grow with T. As in the
    authors' code, batch norm takes the statistics of each step, and updates its running statistics at every step. Unlike
    there, the first convolution and norm of a static image are computed once, because every step has the same input.
    They get the steps' summed gradient in one backward pass.

    SpikingJelly's `SLTTLIFNode` is the same neuron for networks that are called step by step, with its backward pass by
    autograd. This class runs the suite's kernels on one step at a time. A test compares the two.
    """

    def __call__(
        self,
        loss: Loss,
        input: Tensor,
        label_B: Tensor,
        weight_B: Tensor,
        batch_size: float,
        draws: torch.Generator,
        recorder: Recorder | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Backprop`."""
        num_steps = self.model.steps(input)  # type: ignore[operator]
        live = self.live_steps(num_steps, draws)
        middle = sorted(live)[len(live) // 2]

        def of_step(step: int, outputs: Callable[[], Tensor]) -> Tensor:
            recorded = nullcontext() if recorder is None else recorder.step(is_middle=step == middle)
            with torch.set_grad_enabled(step in live), recorded:
                logits_1BC = widened(outputs())
                if step in live:
                    loss_B = loss(logits_1BC, label_B)
                    with torch.autocast(self.device.type, enabled=False):
                        ((loss_B * weight_B.to(loss_B.dtype)).sum() / batch_size / num_steps).backward()
            return logits_1BC.detach()

        # A cache would give a step the copy of a weight that another step has made, perhaps without a graph.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False):
            logits_TBC: Tensor = self.model(input, of_step)
        distributed.average_gradients(self.model)
        return logits_TBC, loss(logits_TBC, label_B)

    def live_steps(self, num_steps: int, draws: torch.Generator) -> frozenset[int]:
        """Returns the steps that give gradients."""
        return frozenset(range(num_steps))


class SLTTK(SLTT):
    """SLTT through K random steps of each batch; the other steps build no graph.

    Source: as SLTT (there "SLTT-K"). The loss stays divided by T, so the expected gradient is K/T of SLTT's.

    Args:
        model: See `Backprop`.
        precision: See `Backprop`.
        device: See `Backprop`.
        k: Steps that give gradients.
        timesteps: T.
    """

    def __init__(self, model: nn.Module, precision: str, device: torch.device, k: int, timesteps: int) -> None:
        super().__init__(model, precision, device)
        self.k = k
        self.gradient_share = k / timesteps

    def live_steps(self, num_steps: int, draws: torch.Generator) -> frozenset[int]:
        """Returns K random steps."""
        return frozenset(torch.randperm(num_steps, generator=draws)[: self.k].tolist())


def make_backprop(name: str, k: int, model: nn.Module, precision: str, device: torch.device) -> Backprop:
    """Returns the strategy of that name: "bptt", "sltt" or "sltt-k", the last with at most the network's steps as k."""
    if name == "sltt-k":
        timesteps: int = model.timesteps  # type: ignore[assignment]
        return SLTTK(model, precision, device, min(k, timesteps), timesteps)
    return {"bptt": BPTT, "sltt": SLTT}[name](model, precision, device)


def at_precision(model: nn.Module, precision: str, device: torch.device) -> Forward:
    """Returns the model's forward pass, under bfloat16 autocast for "bf16". Its logits are at least float32."""

    def forward(input: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits_TBC: Any = model(input)
        if not isinstance(logits_TBC, Tensor):
            raise BadInput(
                f"the backbone returns a {type(logits_TBC).__name__}, and must return logits [T, B, classes]"
            )
        return widened(logits_TBC)

    return forward
