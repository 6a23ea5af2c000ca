"""The cosine between the gradients of SLTT and of backpropagation through time, for the same weights and batches."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

from sadp_bench.backbones.spiking import LIF
from sadp_bench.core.precision import widened, widest_dtype
from sadp_bench.core.rng import isolated, stream
from sadp_bench.records.fields import STEP_BY_STEP
from sadp_bench.records.spec import Spec
from sadp_bench.sparsity.base import Masks, prunable
from sadp_bench.training.augmentation import draw_augmentation
from sadp_bench.training.backprop import at_precision
from sadp_bench.training.data import Loader
from sadp_bench.training.objective import run_loss

MAX_EXAMPLES = 128  # examples of a run's batch
MAX_PASSES = 1024  # examples times steps; it keeps the graph of BPTT no larger than an ordinary batch's at a large T
STREAM = "gradient cosine"


@dataclass(frozen=True, slots=True)
class Cosines:
    """Cosines between two gradients. None: one of the two is 0, or not finite.

    Attributes:
        whole: The cosine for the weights of all convolution and linear layers together.
        layers: The cosine for each layer's weight, by the layer's name.
    """

    whole: float | None
    layers: dict[str, float | None]

    def least(self) -> tuple[str, float] | None:
        """Returns the layer of the least cosine, and the cosine; None where no layer has one."""
        known = {name: value for name, value in self.layers.items() if value is not None}
        return min(known.items(), key=lambda pair: pair[1]) if known else None


def gradient_cosines(
    model: nn.Module, data: Loader, spec: Spec, batches: Sequence[Tensor], masks: Masks, norms: str = "step"
) -> Cosines:
    """Returns the means over the batches of the cosines between SLTT's and BPTT's gradients.

    Both gradients are of the same weights and batch, in training mode, with augmentation, at the run's precision. Copies
    of the network compute them, so the network, its statistics and the random state stay as they are. Under "sltt-k" it
    takes SLTT's gradient through all steps. The expected gradient is K/T of that, and has the same cosine.

    Args:
        model: The network, a `Backbone`.
        data: The training set.
        spec: The run.
        batches: Indices of each batch's examples, int64.
        masks: Masks of connections; weights without a connection are left out.
        norms: Which statistics batch norm takes for BPTT. "step": those of each step, as SLTT trains. Both gradients then
            have the same forward pass, and differ only in the path from step to step. "all": those of all steps, as BPTT
            trains. Then the spikes differ too.
    """
    found = []
    for batch_B in batches:
        sltt = _by_step(model, data, spec, batch_B, through_time=False)
        bptt = _at_once(model, data, spec, batch_B) if norms == "all" else _by_step(model, data, spec, batch_B, True)
        found.append(cosines(*({name: _live(name, of, masks) for name, of in each.items()} for each in (sltt, bptt))))
    layers = {name: _mean([each.layers[name] for each in found]) for name in found[0].layers}
    return Cosines(_mean([each.whole for each in found]), layers)


def cosines(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Cosines:
    """Returns the cosines between two gradients, each a table of the weights' gradients by name."""
    products = {name: _products(one[name], other[name]) for name in one}
    layers = {name.removesuffix(".weight"): _cosine(*three) for name, three in products.items()}
    return Cosines(_cosine(*(sum(column) for column in zip(*products.values(), strict=True))), layers)


def _products(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    wide = widest_dtype(a.device)
    a, b = a.flatten().to(wide), b.flatten().to(wide)
    ab, aa, bb = torch.stack([(a * b).sum(), (a * a).sum(), (b * b).sum()]).tolist()
    return ab, aa, bb


def _cosine(ab: float, aa: float, bb: float) -> float | None:
    squared = aa * bb  # The root of a square is exact, so equal gradients have exactly 1.
    if not 0 < squared < math.inf or not math.isfinite(ab):
        return None
    return max(-1.0, min(1.0, ab / math.sqrt(squared)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _live(name: str, gradient: Tensor, masks: Masks) -> Tensor:
    return gradient.masked_fill(~masks[name], 0) if name in masks else gradient


def _by_step(model: nn.Module, data: Loader, spec: Spec, batch_B: Tensor, through_time: bool) -> dict[str, Tensor]:
    """Returns the gradient of SLTT's forward pass, in one graph of all steps: through time, or through each step alone."""
    copied, (input, target) = _copy(model), _batch(data, spec, batch_B)
    swap_neurons(copied, through_time)
    copied.native = False  # type: ignore[assignment]  # A fused block would compute the replaced neurons.
    num_steps = copied.steps(input)  # type: ignore[operator]
    losses = []

    def of_step(step: int, outputs: Callable[[], Tensor]) -> Tensor:
        logits_1BC = widened(outputs())
        losses.append(run_loss(spec)(logits_1BC, target).mean() / num_steps)
        if step == num_steps - 1:  # before the backbone passes the steps' summed gradient through its stem
            with torch.autocast(data.device.type, enabled=False):
                torch.stack(losses).sum().backward()
        return logits_1BC.detach()

    bf16 = torch.autocast(data.device.type, torch.bfloat16, enabled=spec.precision == "bf16")
    with isolated(spec.seed, STREAM, data.device), torch.enable_grad(), bf16:
        copied(input, of_step)
    return _gradient(copied)


def _at_once(model: nn.Module, data: Loader, spec: Spec, batch_B: Tensor) -> dict[str, Tensor]:
    """Returns the gradient by which BPTT trains."""
    copied, (input, target) = _copy(model), _batch(data, spec, batch_B)
    with isolated(spec.seed, STREAM, data.device), torch.enable_grad():
        logits_TBC = at_precision(copied, spec.precision, data.device)(input)
        run_loss(spec)(logits_TBC, target).mean().backward()
    return _gradient(copied)


def _copy(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model).train()
    copied.zero_grad(set_to_none=True)
    return copied


def _batch(data: Loader, spec: Spec, batch_B: Tensor) -> tuple[Tensor, Tensor]:
    augmentation = draw_augmentation(
        spec.augment, len(data), data.padding, data.sides, stream(spec.seed, STREAM), data.device
    )
    return data.input(batch_B, augmentation), data.target(batch_B, augmentation)


def _gradient(model: nn.Module) -> dict[str, Tensor]:
    """Returns the gradients of all convolution and linear layers' weights, by name."""
    weights = prunable(model).items()
    return {name: torch.zeros_like(weight) if weight.grad is None else weight.grad for name, weight in weights}


class GraphLIF(nn.Module):
    """The LIF neuron on one step [1, B, ...] after the other, differentiated by autograd alone.

    Args:
        lif: The neuron whose equation it computes.
        through_time: Whether its membrane stays in the graph from step to step.
    """

    def __init__(self, lif: LIF, through_time: bool) -> None:
        super().__init__()
        self.equation, self.fire, self.detach_reset = lif.equation, lif.surrogate_function, lif.detach_reset
        self.through_time = through_time
        self.v: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Returns the spikes of a step."""
        of, current = self.equation, widened(x)
        charged = of.gain * current if self.v is None else (1 - 1 / of.tau) * self.v + of.gain * current
        spikes: Tensor = self.fire(charged - of.threshold)
        fired = spikes.detach() if self.detach_reset else spikes
        v = charged - of.threshold * fired if of.soft else charged * (1 - fired)
        self.v = v if self.through_time else v.detach()
        return spikes.to(x.dtype)


def swap_neurons(model: nn.Module, through_time: bool) -> None:
    """Replaces each `LIF` of a network by a `GraphLIF`. `through_time` also keeps the graph of other layers with state."""
    for name, child in model.named_children():
        if isinstance(child, LIF):
            setattr(model, name, GraphLIF(child, through_time))
            continue
        if through_time and isinstance(child, MemoryModule):
            setattr(child, "detach", lambda: None)  # noqa: B010  # `carrying` calls it after each step
        swap_neurons(child, through_time)


class RunCosine:
    """The cosine of a run by SLTT on a fixed batch, after its first and its last epoch. Other runs have none.

    Batch norm takes the statistics of each step in both gradients (see `gradient_cosines`).

    Args:
        spec: The run.
        data: The training set.

    Attributes:
        found: The record's numbers: first, last, least, least_layer and examples.
    """

    def __init__(self, spec: Spec, data: Loader) -> None:
        self.spec, self.data = spec, data
        self.found: dict[str, Any] = {}
        room = min(MAX_EXAMPLES, spec.batch_size, MAX_PASSES // spec.timesteps)
        self.num_examples = min(len(data), max(room, 2 * spec.processes))

    def due(self, epoch: int, length: int) -> bool:
        """Returns whether the cosine is measured after an epoch, from 0, of `length`."""
        return self.spec.backprop in STEP_BY_STEP and epoch in (0, length - 1)

    def measure(self, epoch: int, model: nn.Module, masks: Masks) -> None:
        """Measures the cosine after an epoch, from 0."""
        index_N = torch.randperm(len(self.data), generator=stream(self.spec.seed, STREAM, 1))
        cosines = gradient_cosines(model, self.data, self.spec, [index_N[: self.num_examples]], masks)
        layer, least = cosines.least() or (None, None)
        first = cosines.whole if epoch == 0 else self.found.get("first")
        self.found = {"first": first, "last": cosines.whole, "least": least, "least_layer": layer}
        self.found["examples"] = self.num_examples
