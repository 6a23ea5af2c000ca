"""A neuron's current before norm and pool are applied to it.

The native kernel computes norm, pool and neuron in one pass over memory. So a network on that kernel passes a `Current`
from layer to layer, and the next neuron computes all three. Before any other layer, the modules compute norm and pool.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace

from spikingjelly.activation_based import layer
from torch import Tensor, nn

from sadp_bench.native.norm_pool_lif import supports


@dataclass(frozen=True, slots=True, eq=False)
class Current:
    """A layer's output, and the norm and the pool that are still to be applied to it.

    Attributes:
        y: The layer's output, [T, B, C, H, W] or [T * B, C, H, W]; [B, C, H, W] if `still`. After a linear layer, D
            features replace C, H, W.
        timesteps: Time steps, T.
        still: Whether y is the same at every step.
        norm: The norm, applied first; None: no norm.
        pool: The 2x2 pool, applied second; None: no pool.
    """

    y: Tensor
    timesteps: int
    still: bool = False
    norm: nn.BatchNorm2d | None = None
    pool: nn.Module | None = None

    @property
    def has_time(self) -> bool:
        """Whether time is a dimension of its own in y: [T, B, C, H, W] or [T, B, D]."""
        return self.y.dim() % 2 == 1

    def settled(self) -> Current:
        """Returns the current with norm and pool applied by their modules."""
        settled = Current(self.y, self.timesteps, self.still)
        for module in (self.norm, self.pool):
            settled = settled if module is None else settled.after(module)
        return settled

    def after(self, module: nn.Module) -> Current:
        """Returns the current after a module. The module gets y with a time dimension in step mode "m" only."""
        y, multi_step = self.y, getattr(module, "step_mode", None) == "m"
        if multi_step and not self.has_time:
            y = y[None] if self.still else y.unflatten(0, (self.timesteps, -1))
        elif not multi_step and self.has_time:
            y = y.flatten(0, 1)
        y = module(y)
        return replace(self, y=y[0] if multi_step and self.still else y)

    def tensor(self) -> Tensor:
        """Returns the current of every step, [T, B, C, H, W] or [T, B, D]."""
        settled = self.settled()
        if self.still:
            return settled.y.expand(self.timesteps, *settled.y.shape)
        return settled.y if settled.has_time else settled.y.unflatten(0, (self.timesteps, -1))


class TakesCurrent(ABC):
    """A layer that computes norm and pool itself: a neuron, or a block that begins with one."""

    @abstractmethod
    def of_current(self, current: Current) -> Current:
        """Returns the layer's output."""


def through(layers: Iterable[nn.Module], current: Current) -> Current:
    """Returns the output of a sequence of layers. The neuron after a norm and a pool computes them."""
    for module in layers:
        if isinstance(module, TakesCurrent):
            current = module.of_current(current)
        elif isinstance(module, nn.BatchNorm2d) and _may_wait(module) and current.norm is current.pool is None:
            current = replace(current, norm=module)
        elif _is_pool(module) and current.pool is None:
            current = replace(current, pool=module)
        elif not isinstance(module, nn.Identity):
            current = current.settled().after(module)
    return current


def parted(layers: Iterable[nn.Module], ends: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[list[nn.Module]]:
    """Returns layers in parts that each end with a layer of the given kinds. Layers after the last one join its part."""
    parts: list[list[nn.Module]] = [[]]
    for module in layers:
        parts[-1].append(module)
        if isinstance(module, ends):
            parts.append([])
    rest = parts.pop()
    if parts:
        parts[-1] += rest
    return parts or [rest]


def _may_wait(norm: nn.BatchNorm2d) -> bool:
    return supports(norm) and not _is_hooked(norm)


def _is_pool(module: nn.Module) -> bool:
    fits = isinstance(module, layer.AvgPool2d) and (module.kernel_size, module.stride, module.padding) == (2, 2, 0)
    return fits and not _is_hooked(module)


def _is_hooked(module: nn.Module) -> bool:
    """Returns whether a module has hooks, which run only when the module itself is called."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for name in hooks)
