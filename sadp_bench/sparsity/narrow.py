"""A narrower network from the start: the control for methods that cut channels."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from sadp_bench.core.channels import keep_channels, named_groups
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import isolated
from sadp_bench.core.text import percent
from sadp_bench.sparsity.cutting import Cutting

ROUNDING = 1 + Fraction(1, 10**9)  # A record's share is rounded, and must still allow the network of that record.


class Narrow(Cutting):
    """Trains a narrower network from the start: the control that `channels` must beat.

    Source: Liu et al., "Rethinking the Value of Network Pruning", ICLR 2019, which trains pruned architectures anew.

    All layers whose channels can be cut keep the same share of them, to within one channel. The initial weights are those
    of a network that is built with these widths. Nothing is searched. As the control for a run of `channels`, take the
    `products_share` of its record as the density.

    Args:
        density: The share of the dense network's products in an inference. The widest network with at most these is taken.
        early_time: Refused, because nothing is searched.
    """

    needs = ("channel_groups", "initialise")

    def __init__(self, density: float = 1.0, early_time: bool = False) -> None:
        super().__init__(density, early_time)

    def build(self, model: nn.Module, products: Callable[[], Mapping[str, float]], seed: int) -> None:
        """Narrows the network and draws its weights. Raises BadInput if one channel a layer already has more products."""
        super().build(model, products, seed)
        network: Any = model
        groups = named_groups(network)
        names = {module: f"{name}.weight" for name, module in model.named_modules()}
        sides = {
            name: [names[module] for module in (group.producer, *group.consumers)] for name, group in groups.items()
        }
        channels = {name: group.producer.out_channels for name, group in groups.items()}
        widths = narrowed(channels, sides, self._products, self.density)
        for name, group in groups.items():
            keep_channels(group, torch.arange(channels[name]) < widths[name])
        dtype = next(model.parameters()).dtype  # Weights are drawn in float32, as those of any network.
        with isolated(seed, "weights", torch.device("cpu")):
            network.float().initialise()
        network.to(dtype)


def narrowed(
    channels: Mapping[str, int], sides: Mapping[str, Sequence[str]], products: Mapping[str, float], share: float
) -> dict[str, int]:
    """Returns the channels of each group in the widest network with at most a share of the products.

    Networks grow channel by channel. The next channel goes to the group that then has the smallest share of its
    channels, and to the first of equal groups.

    Args:
        channels: The channels of each group in the dense network.
        sides: For each group, the layers that have its channels as outputs or inputs.
        products: The products of each layer in the dense network.
        share: The largest share of all products.

    Raises:
        BadInput: One channel in each group already has more products.
    """
    growth = sorted(
        (Fraction(number, all_of), place, name)
        for place, (name, all_of) in enumerate(channels.items())
        for number in range(2, all_of + 1)
    )
    most = Fraction(share) * Fraction(sum(products.values())) * ROUNDING

    def widths(steps: int) -> dict[str, int]:
        grown = [name for *_, name in growth[:steps]]
        return {name: 1 + grown.count(name) for name in channels}

    def made(steps: int) -> Fraction:
        left = {layer: Fraction(number) for layer, number in products.items()}
        for name, width in widths(steps).items():
            for layer in sides[name]:
                left[layer] *= Fraction(width, channels[name])
        return sum(left.values(), Fraction(0))

    if made(0) > most:
        least = float(made(0) / Fraction(sum(products.values())))
        raise BadInput(
            f"--sparsity narrow: a network with one channel in each layer makes {percent(least)} of the products, more than "
            f"the density {share:g}; raise --density"
        )
    return widths(bisect(range(1, len(growth) + 1), most, key=made))
