"""Early-bird tickets: the mask on which a network's early epochs already agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sadp_bench.core.errors import BadInput
from sadp_bench.sparsity.base import (
    MASK_COPIES,
    Masks,
    SearchContext,
    density,
    magnitude_masks,
    num_live,
    prunable,
)
from sadp_bench.sparsity.early_time import Choice, Probing, Searching, search_steps

MAX_WINDOW = 1000  # masks, all of which are kept


class EB(Searching):
    """Draws the largest weights' mask after each epoch of dense training until it settles, then trains from the start.

    Source: You et al., "Drawing Early-Bird Tickets", ICLR 2020, for spiking networks in Kim et al., "Exploring
    Lottery Ticket Hypothesis in Spiking Neural Networks", ECCV 2022.

    The mask is global over convolution and linear weights. It has settled when the newest of `window` masks differs
    from each of the others in less than `distance` of its positions. If it has not settled within the run's epochs, the
    last mask is used, and the record has converged: false. The run starts from its initial weights.

    Two masks of density d differ in at most 2d of their positions. If 2d < distance, the first full window always ends
    the search, so lower `distance` with the density.

    Args:
        density: The share of the weights that exist.
        early_time: Whether the search takes fewer time steps.
        window: The number of masks that are compared.
        distance: The share of positions below which two masks agree.
        kl_share: For early time: a step's output is close enough to that of all steps if its divergence is below this
            share of the divergence at step 2 (with "max", of the largest).
        kl_examples: For early time: the number of training examples on which the time steps are chosen.
        early_rule: For early time: whether the divergence is compared with that at step 2 ("second", the paper's) or with
            the largest ("max").
        search_ratio: The share of visits that the search saves: each of its epochs has a new random subset.
    """

    def __init__(
        self,
        density: float = 1.0,
        early_time: bool = False,
        *,
        window: int = 5,
        distance: float = 0.02,
        kl_share: float = 0.6,
        kl_examples: int = 1000,
        early_rule: str = "second",
        search_ratio: float = 0.0,
    ) -> None:
        super().__init__(density, early_time, kl_share, kl_examples, early_rule, search_ratio)
        check_window("eb", window, distance)
        self.window = window
        self.distance = distance

    def prepare(self, context: SearchContext, model: nn.Module) -> dict[str, Any]:
        """Trains until the mask settles. Returns the search's epochs and time steps, and whether it converged."""
        timesteps = self.first_timesteps(context, model)
        search = Drawing(self.density, self.window, self.probe(context))
        converged = False
        for _ in context.train(search, timesteps=timesteps, ratio=self.search_ratio):
            converged = settled(search.drawn, self.window, self.distance)
            if converged:
                break
        self.masks = search.drawn[-1]
        found = "settled after" if converged else "did not settle; taken after all"
        context.message(f"eb: the mask of {density(self.masks):.2%} of the weights {found} {search.epochs} epochs")
        return {
            "search_epochs": search.epochs + self.probe_epochs,
            **search_steps(timesteps, search.choice),
            "converged": converged,
            "density": density(self.masks),
        }

    def checkpoint_copies(self) -> float:
        """See `Sparsity.checkpoint_copies`: the masks drawn in the window."""
        return self.window * MASK_COPIES

    def estimated_epochs(self, num_epochs: int) -> float:
        """Returns the epochs' worth of visits of a search that does not settle."""
        return (num_epochs + self.probe_epochs) * (1 - self.search_ratio)


def check_window(name: str, window: int, distance: float) -> None:
    """Raises BadInput for a sparsity's window or distance with which no mask can settle."""
    if not 2 <= window <= MAX_WINDOW:
        raise BadInput(f"{name}'s window is from 2 to {MAX_WINDOW:,} masks, not {window}")
    if not 0 < distance <= 1:
        raise BadInput(f"{name}'s distance is above 0 and at most 1 (a share of positions), not {distance:g}")


def mask_distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Returns the share of positions in which two masks differ (normalised Hamming distance)."""
    differing = sum(int((one[name] != other[name]).sum()) for name in one)
    return differing / sum(mask.numel() for mask in one.values())


def settled(drawn: Sequence[Mapping[str, Tensor]], window: int, distance: float) -> bool:
    """Returns whether the newest of the last `window` masks is closer than `distance` to each of the others."""
    *others, newest = drawn[-window:]
    return len(others) == window - 1 and all(mask_distance(newest, other) < distance for other in others)


class Drawing(Probing):
    """Dense training that draws the mask of the largest weights after each epoch.

    Args:
        goal: The density of the masks.
        window: The number of masks that are kept.
        probe: See `Probing`.

    Attributes:
        drawn: The last `window` masks.
        epochs: Finished epochs.
    """

    def __init__(self, goal: float, window: int, probe: Callable[[nn.Module], Choice] | None = None) -> None:
        super().__init__(probe)
        self.goal = goal
        self.window = window
        self.epochs = 0
        self.drawn: list[Masks] = []

    def after_epoch(self, epoch: int, num_epochs: int) -> None:
        """Draws a mask."""
        super().after_epoch(epoch, num_epochs)
        weights = prunable(self.model)
        total = sum(weight.numel() for weight in weights.values())
        self.drawn = [*self.drawn, magnitude_masks(weights, num_live(total, self.goal))][-self.window :]
        self.epochs = epoch + 1

    def state_dict(self) -> dict[str, Any]:
        """Returns masks, choice and epochs."""
        return super().state_dict() | {"drawn": list(self.drawn), "epochs": self.epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads masks, choice and epochs."""
        super().load_state_dict(state)
        self.drawn, self.epochs = list(state["drawn"]), state["epochs"]
