"""The exponential moving average of a network's weights, which `--ema` evaluates in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """The moving average of all weights and statistics of a network.

    Source: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992. The exponential form and its
    start are those of TensorFlow's `ExponentialMovingAverage`. Update n has the decay min(decay, (1 + n) / (10 + n)), so
    the untrained weights soon lose their influence. Running statistics of norms are averaged too, as in timm's `ModelEma`.

    Args:
        decay: The old average's share in an update, in (0, 1).

    Attributes:
        values: The averages, by the names of the network's state; empty before the first update.
        updates: Number of updates so far.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {}
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Adds the network's present state to the average; called after each update of the network."""
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, value in model.state_dict().items():
            if name not in self.values or not value.is_floating_point():
                self.values[name] = value.clone()
            else:
                self.values[name].lerp_(value, share)

    @torch.no_grad()
    def load_into(self, model: nn.Module) -> None:
        """Copies the averages into the network; before the first update it changes nothing."""
        for name, value in model.state_dict().items():
            if name in self.values:
                value.copy_(self.values[name])

    @contextmanager
    def within(self, model: nn.Module) -> Iterator[None]:
        """Gives the network the averages within the context, and its own values bit for bit afterwards."""
        own = {name: value.clone() for name, value in model.state_dict().items()}
        self.load_into(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in model.state_dict().items():
                    value.copy_(own[name])

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values only."""
        return {"values": self.values, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads the state of `state_dict`."""
        self.values = {name: value.clone() for name, value in state["values"].items()}
        self.updates = state["updates"]
