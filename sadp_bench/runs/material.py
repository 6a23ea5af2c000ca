"""The data of a run: the examples to train on, and those to evaluate on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.datasets.base import Dataset, data_root
from sadp_bench.datasets.examples import Examples, stratified_order
from sadp_bench.datasets.loading import load

VALIDATION_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Material:
    """The data of a run.

    Args:
        dataset: The data set of the examples.
        train: The examples to train on.
        held: The examples to evaluate on.
    """

    dataset: Dataset
    train: Examples
    held: Examples

    @cached_property
    def sha256(self) -> str:
        """The hash of all inputs and labels."""
        return hashlib.sha256(self.train.digest().digest() + self.held.digest().digest()).hexdigest()


def load_material(dataset: Dataset, name: str, evaluate_on: str, train_examples: int | None) -> Material:
    """Returns the training examples and those to evaluate on.

    The training examples are the first of a fixed, class-balanced order that no seed changes. The others are the test
    set or, for "validation", a fixed tenth of the training set.

    Args:
        dataset: The data set of the examples.
        name: The data set's name, for messages.
        evaluate_on: "test" or "validation".
        train_examples: Number of training examples; None: all.
    """
    train, held = dataset.train, dataset.test
    order = stratified_order(train.label_N, stream(0, "subset"))
    if evaluate_on == "validation":
        num_held = max(1, round(VALIDATION_SHARE * len(train)))
        held, order = train.take(order[:num_held].sort().values), order[num_held:]
    if train_examples is not None and train_examples > len(order):
        raise BadInput(f"--train-examples {train_examples}: {name} has {len(order)} to train on here")
    chosen = order[:train_examples]
    return Material(dataset, train if len(chosen) == len(train) else train.take(chosen.sort().values), held)


def opened_material(
    kind: type[Dataset],
    fields: Mapping[str, Any],
    train_examples: int | None,
    data: Path | None,
    opened: dict[Any, Any],
) -> Material:
    """Returns the data of a run. Data that an earlier call opened are not read again.

    Args:
        kind: The class of the data set.
        fields: Fields of `Spec`.
        train_examples: Number of training examples; None: all.
        data: The folder of the data sets; None: the usual one.
        opened: Data sets and materials that earlier calls opened, by the arguments that chose them. New ones are added.
    """
    root, timesteps, settings = data_root(data), fields["timesteps"], fields["dataset_options"]
    whole = (kind, root, timesteps, tuple(settings.items()))
    if whole not in opened:
        opened[whole] = load(kind, fields["dataset"], root, timesteps, settings)
    part = (*whole, fields["evaluate_on"], train_examples)
    if part not in opened:
        opened[part] = load_material(opened[whole], fields["dataset"], fields["evaluate_on"], train_examples)
    found: Material = opened[part]
    return found
