"""Backpropagation of a batch: forward pass, loss, weighted backward pass. A run uses one of the strategies.

T time steps, B examples, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.capture.recorder import Recorder
from sadp_bench.core import distributed, registry
from sadp_bench.core.errors import BadInput
from sadp_bench.core.losses import WeightedLoss
from sadp_bench.core.precision import widened
from sadp_bench.training import BACKPROPS

Forward = Callable[[Tensor], Tensor]  # model input -> logits_TBC, at least float32


class Backprop(ABC):
    """A way to compute a batch's gradient.

    Args:
        model: The network.
        precision: "fp32", "bf16" (autocast) or "fp64".
        device: The network's device.

    Attributes:
        gradient_share: The share of the time steps that give gradients.
    """

    gradient_share = 1.0

    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        self.model, self.precision, self.device = model, precision, device

    @abstractmethod
    def __call__(
        self, input: Tensor, loss: WeightedLoss, draws: torch.Generator, recorder: Recorder | None = None
    ) -> tuple[Tensor, Tensor]:
        """Accumulates into `.grad` the gradient of the batch's loss, or an estimate of it.

        Args:
            input: The network's input, as `Loader.input` returns it.
            loss: The batch's loss.
            draws: Generator of random numbers.
            recorder: Records the pass. A strategy that runs step by step marks the middle step for it.

        Returns:
            logits_TBC, and loss_B before weighting, detached.
        """


class BPTT(Backprop):
    """Backpropagation through time: all time steps in one graph, whose memory grows with T.

    Source: Werbos, "Backpropagation Through Time: What It Does and How to Do It", Proceedings of the IEEE 1990.
    """

    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        super().__init__(model, precision, device)
        self.forward = at_precision(distributed.wrapped(model), precision, device)

    def __call__(
        self, input: Tensor, loss: WeightedLoss, draws: torch.Generator, recorder: Recorder | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Backprop`."""
        logits_TBC = self.forward(input)
        # The gradient of `note_loss` stops at this view, so it calls no hooks on the network's tensors.
        if recorder is not None:
            logits_TBC = logits_TBC.view_as(logits_TBC)
        loss_B = loss.of_examples(logits_TBC)
        if recorder is not None:
            recorder.note_loss(logits_TBC, loss_B)
        loss.total(loss_B).backward()
        return logits_TBC.detach(), loss_B.detach()


class SLTT(Backprop):
    """Spatial learning through time: gradients flow through the layers of each step, and not from step to step.

    Source: Meng, Xiao, Yan, Wang, Lin & Luo, "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
    Networks", ICCV 2023.

    A membrane takes its previous value as a constant: v[t] = (1 - 1/tau) detach(v[t-1]) + x[t]. Each step has a separate
    graph, of its loss / T. It is freed before the next step, so the memory does not grow with T. As in the authors' code,
    batch norm takes the statistics of each step, and updates its running statistics at every step. Unlike in that code,
    the first convolution and norm of a static image are computed once, because every step has the same input. They get
    the steps' summed gradient in one backward pass.

    SpikingJelly's `SLTTLIFNode` is the same neuron for networks that are called step by step, differentiated by autograd.
    This class runs the suite's kernels on one step at a time. A test compares the two.
    """

    def __call__(
        self, input: Tensor, loss: WeightedLoss, draws: torch.Generator, recorder: Recorder | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Backprop`."""
        num_steps = self.model.steps(input)  # type: ignore[operator]
        live = self.live_steps(num_steps, draws)
        middle = sorted(live)[len(live) // 2]

        def of_step(step: int, outputs: Callable[[], Tensor]) -> Tensor:
            if recorder is not None:
                recorder.at_middle = step == middle
            with torch.set_grad_enabled(step in live):
                logits_1BC = widened(outputs())
                if step in live:
                    loss_B = loss.of_examples(logits_1BC)
                    with torch.autocast(self.device.type, enabled=False):
                        (loss.total(loss_B) / num_steps).backward()
            return logits_1BC.detach()

        # Autocast's cache would give a step another step's copy of a weight, perhaps one without a graph.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False):
            logits_TBC: Tensor = self.model(input, of_step)
        distributed.average_gradients(self.model)
        loss_B = loss.of_examples(logits_TBC.requires_grad_(recorder is not None))
        if recorder is not None:
            recorder.note_loss(logits_TBC, loss_B)
        return logits_TBC.detach(), loss_B.detach()

    def live_steps(self, num_steps: int, draws: torch.Generator) -> frozenset[int]:
        """Returns the steps that give gradients."""
        return frozenset(range(num_steps))


class SLTTK(SLTT):
    """SLTT through K random steps of each batch; the other steps build no graph.

    Source: Meng, Xiao, Yan, Wang, Lin & Luo, "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
    Networks", ICCV 2023 (there SLTT-K).

    `--k` is the number of steps. The loss stays divided by T, so the expected gradient is K/T of SLTT's.

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
    """Returns the strategy of a name in `BACKPROPS`. "sltt-k" uses at most the network's time steps as k."""
    if name == "sltt-k":
        timesteps: int = model.timesteps  # type: ignore[assignment]
        return SLTTK(model, precision, device, min(k, timesteps), timesteps)
    made: Backprop = registry.load(BACKPROPS[name])(model, precision, device)
    return made


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
