"""The contract of a pruner: the data that a data-pruning method receives, and the selection that it returns.

Shape letters: N training examples, K kept this epoch, B batch, T time steps, C classes.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sadp_bench.capture.signals import Signal
from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.pruners.exchange import Candidates, Observation, ScoringContext, Selection, Survey, unweighted
from sadp_bench.pruners.sampling import BUDGETS, kept_in_epoch, kept_share, scheduled


class Pruner(ABC):
    """A data-pruning method. Only `select` is required.

    Settings are keyword arguments of `__init__`; `prepare` receives the data. The ratio is a budget: the share of example
    visits saved over the whole run. A run realises it to within 0.5 points, or `check` raises BadInput.

    Attributes:
        display_name: The method's name in figures and in tables for papers; "" for its registered name. It is a plain text in
            the body of the class, because reports read it without an import.
        bibtex: The BibTeX entry of the method's paper, likewise a plain text, or the name of such a text; "" for none.
        fixed_size: Whether every epoch of an unshortened run keeps the same share; the protocol `updates` requires it.
        exempt: Whether the method may realise another ratio than the given one. Its documentation then states this.
        takes_budget: Whether the method keeps exactly `num_kept(epoch)` examples in every epoch. It can then follow any
            budget.
        budget: "constant"; "falling" keeps more at the start and less at the end, "rising" the reverse; the total is equal.
        score_columns: How many numbers of each example `context.scores` keeps, [N, columns]; 0: one, as [N].

    Args:
        prune_ratio: The share of visits to save, at least 0 and below 1.
    """

    display_name: str = ""
    bibtex: str = ""
    fixed_size: bool = True
    exempt: bool = False
    takes_budget: bool = False
    budget: str = "constant"
    score_columns: int = 0

    def __init__(self, prune_ratio: float) -> None:
        if not 0 <= prune_ratio < 1:
            raise BadInput(f"prune_ratio is at least 0 and below 1 (the share of visits to save), not {prune_ratio}")
        self.prune_ratio = prune_ratio
        self.num_examples = 0
        self.num_epochs = 0
        self.seed = 0

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute. A scalar of NumPy becomes a plain number, because checkpoints hold no NumPy scalars."""
        super().__setattr__(name, plain(value))

    def with_budget(self, budget: str) -> Self:
        """Returns this pruner, which follows the budget from now on. Called before `check` and `prepare`.

        Raises:
            BadInput: There is no such budget, or the method has one of its own.
        """
        if budget not in BUDGETS:
            raise BadInput(f"--budget is one of {', '.join(BUDGETS)}, not '{budget}'")
        if budget != "constant":
            if not self.takes_budget:
                raise BadInput(
                    f"{type(self).__name__} with these settings has its own share of every epoch, and takes no budget "
                    f"'{budget}': leave out --budget, or take a method that draws anew in every epoch"
                )
            self.budget, self.fixed_size = budget, False
        return self

    def check(self, num_epochs: int) -> None:  # noqa: B027 (optional)
        """Raises BadInput where the run can't realise the ratio. Called before any training, including the reference's."""

    def check_updates(self, num_epochs: int, updates_per_epoch: int) -> None:  # noqa: B027 (optional)
        """Raises BadInput where the run has too few updates. Called once the data are read, before any training."""

    def prepare(self, context: ScoringContext) -> None:
        """Receives the data once, before training. An override must call this method too.

        Raises:
            BadInput: The budget leaves an epoch too few examples.
        """
        self.num_examples, self.num_epochs, self.seed = context.num_examples, context.num_epochs, context.seed
        if self.budget != "constant" and (fewest := self.fewest_kept()) < 2 * distributed.size():
            raise BadInput(
                f"--budget {self.budget} leaves an epoch {fewest:.1f} examples: lower --ratio, or take more examples"
            )

    def rescore(self, epoch: int, survey: Callable[[frozenset[str]], Survey]) -> None:  # noqa: B027 (optional)
        """Called before each `select`, with a function that surveys all training examples with the present network.

        Args:
            epoch: The epoch, from 0.
            survey: Returns a survey with the given optional fields; see `ScoringContext.survey`. Each call passes over the
                training set and is charged to the phase select. Its seconds are also recorded on their own.
        """

    @abstractmethod
    def select(self, epoch: int) -> Selection:
        """Returns the examples of an epoch; epochs count from 0."""

    def watch(self, epoch: int) -> frozenset[Signal]:
        """Returns the signals that `observe` needs in an epoch. Called after `select`; an empty set costs no time."""
        return frozenset()

    def observe(self, seen: Observation) -> None:  # noqa: B027 (optional)
        """Receives each batch once, after its backward pass. Must not wait for the device (`.item()`, `.cpu()`).

        In a run on several processes, each process receives its part of the batch. Before the next `select`, processes
        exchange the tensors of length N named `*_N`, and no other state.
        """

    def num_trained(self, epoch: int, num_selected: int) -> int:
        """Returns how many of an epoch's selected examples train. If not all do, `choose_in_batch` returns which.

        Args:
            epoch: The epoch, from 0.
            num_selected: The number of examples that `select` returned.
        """
        return num_selected

    def num_updates(self, epoch: int, num_trained: int, batch_size: int) -> int:
        """Returns the number of updates of an epoch. Its examples are divided evenly among them.

        Args:
            epoch: The epoch, from 0.
            num_trained: The number of examples that train in it; lower in a partial epoch.
            batch_size: The run's batch size.
        """
        return -(-num_trained // batch_size)

    def choose_in_batch(self, candidates: Candidates) -> Selection:
        """Returns the candidates that train as a batch: places in [0, C), int64, with weights; a place may come twice.

        Called before each batch if `num_trained` leaves examples out. It may wait for the device. The weights multiply
        those of the selection. Several processes could not choose independently, so such a method runs on one process.
        """
        raise BadInput(
            f"{type(self).__name__} trains a part of its selection: override choose_in_batch, which names that part"
        )

    def revisit(self, epoch: int) -> Tensor:
        """Returns the examples to pass forward once more after an epoch's training, int64; none by default.

        `observe_forward` receives them, in evaluation mode. Each is charged.
        """
        return torch.empty(0, dtype=torch.int64)

    def observe_forward(self, seen: Observation) -> None:  # noqa: B027 (optional)
        """Receives a part of the examples that `revisit` returned, after their forward pass."""

    def final_scores(self) -> Tensor | None:
        """Returns the present score of each example, [N], without NaN, high for important examples; None by default.

        `--save-scores` keeps them at the end of a run, for `export` and for the method `subset`. A method without an
        override is refused with that option.
        """
        return None

    def run_epochs(self, epochs: int) -> float:
        """Returns the number of epochs of the run when full data trains for `epochs`; a pruner may shorten the run."""
        return epochs

    def planned_visits(self, num_examples: int, num_epochs: float) -> float:
        """Returns the training visits planned for a run of so many epochs; NaN if they are unknown before training.

        `--lr-clock visits` needs the number.
        """
        return (1 - self.prune_ratio) * num_examples * num_epochs

    def scoring_epochs(self, num_epochs: int) -> float:
        """Returns the visits that `prepare` will make, in epochs, for the estimate before training."""
        return 0

    def scoring_updates(self) -> int:
        """Returns the updates that `prepare` will make besides `scoring_epochs`, on all data, for the same estimate."""
        return 0

    def num_kept(self, epoch: int) -> int:
        """Returns K of an epoch by the budget. Raises BadInput where K is 0."""
        if self.budget == "constant":
            num_kept = kept_in_epoch(self.num_examples, self.prune_ratio, epoch)
        else:
            num_kept = scheduled(self.num_examples, [self.share_kept(e) for e in range(epoch + 1)])
        if num_kept == 0 and self.num_examples:
            raise BadInput(
                f"ratio {self.prune_ratio:g} of {self.num_examples} examples keeps none in epoch {epoch + 1}: lower --ratio, "
                "or take more examples"
            )
        return num_kept

    def share_kept(self, epoch: int) -> float:
        """Returns the share of the examples that an epoch keeps by the budget."""
        # Product and quotient round as in all earlier versions. The rounding decides K where it lies halfway.
        ratio = self.prune_ratio * self.num_epochs / self.num_epochs
        return kept_share(self.budget, ratio, (epoch + 0.5) / self.num_epochs)

    def fewest_kept(self) -> float:
        """Returns the smallest number of examples of an epoch by the budget, before rounding."""
        return min(map(self.share_kept, range(self.num_epochs))) * self.num_examples

    def generator(self, epoch: int = 0) -> torch.Generator:
        """Returns the pruner's stream of random numbers for an epoch."""
        return stream(self.seed, "pruner", epoch)

    def per_example(self) -> dict[str, Tensor]:
        """Returns the per-example state: the tensors of length N named `*_N`."""
        return {
            name: value
            for name, value in vars(self).items()
            if name.endswith("_N") and isinstance(value, Tensor) and value.shape[:1] == (self.num_examples,)
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns every attribute, so that a simple pruner resumes exactly without an override.

        Raises:
            BadInput: An attribute is not made of tensors and plain values alone, which is all that a checkpoint holds.
                The pruner must override this method and `load_state_dict`.
        """
        for name, value in vars(self).items():
            if not _is_plain(value):
                raise BadInput(
                    f"the pruner's attribute {name} is a {type(value).__name__}, which no checkpoint holds: make it a tensor "
                    "or a plain value, or override state_dict and load_state_dict"
                )
        return copy.deepcopy(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        vars(self).update(copy.deepcopy(dict(state)))


def plain(value: Any) -> Any:
    """Returns a scalar of NumPy as a plain number; any other value unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def _is_plain(value: Any) -> bool:
    """Returns whether a checkpoint can hold a value."""
    kind = type(value)
    if kind in (list, tuple):
        return all(map(_is_plain, value))
    if kind is dict:
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return kind in (type(None), bool, int, float, str, Tensor)  # Derived types are refused.


class WithinBatch(Pruner):
    """The base class of methods that choose within the batch. All examples are candidates; each batch trains its share."""

    def select(self, epoch: int) -> Selection:
        """Returns all examples: the candidates."""
        return unweighted(torch.arange(self.num_examples))

    def num_trained(self, epoch: int, num_selected: int) -> int:
        """Returns the epoch's share of the budget."""
        return self.num_kept(epoch)


class FreshSubset(Pruner):
    """Keeps a new random subset in each epoch, weight 1, for searches for connections on a part of the data."""

    def select(self, epoch: int) -> Selection:
        """Returns the subset of an epoch."""
        drawn_N = torch.randperm(self.num_examples, generator=self.generator(epoch))
        return unweighted(drawn_N[: self.num_kept(epoch)])


class KeepAll(Pruner):
    """Keeps every example at weight 1. Scoring runs use it: they train on all data and observe."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def select(self, epoch: int) -> Selection:
        """Returns all examples."""
        return unweighted(torch.arange(self.num_examples))
