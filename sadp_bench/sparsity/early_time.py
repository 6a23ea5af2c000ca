"""Early-Time tickets, whose search takes fewer time steps than the run. T time steps, B examples, C classes."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput
from sadp_bench.core.precision import widest_dtype
from sadp_bench.sparsity.base import SearchContext, Sparsity

MIN_DIVERGENCE = 1e-12  # nats; a smaller divergence is the rounding of equal distributions
LEAST_TIMESTEPS = 4  # with fewer there is no t in {3, .., T - 1}, and KL_2 / KL_2 is 1
PROBE_EPOCHS = 2  # epochs of the search at all time steps, after which T' is chosen
EARLY_RULES = ("second", "max")


def divergences(logits_TBC: Tensor) -> Tensor:
    """Returns KL_t = KL(softmax(mean logits to T) || softmax(mean logits to t)), mean over examples. Float64, [T]."""
    steps_T11 = torch.arange(1, len(logits_TBC) + 1, device=logits_TBC.device)[:, None, None]
    log_p_TBC = (logits_TBC.to(widest_dtype(logits_TBC.device)).cumsum(0) / steps_T11).log_softmax(2)
    whole_BC = log_p_TBC[-1]
    return (whole_BC.exp() * (whole_BC - log_p_TBC)).sum(2).mean(1).clamp_min(0)


@dataclass(frozen=True, slots=True)
class Choice:
    """The time steps of a search.

    Attributes:
        timesteps: T'.
        why: The reason, a phrase for the user and the record.
    """

    timesteps: int
    why: str


def early_timesteps(kl_T: Tensor, share: float = 0.6) -> Choice:
    """Returns T', the smallest t in {2, .., T - 1} with KL_t / KL_2 < share, or T where there is none.

    If a network's output is the same at all steps, as that of a silent one, all divergences are 0, and T is returned.
    The source divides by 0 there.

    Source: Kim et al., "Exploring Lottery Ticket Hypothesis in Spiking Neural Networks", ECCV 2022 (Early-Time
    tickets, section 3.3 and algorithm 1).

    Args:
        kl_T: The result of `divergences`.
        share: The KL_t / KL_2 below which a step's output is close to that of all steps.
    """
    timesteps = len(kl_T)
    if float(kl_T.max()) <= MIN_DIVERGENCE:
        return Choice(timesteps, "the network is silent, or its output is the same at all steps (every KL is 0)")
    if float(kl_T[1]) <= MIN_DIVERGENCE:
        return Choice(timesteps, "KL_2 is 0, so no KL_t / KL_2 exists")
    for t in range(2, timesteps):
        if float(kl_T[t - 1] / kl_T[1]) < share:
            return Choice(t, f"KL_{t} / KL_2 is {float(kl_T[t - 1] / kl_T[1]):.2f}, below {share:g}")
    return Choice(timesteps, f"no KL_t / KL_2 with t < {timesteps} is below {share:g}")


def timesteps_by_max(kl_T: Tensor, share: float = 0.6) -> int:
    """Returns the smallest t from 1 on with KL_t / max KL < share, the rule of `early_rule` "max"; 1 where all KL are 0.

    No source has this rule. KL_1 usually is the largest, so the rule usually chooses 2, which the source never does.
    """
    if float(kl_T.max()) <= MIN_DIVERGENCE:
        return 1
    return 1 + int((kl_T / kl_T.max() < share).nonzero()[0])


class Probing(Sparsity):
    """Dense training that lowers the network's time steps to T' after `PROBE_EPOCHS` epochs, in place.

    Args:
        probe: Returns the choice of T' for a trained network; None: the time steps stay.

    Attributes:
        choice: The choice; None before it is made.
    """

    def __init__(self, probe: Callable[[nn.Module], Choice] | None = None) -> None:
        super().__init__()
        self.probe = probe
        self.choice: Choice | None = None

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """See `Sparsity.attach`. A resumed network gets the time steps that were chosen."""
        super().attach(model, optimizer)
        if self.choice is not None:
            lower(model, self.choice.timesteps)

    def after_epoch(self, epoch: int, num_epochs: int) -> None:
        """Chooses T' if it is time."""
        if self.probe is not None and epoch + 1 == PROBE_EPOCHS:
            self.choice = self.probe(self.model)
            lower(self.model, self.choice.timesteps)

    def state_dict(self) -> dict[str, Any]:
        """Returns masks and choice."""
        return super().state_dict() | kept_choice(self.choice)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads masks and choice. States of an earlier version contain no choice."""
        super().load_state_dict(state)
        self.choice = chosen(state)


def lower(model: nn.Module, timesteps: int) -> None:
    """Sets the number of time steps that a network makes, its attribute `timesteps`."""
    model.timesteps = timesteps  # type: ignore[assignment]


def last(networks: Iterator[nn.Module]) -> nn.Module:
    """Returns the network after all its epochs."""
    return deque(networks, maxlen=1).pop()


class Searching(Sparsity):
    """Trains networks to find its masks, at T' time steps with `early_time`, otherwise at the run's.

    T' is chosen with the search's network after `PROBE_EPOCHS` epochs at all steps. These epochs belong to the search: the
    same network goes on with T' steps. With the rule "max", T' is chosen after one epoch of a network that is trained for
    this alone. All epochs are charged.

    Args:
        density: See `Sparsity`; below 1.
        early_time: See `Sparsity`.
        kl_share: The share of `early_timesteps`; without effect unless `early_time`.
        kl_examples: The number of training examples that T' is measured on; without effect unless `early_time`.
        early_rule: "second": T' of `early_timesteps`, the paper's. "max": T' of `timesteps_by_max`.
        search_ratio: The share of visits that the search saves: each of its epochs has a new random subset.
    """

    searches = True

    def __init__(
        self, density: float, early_time: bool, kl_share: float, kl_examples: int, early_rule: str, search_ratio: float
    ) -> None:
        super().__init__(density, early_time)
        if density == 1:
            raise BadInput("a search for a mask needs a density below 1: choose one, or dense")
        if not 0 < kl_share <= 1:
            raise BadInput(f"kl_share is above 0 and at most 1, not {kl_share:g}")
        if kl_examples < 1:
            raise BadInput(f"kl_examples is at least 1, not {kl_examples}")
        if early_rule not in EARLY_RULES:
            raise BadInput(f"early_rule is one of {', '.join(EARLY_RULES)}, not '{early_rule}'")
        if not 0 <= search_ratio < 1:
            raise BadInput(
                f"search_ratio is at least 0 and below 1 (the share of the search's visits to save), not {search_ratio:g}"
            )
        self.search_ratio = search_ratio
        self.kl_share = kl_share
        self.kl_examples = kl_examples
        self.early_rule = early_rule

    def check(self, num_epochs: int, timesteps: int) -> None:
        """Raises BadInput where early time can't shorten a search, or the epochs do not suffice for it."""
        if self.early_time and timesteps == 1:
            raise BadInput("early_time shortens a search of several time steps, and the run has 1: leave it out")
        if self.probes and timesteps < LEAST_TIMESTEPS:
            raise BadInput(
                f"early_time searches with 3 to T - 1 time steps, so it needs at least {LEAST_TIMESTEPS}, and the run has "
                f"{timesteps}: leave it out"
            )
        if self.probes and num_epochs <= PROBE_EPOCHS:
            raise BadInput(
                f"early_time chooses the search's time steps after epoch {PROBE_EPOCHS}: that needs more than {num_epochs} "
                "epochs"
            )

    @property
    def probes(self) -> bool:
        """Whether the search itself lowers its time steps."""
        return self.early_time and self.early_rule == "second"

    @property
    def probe_epochs(self) -> int:
        """The epochs of a network that is trained for T' alone."""
        return int(self.early_time and not self.probes)

    def first_timesteps(self, context: SearchContext, model: nn.Module) -> int:
        """Returns the time steps at which the search begins.

        Args:
            context: The search's context.
            model: The run's network.

        Raises:
            BadInput: Early time can't shorten a search of this run.
        """
        self.check(context.num_epochs, context.timesteps)
        if not self.early_time:
            return context.timesteps
        if self.probes:
            if getattr(model, "timesteps", None) != context.timesteps:
                raise BadInput(
                    "early_time lowers the backbone's attribute timesteps, the number of its time steps, and "
                    f"{type(model).__name__}.timesteps is no such number; take --set sparsity.early_rule=max"
                )
            return context.timesteps
        if "timesteps" not in context.kept:
            context.keep(timesteps=self._timesteps_by_max(context))
        timesteps: int = context.kept["timesteps"]
        return timesteps

    def probe(self, context: SearchContext) -> Callable[[nn.Module], Choice] | None:
        """Returns the function that chooses and shows T' of the search's network; None where the time steps stay."""
        if not self.probes:
            return None

        def choice(model: nn.Module) -> Choice:
            found = early_timesteps(divergences(context.logits(model, self.kl_examples)), self.kl_share)
            steps = f"{found.timesteps} of {context.timesteps} time steps"
            context.message(f"early time: the search takes {steps} after epoch {PROBE_EPOCHS}: {found.why}")
            return found

        return choice

    def _timesteps_by_max(self, context: SearchContext) -> int:
        model = last(context.train(Sparsity(), timesteps=context.timesteps, epochs=1, ratio=self.search_ratio))
        timesteps = timesteps_by_max(divergences(context.logits(model, self.kl_examples)), self.kl_share)
        context.message(f"early time: the search takes {timesteps} of {context.timesteps} time steps")
        return timesteps


def search_steps(timesteps: int, choice: Choice | None) -> dict[str, Any]:
    """Returns the facts of a search's time steps for the record.

    Args:
        timesteps: The time steps at the start of the search.
        choice: The choice that lowered them; None: there was none.
    """
    if choice is None:
        return {"search_timesteps": timesteps}
    return {"search_timesteps": choice.timesteps, "probe_epochs": PROBE_EPOCHS, "early_time_why": choice.why}


def kept_choice(choice: Choice | None) -> dict[str, Any]:
    """Returns the state that keeps a choice for a resume."""
    return {} if choice is None else {"choice": dataclasses.asdict(choice)}


def chosen(kept: Mapping[str, Any]) -> Choice | None:
    """Returns the choice in a state of `kept_choice`."""
    if "choice" not in kept:
        return None
    return Choice(int(kept["choice"]["timesteps"]), str(kept["choice"]["why"]))
