"""Iterative magnitude pruning with rewinding: the lottery ticket found by training and pruning in rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sadp_bench.core.errors import BadInput
from sadp_bench.sparsity.base import (
    MASK_COPIES,
    SearchContext,
    density,
    fixed,
    magnitude_masks,
    num_live,
    prunable,
)
from sadp_bench.sparsity.early_time import (
    Choice,
    Probing,
    Searching,
    chosen,
    kept_choice,
    last,
    search_steps,
)

MAX_ROUNDS = 1000  # rounds, each of which trains


class IMP(Searching):
    """Trains, prunes a quarter of the live weights by |w|, rewinds to early weights, and repeats down to the density.

    Source: Kim et al., "Exploring Lottery Ticket Hypothesis in Spiking Neural Networks", ECCV 2022, after Frankle &
    Carbin, ICLR 2019, and Frankle et al., ICML 2020 (rewinding).

    Round 1 trains the run's dense network for E epochs and keeps its whole state, buffers included, after the rewind
    epoch. Every further round continues from that state with its mask and the rest of the schedule. Pruning is
    global, over convolution and linear weights. The run starts from the rewound state with the last mask. It trains for
    all of its epochs, so its data are pruned on the same schedule as in any other run. The paper's last round is
    shorter.

    Args:
        density: The share of the weights that exist in the end.
        early_time: Whether the search takes fewer time steps.
        prune_share: The share of the live weights that a round prunes; the last round prunes to the density.
        rewind: Epochs after which the state is kept; 0: max(1, E / 15), the paper's 20 of 300.
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
        prune_share: float = 0.25,
        rewind: int = 0,
        kl_share: float = 0.6,
        kl_examples: int = 1000,
        early_rule: str = "second",
        search_ratio: float = 0.0,
    ) -> None:
        super().__init__(density, early_time, kl_share, kl_examples, early_rule, search_ratio)
        if not 0 < prune_share < 1:
            raise BadInput(f"imp's prune_share is above 0 and below 1, not {prune_share:g}")
        if rewind < 0:
            raise BadInput(f"imp's rewind is at least 0 (0: a fifteenth of the run), not {rewind}")
        if density > 0 and math.log(density) < MAX_ROUNDS * math.log1p(-prune_share):
            raise BadInput(
                f"imp's prune_share {prune_share:g} needs more than {MAX_ROUNDS:,} rounds to density {density:g}; raise it"
            )
        self.prune_share = prune_share
        self.rewind = rewind

    def prepare(self, context: SearchContext, model: nn.Module) -> dict[str, Any]:
        """Trains and prunes in rounds, and rewinds the run's model. Returns facts of the search."""
        timesteps, choice = self.first_timesteps(context, model), chosen(context.kept)
        rewind = self.rewind_epoch(context.num_epochs)
        total = sum(weight.numel() for weight in prunable(model).values())
        steps = round_densities(self.density, self.prune_share)
        done = rounds_done(context.kept, steps, total)
        masks, rewound = context.kept.get("masks"), context.kept.get("rewound")
        for number, goal in enumerate(steps[done:], done + 1):
            if masks is None:
                first = Rewindable(rewind, self.probe(context))
                networks = context.train(first, timesteps=timesteps, ratio=self.search_ratio)
            else:
                steps_of_round = timesteps if choice is None else choice.timesteps
                networks = context.train(
                    fixed(masks),
                    timesteps=steps_of_round,
                    weights=rewound,
                    first_epoch=rewind,
                    ratio=self.search_ratio,
                )
            masks = magnitude_masks(prunable(last(networks)), num_live(total, goal), masks)
            if rewound is None:
                rewound, choice = first.kept, first.choice
            context.keep(rounds=number, masks=masks, rewound=rewound, **kept_choice(choice))
            context.message(f"imp: round {number} of {len(steps)}, {density(masks):.2%} of the weights are left")
        assert masks is not None and rewound is not None
        self.masks = masks
        model.load_state_dict(rewound)
        return {
            "rounds": len(steps),
            "search_epochs": self._search_epochs(context.num_epochs),
            **search_steps(timesteps, choice),
            "rewind_epoch": rewind,
            "density": density(masks),
        }

    def check(self, num_epochs: int, timesteps: int) -> None:
        """Raises BadInput where no epoch follows the rewind epoch, or early time can't shorten the search."""
        super().check(num_epochs, timesteps)
        self.rewind_epoch(num_epochs)

    def rewind_epoch(self, num_epochs: int) -> int:
        """Returns the epoch after which the state is kept. Raises BadInput where no epoch would follow it."""
        rewind = self.rewind or max(1, round(num_epochs / 15))
        if rewind >= num_epochs:
            raise BadInput(f"imp rewinds to the weights after epoch {rewind}: that needs more than {num_epochs} epochs")
        return rewind

    def checkpoint_copies(self) -> float:
        """See `Sparsity.checkpoint_copies`: the rewound weights, and the masks of two rounds."""
        return 1 + 2 * MASK_COPIES

    def estimated_epochs(self, num_epochs: int) -> float:
        """Returns the epochs' worth of visits of all rounds, and of a network that is trained for T' alone."""
        return self._search_epochs(num_epochs) * (1 - self.search_ratio)

    def _search_epochs(self, num_epochs: int) -> int:
        further = len(round_densities(self.density, self.prune_share)) - 1
        return num_epochs + further * (num_epochs - self.rewind_epoch(num_epochs)) + self.probe_epochs


def round_densities(density: float, prune_share: float) -> list[float]:
    """Returns the density after each of ceil(ln density / ln(1 - prune_share)) rounds.

    It is (1 - prune_share)^k after round k, and `density` after the last round.
    """
    # The small term keeps rounding from adding a round: 0.75^2 takes two, not three.
    rounds = max(1, math.ceil(math.log(density) / math.log1p(-prune_share) - 1e-9))
    return [*((1 - prune_share) ** k for k in range(1, rounds)), density]


def rounds_done(kept: Mapping[str, Any], steps: Sequence[float], total: int) -> int:
    """Returns the number of rounds that a search has kept.

    Args:
        kept: See `SearchContext`.
        steps: The density after each round.
        total: The number of weights.

    Raises:
        BadInput: The kept masks do not fit the kept number of rounds.
    """
    done: int = kept.get("rounds", 0)
    live = sum(int(mask.sum()) for mask in kept["masks"].values()) if done else 0
    if done not in range(len(steps) + 1) or live != (num_live(total, steps[done - 1]) if done else 0):
        raise BadInput(
            f"the checkpoint of imp's search contains {done} of {len(steps)} rounds and {live} of {total} weights, which do "
            "not fit each other: delete it (*.ckpt, *.ckpt.before) and run again"
        )
    return done


class Rewindable(Probing):
    """Dense training that keeps the network's whole state after `rewind` epochs.

    Args:
        rewind: The number of finished epochs, at least 1.
        probe: See `Probing`.

    Attributes:
        kept: The state dict; empty before that epoch.
    """

    def __init__(self, rewind: int, probe: Callable[[nn.Module], Choice] | None = None) -> None:
        super().__init__(probe)
        self.rewind = rewind
        self.kept: dict[str, Tensor] = {}

    def after_epoch(self, epoch: int, num_epochs: int) -> None:
        """Keeps the state if it is time."""
        super().after_epoch(epoch, num_epochs)
        if epoch + 1 == self.rewind:
            self.kept = {name: value.clone() for name, value in self.model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns masks, choice and the kept state."""
        return super().state_dict() | {"kept": dict(self.kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads masks, choice and the kept state."""
        super().load_state_dict(state)
        self.kept = dict(state["kept"])
