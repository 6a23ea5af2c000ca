"""Fixed random masks: the control for every search for masks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.sparsity.base import SearchContext, Sparsity, density, num_live, prunable


class Random(Sparsity):
    """Trains with random masks, drawn once for the whole network: the control that a ticket must beat.

    Source: the random pruning in Kim et al., "Exploring Lottery Ticket Hypothesis in Spiking Neural Networks", ECCV 2022.

    Each weight of a convolution or linear layer is as likely to exist as any other, and their number is exact. The run
    starts from its initial weights. Nothing is searched.

    Args:
        density: The share of the weights that exist.
        early_time: Refused, because nothing is searched.
    """

    def __init__(self, density: float = 1.0, early_time: bool = False) -> None:
        super().__init__(density, early_time)
        if density == 1:
            raise BadInput("random masks need a density below 1: choose one, or dense")

    def prepare(self, context: SearchContext, model: nn.Module) -> dict[str, Any]:
        """Draws the masks. Returns the density."""
        shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
        sizes = [math.prod(shape) for shape in shapes.values()]
        drawn_W = torch.randperm(sum(sizes), generator=stream(context.seed, "sparsity random"))
        live_W = torch.zeros(sum(sizes), dtype=torch.bool)
        live_W[drawn_W[: num_live(sum(sizes), self.density)]] = True
        self.masks = {
            name: part.view(shape) for (name, shape), part in zip(shapes.items(), live_W.split(sizes), strict=True)
        }
        return {"density": density(self.masks)}
