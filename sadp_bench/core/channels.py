"""Groups of channels that can be cut out of a network, and the cut itself, in place.

C channels of a group, before the cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput

OTHER_NORMS = "take backbone.norm=batch or weighted"


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """The output channels of a convolution, which only its norm and the consumers read.

    Attributes:
        producer: The convolution.
        norm: Its batch norm; None: it has none.
        consumers: Convolutions and linear layers behind it. The inputs of a linear layer that come from one channel are
            adjacent.
    """

    producer: nn.Conv2d
    norm: nn.Module | None
    consumers: tuple[nn.Module, ...]


class HasChannelGroups(Protocol):
    """A network whose channels can be cut."""

    def channel_groups(self) -> list[ChannelGroup]:
        """Returns the groups, in the order of the modules. No two groups share the outputs or the inputs of a layer."""

    def initialise(self) -> None:
        """Draws all weights anew, as the constructor of a network of these widths draws them."""


def named_groups(model: Any) -> dict[str, ChannelGroup]:
    """Returns the groups of a network by the names of their convolutions.

    Raises:
        BadInput: A group norm ties the channels to each other.
    """
    names = {module: name for name, module in model.named_modules()}
    groups: dict[str, ChannelGroup] = {names[group.producer]: group for group in model.channel_groups()}
    if tied := [name for name, group in groups.items() if isinstance(group.norm, nn.GroupNorm)]:
        raise BadInput(f"channels of '{tied[0]}' can't be cut, because group norm mixes them: {OTHER_NORMS}")
    return groups


@torch.no_grad()
def keep_channels(group: ChannelGroup, kept_C: Tensor, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Cuts the other channels out of weights, statistics, and those states of the optimizer that have a weight's shape.

    Parameters remain the same objects, so optimizers and hooks need no change. Gradients are dropped. No graph of an
    earlier pass may be alive.

    Args:
        group: A group of the network.
        kept_C: Bool; at least one channel is kept.
        optimizer: The network's optimizer; None: it has no state yet.

    Raises:
        ValueError: The mask does not fit the group.
    """
    producer: Any = group.producer
    channels = producer.out_channels
    if kept_C.dtype is not torch.bool or kept_C.shape != (channels,) or not bool(kept_C.any()):
        raise ValueError(
            f"a mask of {channels} channels with one kept at least, not {kept_C.dtype} {list(kept_C.shape)}"
        )
    index = kept_C.nonzero()[:, 0]
    _take(producer, ("weight", "bias"), 0, index, optimizer)
    producer.out_channels = len(index)
    if group.norm is not None:
        _take(group.norm, ("weight", "bias", "running_mean", "running_var"), 0, index, optimizer)
        group.norm.num_features = len(index)  # type: ignore[assignment]
    for consumer in group.consumers:
        name = "in_features" if isinstance(consumer, nn.Linear) else "in_channels"
        positions = getattr(consumer, name) // channels
        columns = (index[:, None] * positions + torch.arange(positions, device=index.device)).flatten()
        _take(consumer, ("weight",), 1, columns, optimizer)
        setattr(consumer, name, len(columns))


def _take(
    module: nn.Module, names: tuple[str, ...], dim: int, index: Tensor, optimizer: torch.optim.Optimizer | None
) -> None:
    """Reduces a module's tensors, where they exist, and their states in the optimizer to the rows of an index."""
    for name in names:
        whole = getattr(module, name, None)
        if whole is None:
            continue
        if not isinstance(whole, nn.Parameter):
            setattr(module, name, _rows(whole, dim, index))
            continue
        state = {} if optimizer is None else optimizer.state.get(whole, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == whole.shape:
                state[key] = _rows(value, dim, index)
        whole.data, whole.grad = _rows(whole.data, dim, index), None


def _rows(whole: Tensor, dim: int, index: Tensor) -> Tensor:
    """Returns the rows of an index, in the memory format of the whole."""
    last = whole.dim() == 4 and whole.is_contiguous(memory_format=torch.channels_last)
    rows = whole.index_select(dim, index.to(whole.device))
    return rows.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
