"""The auxiliary heads of a network that learns locally. They exist in training alone, and inference uses the readout.

`training.local` attaches them to the network, so that optimizers, checkpoints and hooks reach them like any layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

NAME = "local_heads"  # of the network's attribute


def heads_of(model: nn.Module) -> Sequence[nn.Module]:
    """Returns the heads of the blocks but the last, in their order; none without local learning."""
    heads: Sequence[nn.Module] = getattr(model, NAME, ())
    return heads


def head_layers(model: nn.Module) -> set[nn.Module]:
    """Returns all layers of the heads."""
    return {layer for head in heads_of(model) for layer in head.modules()}


def linear_of_layer(model: Any) -> dict[nn.Module, nn.Module]:
    """Returns, for each layer of a head and of its block, the head's linear layer, which is its last."""
    heads: Sequence[Any] = heads_of(model)
    if not heads:
        return {}
    (first, *blocks), stem = model.blocks(), model.stem
    parts = zip(heads, ([stem, *first], *blocks), strict=False)  # The last block has no head.
    return {layer: head[-1] for head, block in parts for part in (*block, head) for layer in part.modules()}


def inference_parameters(model: nn.Module) -> int:
    """Returns the number of parameters of a network, without those of its heads."""
    heads = {id(parameter) for layer in head_layers(model) for parameter in layer.parameters()}
    return sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in heads)


def inference_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state dict of a network, without its heads."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith(f"{NAME}.")}
