"""The base class of the sparsities with fewer channels: checks of the network, and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import nn

from sadp_bench.core.channels import OTHER_NORMS, named_groups
from sadp_bench.core.errors import BadInput
from sadp_bench.sparsity.base import Sparsity, prunable


class Cutting(Sparsity):
    """Trains a network without some of its channels. It has smaller tensors, and no masks.

    Args:
        density: See `Sparsity`; below 1.
        early_time: Refused, because no network is trained before the run.

    Attributes:
        needs: Methods of `core.channels.HasChannelGroups` that it calls.
    """

    needs: ClassVar[tuple[str, ...]] = ("channel_groups",)

    def __init__(self, density: float, early_time: bool) -> None:
        super().__init__(density, early_time)
        if density == 1:
            raise BadInput(f"{self.name()} needs a density below 1: choose one, or dense")
        self._connections: dict[str, int] = {}  # of the dense network, by weight; so are the products
        self._products: dict[str, float] = {}

    @classmethod
    def name(cls) -> str:
        """Returns the name on the command line."""
        return cls.__name__.lower()

    def check_network(self, backbone: type[nn.Module], options: Mapping[str, Any], processes: int) -> None:
        """Raises BadInput where no channels can be cut."""
        if missing := [method for method in self.needs if not hasattr(backbone, method)]:
            raise BadInput(
                f"--sparsity {self.name()} needs a backbone whose channels can be cut, and {backbone.__name__} has no method "
                f"{' and no '.join(missing)} (see CONTRIBUTING.md)"
            )
        if options.get("norm") == "group":
            raise BadInput(f"--sparsity {self.name()} cuts channels, and backbone.norm=group mixes them: {OTHER_NORMS}")
        if processes > 1:
            raise BadInput(
                f"--sparsity {self.name()} changes the weights' shapes, which {processes} processes can't share: take one"
            )

    def build(self, model: nn.Module, products: Callable[[], Mapping[str, float]], seed: int) -> None:
        """Notes the dense network's connections and products."""
        self._connections = {name: weight.numel() for name, weight in prunable(model).items()}
        self._products = dict(products())

    def live_share(self) -> float:
        """Returns the share of the dense network's connections that exist."""
        left = sum(weight.numel() for weight in prunable(self.model).values())
        return left / sum(self._connections.values())

    def products_share(self) -> float:
        """Returns the products of an inference over those of the dense network."""
        weights = prunable(self.model)
        # Each connection of a layer makes the same number of products.
        left = sum(self._products[name] * weight.numel() / self._connections[name] for name, weight in weights.items())
        return left / sum(self._products.values())

    def facts(self) -> dict[str, Any]:
        """Returns the channels left, by the names of their convolutions, and the shares of products and connections."""
        channels = {name: group.producer.out_channels for name, group in named_groups(self.model).items()}
        return {"channels": channels, "products_share": self.products_share(), "density": self.live_share()}
