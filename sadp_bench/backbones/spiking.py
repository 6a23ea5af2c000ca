"""The parts of every backbone: neuron settings, neuron, norm, convolution, and the base class.

The layers are SpikingJelly's multi-step layers. Tensors are time first, [T, B, C, H, W], and channels last in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from sadp_bench.backbones.cpu_lif import CPULif
from sadp_bench.backbones.current import Current, TakesCurrent, parted, through
from sadp_bench.backbones.fused import Block, fused_block
from sadp_bench.backbones.pooled_conv import PooledConv2d
from sadp_bench.backbones.spike_conv2d import SpikeConv2d
from sadp_bench.backbones.step_by_step import OfStep, StepByStep
from sadp_bench.backbones.weighted_norm import StepBatchNorm2d, share_of
from sadp_bench.core.errors import BadInput
from sadp_bench.core.lif_equation import LIFEquation
from sadp_bench.core.precision import wide_dtype

SURROGATES = {
    "atan": lambda: surrogate.ATan(alpha=2.0),
    "sigmoid": lambda: surrogate.Sigmoid(alpha=4.0),
    "triangle": lambda: surrogate.PiecewiseQuadratic(alpha=1.0),  # max(0, 1 - |v - threshold|)
}
RESETS = {"hard": 0.0, "soft": None}
NORMS = ("batch", "weighted", "group", "sync", "none")
MOST_GROUPS, LEAST_CHANNELS = 32, 8  # groups of a layer's channels, and channels of a group; see `num_groups`


@dataclass(frozen=True, slots=True)
class NeuronSettings:
    """The leaky integrate-and-fire neuron of all spiking layers; part of a run's spec.

    By default the input is not decayed, as in TET and SLTT. The reset is hard and outside of the graph, and the
    surrogate is the arctangent, as in Fang et al., ICCV 2021. SpikingJelly's defaults differ.

    Attributes:
        tau: Membrane time constant in steps, above 1: h[t] = (1 - 1/tau) v[t-1] + x[t].
        threshold: Membrane potential from which the neuron spikes, above 0.
        decay_input: Whether x is divided by tau.
        reset: Reset after a spike: "hard" (to 0) or "soft" (minus the threshold).
        detach_reset: Whether the reset is outside of the graph.
        surrogate: The spike's derivative: "atan", "sigmoid" or "triangle".
        kernel: Implementation: "python", or "native". With "native" a `fused_block` computes the neuron together with
            the norm and the pool before it, and the C core computes convolutions of spikes.
    """

    tau: float = 2.0
    threshold: float = 1.0
    decay_input: bool = False
    reset: str = "hard"
    detach_reset: bool = True
    surrogate: str = "atan"
    kernel: str = "python"

    def __post_init__(self) -> None:
        if not 1 < self.tau < float("inf"):
            raise BadInput(f"backbone.tau is above 1, not {self.tau:g}")
        if not 0 < self.threshold < float("inf"):
            raise BadInput(f"backbone.threshold is above 0, not {self.threshold:g}")
        for name, allowed in (("reset", RESETS), ("surrogate", SURROGATES)):
            if getattr(self, name) not in allowed:
                raise BadInput(f"backbone.{name} is one of {', '.join(allowed)}, not '{getattr(self, name)}'")


class LIF(neuron.LIFNode, TakesCurrent):
    """SpikingJelly's multi-step LIF neuron on [T, B, C, H, W] or [T, B, D].

    It has no state between calls, unless it `carries` (see `step_by_step.carrying`). The equations are SpikingJelly's. The
    membrane is float32 even for a bfloat16 input (SpikingJelly takes the input's type). Images are computed channels last,
    as they lie in memory. On a CPU `CPULif` computes the steps, and on a GPU the kernel that SpikingJelly chooses. With
    the kernel "native" a `fused_block` computes norm, pool and neuron instead.

    Args:
        settings: Settings of the neuron.

    Attributes:
        kernel: See `NeuronSettings`.
        carries: Whether a call starts from the membrane that the previous call left.
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
        self.kernel = settings.kernel
        self.carries = False

    @property
    def equation(self) -> LIFEquation:
        """The neuron's equation, made of its attributes."""
        gain = 1 / self.tau if self.decay_input else 1.0
        return LIFEquation(self.tau, gain, self.v_threshold, self.v_reset is None, self.surrogate)

    def of_current(self, current: Current) -> Current:
        """Returns the spikes of a current, [T, B, C, h, w] or [T, B, D], from a fused block if there is one."""
        fuses = self.kernel == "native" and self.detach_reset
        block = fused_block(current.y, current.timesteps) if fuses else None
        if block is not None:
            return Current(self(current.y, current, block), current.timesteps)
        return Current(self(current.tensor()), current.timesteps)

    def multi_step_forward(self, x_seq: Tensor, current: Current | None = None, block: Block | None = None) -> Tensor:
        """Returns the spikes of a current.

        Args:
            x_seq: [T, B, C, H, W] or [T, B, D].
            current: The input of `block`. Its y is x_seq, which hooks see.
            block: Function that computes the norm and the pool of `current`, and the neuron. None: x_seq is the
                neuron's current.

        Returns:
            Spikes in the shape of x_seq; with `block`, [T, B, C, h, w] or [T, B, D].
        """
        if current is not None and block is not None:
            return self._fused(current, block)
        images = x_seq.dim() == 5
        x_seq = x_seq.movedim(2, -1) if images else x_seq
        on_cpu = x_seq.device.type == "cpu" and self.detach_reset
        spikes, membrane = (self._on_cpu if on_cpu else self._on_any)(x_seq, self._membrane(x_seq))
        if self.carries:
            self.v = membrane.detach()
        return spikes.movedim(-1, 2) if images else spikes

    def _membrane(self, x_seq: Tensor) -> Tensor:
        """Returns the membrane that a call starts from: at rest, or as the previous call left it."""
        if self.carries and isinstance(self.v, Tensor):
            return self.v
        return torch.zeros(x_seq.shape[1:], device=x_seq.device, dtype=wide_dtype(x_seq))

    def _fused(self, current: Current, block: Block) -> Tensor:
        y = current.y.flatten(0, 1) if current.has_time else current.y
        images = y.dim() == 4
        y = y if images else y[..., None, None]  # Features are the channels of a pixel.
        before = self.v.movedim(-1, 1) if self.carries and isinstance(self.v, Tensor) else None
        pool = 1 if current.pool is None else 2
        share_B = share_of(current.norm, len(y) if current.still else len(y) // current.timesteps)
        spikes, membrane = block(
            y, current.norm, self.equation, current.timesteps, pool, current.still, before, share_B
        )
        if self.carries:
            self.v = membrane.movedim(1, -1).detach()
        return (spikes if images else spikes.flatten(1)).unflatten(0, (current.timesteps, -1))

    def _on_cpu(self, x_seq: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = CPULif.apply(x_seq, membrane, *dataclasses.astuple(self.equation))
        return made

    def _on_any(self, x_seq: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        # Without `contiguous`, SpikingJelly recompiles its Triton kernel at each batch size for an expanded current.
        spikes, membrane, _ = functional.lif_multi_step(
            x_seq.contiguous(),
            membrane,
            self.tau,
            self.decay_input,
            self.v_threshold,
            self.v_reset,
            self.surrogate_function,
            self.detach_reset,
        )
        return spikes, membrane


def pooled_conv(inputs: int, outputs: int, *, norm: str, step_mode: str, kernel: str) -> nn.Module:
    """Returns a padded 3x3 convolution and the 2x2 average pool behind it, as one layer. A norm replaces its bias."""
    return _initialised(PooledConv2d(inputs, outputs, bias=norm == "none", step_mode=step_mode, kernel=kernel), norm)


def conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, *, norm: str, step_mode: str = "m", kernel: str
) -> nn.Module:
    """Returns a padded convolution that keeps the image's side, divided by the stride. A norm replaces its bias.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        size: Side of the kernel.
        stride: Stride of rows and columns.
        norm: See `norm_layer`.
        step_mode: SpikingJelly's step mode: "m" for [T, B, C, H, W], "s" for [B, C, H, W].
        kernel: See `SpikeConv2d`; "python" where the input is not spikes.
    """
    made = SpikeConv2d(inputs, outputs, size, stride, bias=norm == "none", step_mode=step_mode, kernel=kernel)
    return _initialised(made, norm)


def _initialised(conv: nn.Conv2d, norm: str) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, mode="fan_in" if norm == "none" else "fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class SyncBatchNorm2d(nn.SyncBatchNorm):
    """Batch norm of [B, C, H, W] or [T, B, C, H, W] over the whole batch of a run on several GPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns the input, normalised over batch, time and positions."""
        if input.dim() == 5:
            return super().forward(input.flatten(0, 1)).unflatten(0, input.shape[:2])
        return super().forward(input)


def norm_layer(norm: str, channels: int, step_mode: str = "m") -> nn.Module:
    """Returns a norm of images.

    Args:
        norm: "batch": batch norm over batch, time and positions; each process normalises its slice of the batch.
            "weighted": the same, with statistics weighted as the loss is (see `WeightedNorm`). "group": group norm over
            groups of channels and positions of an example at a time step, without statistics of the batch. "sync":
            batch norm over the whole batch of several processes. "none": the identity.
        channels: Channels of the input.
        step_mode: SpikingJelly's step mode: "m" for [T, B, C, H, W], "s" for [B, C, H, W].
    """
    if norm not in NORMS:
        raise BadInput(f"backbone.norm is one of {', '.join(NORMS)}, not '{norm}'")
    if norm == "sync":
        return SyncBatchNorm2d(channels)
    if norm == "group":
        return layer.GroupNorm(num_groups(channels), channels, step_mode=step_mode)
    if norm == "none":
        return nn.Identity()
    kind: Callable[..., nn.Module] = StepBatchNorm2d if norm == "weighted" else layer.BatchNorm2d
    return kind(channels, step_mode=step_mode)


def num_groups(channels: int) -> int:
    """Returns the largest number, up to `MOST_GROUPS`, of equal groups of at least `LEAST_CHANNELS` channels; or 1.

    Norm over few channels and positions removes the channels' means. Source: Wu & He, "Group Normalization", ECCV 2018,
    with 32 groups.
    """
    most = min(MOST_GROUPS, channels // LEAST_CHANNELS)
    return next((groups for groups in range(most, 1, -1) if channels % groups == 0), 1)


def halves(side: int) -> bool:
    """Returns whether a pool or a stride of 2 is applied: if it leaves at least 2 pixels of a side."""
    return side // 2 >= 2


OfBlock = Callable[[int, Tensor], Tensor]  # (block, its output) -> the next block's input


class Backbone(StepByStep):
    """A spiking network for images of `input_shape` (C, H, W) or event frames of that shape.

    Args:
        timesteps: Time steps, T. The network uses the first T event frames.
        stem: The first convolution and norm, on [B, C, H, W]. For a static image their output is the same at every
            step, and is computed once.
        body: All other layers but the readout, on [T, B, C, H, W].
        features: Inputs of the readout.
        num_classes: Classes, the readout's outputs.

    Attributes:
        readout_kind: The class of the readout.
        needs_images: Whether the network needs images. Otherwise it also takes vectors, as images [1, 1, F].
        has_native: Whether there are native kernels for its neurons.
        native: Whether its neurons run in fused blocks.
    """

    readout_kind: type[layer.Linear] = layer.Linear
    needs_images: ClassVar[bool] = True
    has_native: ClassVar[bool] = True

    def __init__(
        self, timesteps: int, stem: nn.Sequential, body: nn.Sequential, features: int, num_classes: int
    ) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.stem = stem
        self.body = body
        self.readout = self.readout_kind(features, num_classes, step_mode="m")
        self.native = any(isinstance(module, LIF) and module.kernel == "native" for module in body.modules())

    def initialise(self) -> None:
        """Draws all weights anew, in the order in which a network of these widths draws them when it is built."""
        for module in self.modules():
            reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
            if isinstance(module, SpikeConv2d):
                _initialised(module, "batch" if module.bias is None else "none")

    def forward(self, input: Tensor, of_step: OfStep | None = None, of_block: OfBlock | None = None) -> Tensor:
        """Returns logits_TBC.

        Args:
            input: [B, C, H, W] (static) or [T, B, C, H, W] (events).
            of_step: Called with each step and a function that computes its logits. After the call, only the neurons'
                membranes remain of the step; see `training.backprop.SLTT`.
            of_block: Called with the number and the output of each of the `blocks` but the last. It returns the next
                block's input; see `training.local.Local`.
        """
        if of_step is not None:
            return self._step_by_step(input, of_step)
        if of_block is not None:
            return self._block_by_block(input, of_block)
        if self.native:
            return self._of_current((*self.stem, *self.body), self._current(input))
        if input.dim() == 4:
            x = self.stem(input)
            x = x.unsqueeze(0).expand(self.timesteps, *x.shape)
        else:
            input = input[: self.timesteps]
            x = self.stem(input.flatten(0, 1)).unflatten(0, input.shape[:2])
        return self._logits(x)

    def blocks(self) -> list[list[nn.Module]]:
        """Returns the body's layers in blocks that `training.local.Local` trains one by one. Each ends with a neuron.

        The stem belongs to the first block. The readout and the layers before it belong to the last block.
        """
        return parted(self.body, LIF)

    def _current(self, input: Tensor) -> Current:
        still = input.dim() == 4
        x = input if still else input[: self.timesteps].flatten(0, 1)
        return Current(x, self.steps(input), still)

    def _block_by_block(self, input: Tensor, of_block: OfBlock) -> Tensor:
        *blocks, last = self.blocks()
        current = through(self.stem, self._current(input))
        for number, block in enumerate(blocks):
            current = Current(of_block(number, through(block, current).tensor()), current.timesteps)
        return self._of_current(last, current)

    def _logits(self, x: Tensor) -> Tensor:
        logits_TBC: Tensor = self.readout(self.body(x).flatten(2))
        return logits_TBC

    def _of_current(self, layers: Iterable[nn.Module], current: Current) -> Tensor:
        logits_TBC: Tensor = self.readout(through(layers, current).tensor().flatten(2))
        return logits_TBC

    def _step_by_step(self, input: Tensor, of_step: OfStep) -> Tensor:
        static = input.dim() == 4
        stemmed = self.stem(input) if static else input
        # For a static image, a leaf gathers the steps' gradients, which then pass the stem in one backward pass.
        leaf = stemmed.detach().requires_grad_(stemmed.requires_grad)

        def outputs(step: int) -> Tensor:
            if self.native:
                layers = self.body if static else (*self.stem, *self.body)
                return self._of_current(layers, Current(leaf if static else input[step], 1))
            return self._logits((leaf if static else self.stem(input[step])).unsqueeze(0))

        logits_TBC = self.each_step([partial(outputs, step) for step in range(self.steps(input))], of_step)
        if leaf.grad is not None:
            with torch.autocast(leaf.device.type, enabled=False):
                stemmed.backward(leaf.grad)
        return logits_TBC


def check_width(width: int, least: int = 1, unit: str = "channel") -> None:
    """Raises BadInput for fewer channels, or other units, than the least width."""
    if width < least:
        raise BadInput(f"backbone.width is at least {least} {unit if least == 1 else f'{unit}s'}, not {width}")
