"""Which weights of a network exist while it trains: masks, and the base class of all methods that train with fewer.

A mask is bool, of its weight's shape; True: the weight exists, it is live. Masks are never changed in place: a new one
takes the old one's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sadp_bench.core.errors import BadInput

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

MASK_COPIES = 0.25  # of its weight's bytes: a mask takes one byte for each of a float32's four

Masks = dict[str, Tensor]


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of all convolution and linear layers, the readout included, by name, in the order of the modules. No
    biases, no norms; a weight that two layers share appears once."""
    weights = {id(layer.weight) for layer in model.modules() if isinstance(layer, LAYERS)}
    return {name: weight for name, weight in model.named_parameters() if id(weight) in weights}


def num_live(total: int, density: float) -> int:
    """How many of so many weights exist at a density: at least 1."""
    return max(1, round(density * total))


def magnitude_masks(weights: Mapping[str, Tensor], num_live: int, live: Mapping[str, Tensor] | None = None) -> Masks:
    """The globally largest |w|, exactly `num_live` of them, ties broken by position (the earlier one stays).

    live: masks; what they lack is not chosen again, whatever its size.
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
    """The share of the masks' positions that are live; of no masks 1."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / total if total else 1.0


class Sparsity:
    """Every weight exists (`dense`): the base class of all that train with fewer of them.

    Source: none; dense training is the reference.

    density: the share of the prunable weights that exist in the end, in (0, 1]. early_time: whether the search for them
    takes fewer time steps than the run (`sparsity.early_time`); only for a kind that searches.
    masks: by the weights' names; empty: all exist. model, optimizer: those that the masks are attached to.
    """

    searches: ClassVar[bool] = False  # trains networks before the run to find the masks
    dense_momentum: ClassVar[bool] = False  # masked weights keep their momentum, to be regrown by it

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, density: float = 1.0, early_time: bool = False) -> None:
        if not 0 < density <= 1:
            raise BadInput(f"density is above 0 and at most 1 (the share of weights that exist), not {density:g}")
        if type(self) is Sparsity and density < 1:
            raise BadInput(f"dense keeps every weight: for a density of {density:g} choose imp, eb or pq")
        if early_time and not self.searches:
            raise BadInput("early_time shortens the search for a mask; only imp and eb search")
        self.density = density
        self.early_time = early_time
        self.masks: Masks = {}
        self._hook: RemovableHandle | None = None

    def prepare(self, context: SearchContext, model: nn.Module) -> dict[str, Any]:
        """Called once, before training: sets `masks`, and may load other weights into the run's model. Plain facts for the
        record."""
        return {}

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Masks the weights now and after every step of the optimizer, so that the loop need not know. Without masks
        there is no hook. To be called again where masks or weights were loaded."""
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
        """Zeroes the masked weights and all that the optimizer keeps of each (momentum, mean square), unless the momentum
        stays dense."""
        for name, mask in self.masks.items():
            weight, dead = self.model.get_parameter(name), ~mask
            weight.masked_fill_(dead, 0)
            if not self.dense_momentum:
                for kept in self.optimizer.state.get(weight, {}).values():
                    if isinstance(kept, Tensor) and kept.shape == weight.shape:
                        kept.masked_fill_(dead, 0)

    def after_epoch(self, epoch: int, num_epochs: int) -> None:
        """Called at the end of each epoch, from 0, of so many."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values: all that an exact resume needs but what `prepare` did to the model."""
        return {"masks": dict(self.masks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.masks = dict(state["masks"])

    def checkpoint_copies(self) -> float:
        """Returns what a checkpoint holds beside network and optimizer, in copies of the weights: for the disk check."""
        return MASK_COPIES if self.density < 1 else 0.0

    def estimated_epochs(self, num_epochs: int) -> float:
        """How many epochs' worth of example visits `prepare` makes at most: for the estimate before training."""
        return 0


def fixed(masks: Mapping[str, Tensor]) -> Sparsity:
    """Training with these masks from its start to its end; with none it is dense."""
    sparsity = Sparsity()
    sparsity.masks = dict(masks)
    return sparsity


def laid_out(mask: Tensor, weight: Tensor) -> Tensor:
    """The mask on the weight's device, and in memory as the weight lies there (channels last, say)."""
    return torch.empty_like(weight, dtype=torch.bool, requires_grad=False).copy_(mask)


class SearchContext(Protocol):
    """What a search for masks may use before training; everything done here is charged to `prepare`."""

    num_epochs: int
    timesteps: int
    seed: int
    kept: dict[str, Any]  # what `keep` was given so far, before an interruption too

    def keep(self, **state: Any) -> None:
        """Keeps tensors and plain values for a resume, which continues after this call.

        A resumed search finds them in `kept`, and must not train again what was trained before them.
        """

    def train(
        self,
        sparsity: Sparsity,
        *,
        timesteps: int,
        weights: Mapping[str, Tensor] | None = None,
        first_epoch: int = 0,
        epochs: int | None = None,
    ) -> Iterator[nn.Module]:
        """Trains a network on the full data by the run's own loop, and yields it after each epoch.

        From the run's initial weights, or from `weights`, a whole state dict; on the run's schedule from `first_epoch`
        on until `epochs` (the run's number). `sparsity` is attached here, and its `after_epoch` called before each yield.
        The consumer may stop early. After an interruption the state of `sparsity` is put back, and the first network
        yielded is that of the last finished epoch.
        """

    def logits(self, model: nn.Module, num_examples: int) -> Tensor:
        """[T, n, C] float32, of the first n training examples: evaluation mode, no augmentation."""

    def say(self, text: str) -> None:
        """Tells the person at the terminal."""
