"""The parts that every backbone is made of: neuron settings, the neuron, norm, convolution, the frame.

Everything is time first, [T, B, C, H, W], on SpikingJelly's multi-step layers, channels last in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from sadp_bench.backbones.cpu_lif import CPULif
from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import wide_dtype

SURROGATES = {
    "atan": lambda: surrogate.ATan(alpha=2.0),
    "sigmoid": lambda: surrogate.Sigmoid(alpha=4.0),
    "triangle": lambda: surrogate.PiecewiseQuadratic(alpha=1.0),  # max(0, 1 - |v - threshold|)
}
RESETS = {"hard": 0.0, "soft": None}
NORMS = ("batch", "sync", "none")


@dataclass(frozen=True, slots=True)
class NeuronSettings:
    """The leaky integrate-and-fire neuron of all spiking layers; part of a run's spec.

    tau: membrane time constant in steps, > 1: h[t] = (1 - 1/tau) v[t-1] + x[t]. decay_input: whether x is divided by tau.
    reset: "hard" (to 0) or "soft" (minus the threshold). surrogate: the spike's derivative, "atan", "sigmoid" or
    "triangle". The defaults: no decay of the input as in TET and SLTT, hard reset outside of the graph and arctangent as in
    Fang et al., ICCV 2021; SpikingJelly's own differ.
    """

    tau: float = 2.0
    threshold: float = 1.0
    decay_input: bool = False
    reset: str = "hard"
    detach_reset: bool = True
    surrogate: str = "atan"

    def __post_init__(self) -> None:
        if not 1 < self.tau < float("inf"):
            raise BadInput(f"backbone.tau is above 1, not {self.tau:g}")
        if not 0 < self.threshold < float("inf"):
            raise BadInput(f"backbone.threshold is above 0, not {self.threshold:g}")
        for name, allowed in (("reset", RESETS), ("surrogate", SURROGATES)):
            if getattr(self, name) not in allowed:
                raise BadInput(f"backbone.{name} is one of {', '.join(allowed)}, not '{getattr(self, name)}'")


class LIF(neuron.LIFNode):
    """SpikingJelly's multi-step LIF neuron on [T, B, C, H, W] or [T, B, D], without state between calls but where it
    `carries` (see `carrying`).

    It differs in ways that do not change its equations: the membrane is float32 also where the input is bfloat16
    (SpikingJelly would take the input's type), images are computed channels last as they lie in memory, and a CPU runs
    `CPULif`. On a GPU SpikingJelly chooses its kernel.
    """

    def __init__(self, settings: NeuronSettings) -> None:
        super().__init__(
            tau=float(settings.tau),
            decay_input=settings.decay_input,
            v_threshold=settings.threshold,
            v_reset=RESETS[settings.reset],
            surrogate_function=SURROGATES[settings.surrogate](),
            detach_reset=settings.detach_reset,
            step_mode="m",
        )
        self.surrogate = settings.surrogate
        self.carries = False

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        images = x_seq.dim() == 5
        x_seq = x_seq.movedim(2, -1) if images else x_seq
        on_cpu = x_seq.device.type == "cpu" and self.detach_reset
        spikes, membrane = (self._on_cpu if on_cpu else self._on_any)(x_seq, self._membrane(x_seq))
        if self.carries:
            self.v = membrane.detach()
        return spikes.movedim(-1, 2) if images else spikes

    def _membrane(self, x_seq: Tensor) -> Tensor:
        """What a call begins with: rest, or what the call before has left."""
        if self.carries and isinstance(self.v, Tensor):
            return self.v
        return torch.zeros(x_seq.shape[1:], device=x_seq.device, dtype=wide_dtype(x_seq))

    def _on_cpu(self, x_seq: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        gain = 1 / self.tau if self.decay_input else 1.0
        made: tuple[Tensor, Tensor] = CPULif.apply(
            x_seq, membrane, self.tau, gain, self.v_threshold, self.v_reset is None, self.surrogate
        )
        return made

    def _on_any(self, x_seq: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        spikes, membrane, _ = functional.lif_multi_step(
            x_seq,
            membrane,
            self.tau,
            self.decay_input,
            self.v_threshold,
            self.v_reset,
            self.surrogate_function,
            self.detach_reset,
        )
        return spikes, membrane


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, *, norm: str, step_mode: str = "m") -> nn.Module:
    """A padded convolution that keeps the image's side (divided by the stride); its bias is the norm's where there is one."""
    made = layer.Conv2d(
        inputs, outputs, size, stride=stride, padding=size // 2, bias=norm == "none", step_mode=step_mode
    )
    nn.init.kaiming_normal_(made.weight, mode="fan_in" if norm == "none" else "fan_out", nonlinearity="relu")
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made


class SyncBatchNorm2d(nn.SyncBatchNorm):
    """Batch norm over the whole batch of a run on several GPUs, over batch, time and positions of [T, B, C, H, W] too."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 5:
            return super().forward(input.flatten(0, 1)).unflatten(0, input.shape[:2])
        return super().forward(input)


def norm_layer(norm: str, channels: int, step_mode: str = "m") -> nn.Module:
    """Batch norm over batch, time and positions ("batch"; each process over its own slice of the batch, or "sync"), or
    nothing ("none")."""
    if norm not in NORMS:
        raise BadInput(f"backbone.norm is one of {', '.join(NORMS)}, not '{norm}'")
    if norm == "sync":
        return SyncBatchNorm2d(channels)
    return layer.BatchNorm2d(channels, step_mode=step_mode) if norm == "batch" else nn.Identity()


def halves(side: int) -> bool:
    """Whether a pool or stride of 2 is applied: not where it would leave less than 2 pixels."""
    return side // 2 >= 2


@contextmanager
def carrying(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Within, the neurons go on from call to call from the membrane that the call before has left, and from rest at first.

    Gives what cuts the membranes' history, to be called after each call: the suite's own neurons have none, but
    SpikingJelly's do.
    """
    neurons = [module for module in model.modules() if isinstance(module, neuron.BaseNode)]

    def reset(carries: bool) -> None:
        for one in neurons:
            one.reset()
            if isinstance(one, LIF):
                one.carries = carries

    def cut() -> None:
        for one in neurons:
            one.detach()

    reset(True)
    try:
        yield cut
    finally:
        reset(False)


OfStep = Callable[[int, Callable[[], Tensor]], Tensor]  # a step, and what makes its logits_1BC -> those, detached


class Backbone(nn.Module):
    """A spiking network for images of `input_shape` (C, H, W) or event frames of that shape.

    A subclass builds `stem` (on [B, C, H, W]: a static image's first convolution and norm are the same at every step,
    so they are computed once), `body` (on [T, B, C, H, W]) and the readout from `width`, its base number of channels.
    timesteps: T; of event frames the first T are taken.
    """

    def __init__(self, timesteps: int, stem: nn.Module, body: nn.Module, features: int, num_classes: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.stem = stem
        self.body = body
        self.readout = layer.Linear(features, num_classes, step_mode="m")

    def forward(self, input: Tensor, of_step: OfStep | None = None) -> Tensor:
        """[B, C, H, W] (static) or [T, B, C, H, W] (events) -> logits_TBC.

        of_step: takes the steps one by one, each with what computes it: nothing of a step but the neurons' membranes is left
        when it returns, see `backprop.SLTT`.
        """
        if of_step is not None:
            return self._step_by_step(input, of_step)
        if input.dim() == 4:
            x = self.stem(input)
            x = x.unsqueeze(0).expand(self.timesteps, *x.shape)
        else:
            input = input[: self.timesteps]
            x = self.stem(input.flatten(0, 1)).unflatten(0, input.shape[:2])
        return self._logits(x)

    def steps(self, input: Tensor) -> int:
        """How many time steps it makes of an input."""
        return self.timesteps if input.dim() == 4 else min(len(input), self.timesteps)

    def _logits(self, x: Tensor) -> Tensor:
        logits_TBC: Tensor = self.readout(self.body(x).flatten(2))
        return logits_TBC

    def _step_by_step(self, input: Tensor, of_step: OfStep) -> Tensor:
        static = input.dim() == 4
        stemmed = self.stem(input) if static else input
        # Of a static image a leaf gathers the steps' gradients, which then go through the stem in one backward pass.
        leaf = stemmed.detach().requires_grad_(stemmed.requires_grad)

        def outputs(step: int) -> Tensor:
            return self._logits((leaf if static else self.stem(input[step])).unsqueeze(0))

        logits = []
        with carrying(self) as cut:
            for step in range(self.steps(input)):
                logits.append(of_step(step, partial(outputs, step)))
                cut()
        if leaf.grad is not None:
            with torch.autocast(leaf.device.type, enabled=False):
                stemmed.backward(leaf.grad)
        return torch.cat(logits)


def check_width(width: int) -> None:
    if width < 1:
        raise BadInput(f"backbone.width is at least 1 channel, not {width}")
