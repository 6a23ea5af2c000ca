"""The expected cost of a run: its example visits, and the seconds per visit of finished runs. It imports no torch."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable

from sadp_bench.records.metrics import MAX_FITTED, UNPRUNED, score_visits
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec

EVALUATION_COST = 0.35  # share of a training step's time per example: a guess, for estimates only
# A step's time depends little or not at all on these settings. Runs that differ in them alone have the same shape.
NO_PART_OF_SHAPE = frozenset(
    "method ratio seed protocol epochs train_examples learning_rate schedule lr_clock warmup_epochs momentum weight_decay "
    "evaluate_on evaluate_every".split()
)


def training_visits(spec: Spec) -> float:
    """Returns the example visits that the run's epochs make under its budget."""
    share = 1.0 if spec.protocol == "updates" else 1 - spec.ratio
    if spec.method in UNPRUNED:
        share /= 1 - spec.ratio
    return spec.train_examples * spec.epochs * share


def expected_visits(spec: Spec, num_held: int, preparation_epochs: float = 0.0) -> float:
    """Returns the example visits of a whole run; those of evaluations count `EVALUATION_COST` each.

    Args:
        spec: The run.
        num_held: Examples on which it is evaluated.
        preparation_epochs: Visits before training, for scores and a search of connections, as a number of epochs.
    """
    evaluations = math.ceil(spec.epochs / spec.evaluate_every) + 1  # the last pass records the firing rates
    evaluated = num_held * evaluations + min(spec.train_examples, MAX_FITTED)
    preparation = spec.train_examples * preparation_epochs
    return training_visits(spec) + preparation + EVALUATION_COST * evaluated


def recorded_visits(record: Record) -> float:
    """Returns the example visits that a finished run made, counted as `expected_visits` counts them."""
    evaluations = sum("test_accuracy" in row for row in record.epochs) + 1
    evaluated = record.test_examples * evaluations + record.fitted_examples
    return record.examples_seen + record.prepare_examples + score_visits(record) + EVALUATION_COST * evaluated


def shape(spec: Spec) -> str:
    """Returns all settings on which a step's time depends, as text."""
    settings = {name: value for name, value in spec.any_method().flat().items() if name not in NO_PART_OF_SHAPE}
    return json.dumps(settings, sort_keys=True)


def seconds_per_visit(records: Iterable[Record]) -> dict[str, float]:
    """Returns the median seconds per visit over the records of each shape.

    The seconds and visits of a run that used another run's scores include those of the scoring.
    """
    found: dict[str, list[float]] = {}
    for record in records:
        found.setdefault(shape(record.spec), []).append(sum(record.seconds.values()) / recorded_visits(record))
    return {of: statistics.median(values) for of, values in found.items()}
