"""Masks, which mark the weights that exist, and the base class of all sparse training methods.

A mask is a bool tensor of its weight's shape; a weight that exists (True) is live. Masks are never changed in place:
a new mask replaces the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sadp_bench.capture.heads import head_layers
from sadp_bench.capture.layer_shapes import WEIGHT_LAYERS
from sadp_bench.core.errors import BadInput

MASK_COPIES = 0.25  # bytes of a mask over those of its float32 weight

Masks = dict[str, Tensor]


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the weights of all convolution and linear layers, the readout included, by name, in the modules' order.

    Biases, norms and auxiliary heads are left out. A weight that two layers share appears once.
    """
    layers = set(model.modules()) - head_layers(model)
    weights = {id(layer.weight) for layer in layers if isinstance(layer, WEIGHT_LAYERS)}
    return {name: weight for name, weight in model.named_parameters() if id(weight) in weights}


def num_live(total: int, density: float) -> int:
    """Returns the number of live weights, at least 1, among `total` at a density."""
    return max(1, round(density * total))


def magnitude_masks(weights: Mapping[str, Tensor], num_live: int, live: Mapping[str, Tensor] | None = None) -> Masks:
    """Returns masks of the `num_live` globally largest |w|. The earlier of equal weights is chosen.

    Args:
        weights: The weights by name.
        num_live: The exact number of weights to choose.
        live: Masks of the weights that may be chosen; None: all may.
    """
    size_W = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    if live is not None:
        live_W = torch.cat([live[name].flatten() for name in weights]).to(size_W.device)
        assert num_live <= int(live_W.sum())
        size_W = size_W.masked_fill(~live_W, -1)
    chosen_W = torch.zeros_like(size_W, dtype=torch.bool)
    chosen_W[size_W.argsort(descending=True, stable=True)[:num_live]] = True
    parts = chosen_W.split([weight.numel() for weight in weights.values()])
    return {name: part.view(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def density(masks: Mapping[str, Tensor]) -> float:
    """Returns the share of the masks' positions that are live; 1 without masks."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / total if total else 1.0


class Sparsity:
    """Keeps every weight (`dense`). This is the base class of all sparsities with fewer weights.

    Source: none; dense training is the reference.

    Args:
        density: The share of the prunable weights that exist in the end, in (0, 1].
        early_time: Whether the search takes fewer time steps than the run (`sparsity.early_time`); for searches only.

    Attributes:
        masks: Masks by the weights' names; empty: all weights exist.
        model: The network that the masks are attached to.
        optimizer: The optimizer that the masks are attached to.
        searches: Whether `prepare` trains networks to find the masks.
        dense_momentum: Whether masked weights keep their momentum, by which they are regrown.
    """

    searches: ClassVar[bool] = False
    dense_momentum: ClassVar[bool] = False

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, density: float = 1.0, early_time: bool = False) -> None:
        if not 0 < density <= 1:
            raise BadInput(f"density is above 0 and at most 1 (the share of weights that exist), not {density:g}")
        if type(self) is Sparsity and density < 1:
            raise BadInput(
                f"dense keeps every weight: for a density of {density:g} choose imp, eb, pq, random, fixed, channels or "
                "narrow"
            )
        if early_time and not self.searches:
            raise BadInput("early_time shortens the search for a mask; only imp and eb search")
        self.density = density
        self.early_time = early_time
        self.masks: Masks = {}
        self._hook: RemovableHandle | None = None

    def check(self, num_epochs: int, timesteps: int) -> None:
        """Raises BadInput for a run in which `prepare` would fail. Called before any training."""

    def check_network(self, backbone: type[nn.Module], options: Mapping[str, Any], processes: int) -> None:
        """Raises BadInput for a network that can't have such connections. Called before any training.

        Args:
            backbone: The network's class.
            options: The backbone's settings.
            processes: The number of the run's processes.
        """

    def build(self, model: nn.Module, products: Callable[[], Mapping[str, float]], seed: int) -> None:
        """Changes the untrained network of a run. Called once, before the optimizer exists, and so before `prepare`.

        Args:
            model: The network as its class builds it, on the CPU.
            products: Returns the products of one inference by the weights' names.
            seed: The run's seed.
        """

    def shape(self, model: nn.Module) -> None:
        """Gives a network of `build` the shapes of a loaded state, before its weights are loaded."""

    def prepare(self, context: SearchContext, model: nn.Module) -> dict[str, Any]:
        """Sets `masks`, and may load other weights into the run's model. Called once, before training.

        Args:
            context: Training and data for a search.
            model: The run's network.

        Returns:
            Facts for the record, as plain values.
        """
        return {}

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Masks the weights now and after every step of the optimizer.

        Without masks it registers no hook. Call it again after masks or weights were loaded.
        """
        self.model, self.optimizer = model, optimizer
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self.masks:
            self.masks = {name: laid_out(mask, model.get_parameter(name)) for name, mask in self.masks.items()}
            self._hook = optimizer.register_step_post_hook(lambda *_: self.apply())
            self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Zeroes the masked weights and, unless the momentum stays dense, their optimizer state."""
        for name, mask in self.masks.items():
            weight, dead = self.model.get_parameter(name), ~mask
            weight.masked_fill_(dead, 0)
            if not self.dense_momentum:
                for kept in self.optimizer.state.get(weight, {}).values():
                    if isinstance(kept, Tensor) and kept.shape == weight.shape:
                        kept.masked_fill_(dead, 0)

    def after_epoch(self, epoch: int, num_epochs: int) -> None:
        """Called at the end of each epoch, from 0, of `num_epochs`."""

    def live_share(self) -> float:
        """Returns the share of the dense network's connections that exist; 1 without masks."""
        return density(self.masks)

    def facts(self) -> dict[str, Any]:
        """Returns facts of the training for the record, as plain values, besides those of `prepare`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values: all that an exact resume needs, without the model's weights."""
        return {"masks": dict(self.masks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads a state of `state_dict`. `attach` must follow."""
        self.masks = dict(state["masks"])

    def checkpoint_copies(self) -> float:
        """Returns the size of a checkpoint besides network and optimizer, in copies of the weights."""
        return MASK_COPIES if self.density < 1 else 0.0

    def estimated_epochs(self, num_epochs: int) -> float:
        """Returns the most example visits that `prepare` makes, in epochs, for estimates."""
        return 0


def fixed(masks: Mapping[str, Tensor]) -> Sparsity:
    """Returns a sparsity whose masks never change; without masks it is dense."""
    sparsity = Sparsity()
    sparsity.masks = dict(masks)
    return sparsity


def laid_out(mask: Tensor, weight: Tensor) -> Tensor:
    """Returns the mask on the weight's device and in its memory format, such as channels last."""
    return torch.empty_like(weight, dtype=torch.bool, requires_grad=False).copy_(mask)


class SearchContext(Protocol):
    """Training and data for a search for masks, before the run trains. All calls are charged to the phase prepare.

    Attributes:
        num_epochs: The run's epochs.
        timesteps: The run's time steps.
        seed: The run's seed.
        kept: All that was passed to `keep` so far, also before an interruption.
    """

    num_epochs: int
    timesteps: int
    seed: int
    kept: dict[str, Any]

    def keep(self, **state: Any) -> None:
        """Keeps tensors and plain values for a resume, which continues after this call.

        A resumed search has them in `kept`, and must not repeat the trainings before this call.
        """

    def train(
        self,
        sparsity: Sparsity,
        *,
        timesteps: int,
        weights: Mapping[str, Tensor] | None = None,
        first_epoch: int = 0,
        epochs: int | None = None,
        ratio: float = 0.0,
    ) -> Iterator[nn.Module]:
        """Trains a network with the run's loop on the full data, or a part of it, and yields it after each epoch.

        `sparsity` is attached, and its `after_epoch` is called before each yield. The consumer may stop early. After an
        interruption the state of `sparsity` is restored, and the first network yielded is that of the last finished
        epoch.

        Args:
            sparsity: The masks, and their changes after each epoch.
            timesteps: Time steps of the network.
            weights: A state dict to start from; None: the run's initial weights.
            first_epoch: The epoch of the run's schedule to start at.
            epochs: The epoch of the schedule before which training ends; None: the run's number of epochs.
            ratio: The share of visits to save: each epoch trains on a new random subset.
        """

    def logits(self, model: nn.Module, num_examples: int) -> Tensor:
        """Returns logits of the first n training examples in evaluation mode, unaugmented. [T, n, C] float32."""

    def message(self, text: str) -> None:
        """Shows a line to the user."""
