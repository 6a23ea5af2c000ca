"""Numbers derived from raw records: budgets, speed-ups, efficiencies, means over seeds.

seconds           = prepare + select + train
speed-up          = seconds(full) / seconds(run)           with the same settings, data and environment
nominal maximum   = 1 / (1 - ratio)                        1 under the protocol `updates`
ceiling           = N * epochs / examples_seen             the speed-up if dropped examples cost nothing; with visits
                                                           of a forward pass alone, N * epochs / `whole_visits`
efficiency        = speed-up / ceiling                     1.0 = the theoretical maximum is reached
training speed-up = the same without prepare
speed-up by CPU   = CPU seconds(full) / CPU seconds(run)   other processes change it little
gradient mass     = sum over epochs of kept * mean weight * mean learning rate
time to accuracy  = charged seconds until an evaluation first shows full's final accuracy minus 1 point

No number uses the seconds of a disturbed run (`records.disturbance`). Its CPU seconds count, unless a note excludes them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sadp_bench.core.phases import CHARGED_PHASES
from sadp_bench.records.record import Record, is_number
from sadp_bench.records.spec import Spec

BUDGET_TOLERANCE = 0.005  # share of all example visits by which a method may miss its ratio
MAX_FITTED = 10_000  # most training images on which a trained network's loss is measured
UNPRUNED = frozenset({"full", "ceiling"})  # methods that show all examples in all epochs, at any ratio


def charged_seconds(record: Record) -> float:
    """Returns the seconds of prepare, select and train."""
    return sum(record.seconds[phase] for phase in CHARGED_PHASES)


def charged_cpu_seconds(record: Record) -> float | None:
    """Returns the CPU seconds of prepare, select and train.

    None where one of them is unknown; on a GPU, where the process only waits; and for several processes, because the
    clock counts only the first.
    """
    cpu_seconds = [record.cpu_seconds.get(phase) for phase in CHARGED_PHASES]
    known = [seconds for seconds in cpu_seconds if seconds is not None]
    if len(known) < len(cpu_seconds) or record.environment.get("device") != "cpu" or record.spec.processes > 1:
        return None
    return sum(known) or None


def training_seconds(record: Record) -> float:
    """Returns the seconds of select and train."""
    return record.seconds["select"] + record.seconds["train"]


def nominal_maximum(spec: Spec) -> float:
    """Returns the speed-up that the ratio alone allows."""
    return 1.0 if spec.protocol == "updates" or spec.method in UNPRUNED else 1 / (1 - spec.ratio)


def realised_ratio(record: Record) -> float:
    """Returns the share of example visits saved over the run; under `updates`, the share that an epoch leaves out."""
    if record.spec.protocol == "updates":
        # The last epoch may stop early, when the updates are spent, so its size is not the subset's.
        whole = record.epochs[:-1] or record.epochs
        return 1 - statistics.fmean(row["kept"] for row in whole) / record.num_examples
    return 1 - record.examples_seen / (record.num_examples * record.spec.epochs)


def ceiling(record: Record) -> float:
    """Returns the speed-up that the run would have if dropped examples cost nothing except their forward passes.

    Where each of N candidates passes forward, and a share k of them trains, it is 1 / (f + (1 - f) k) with the forward
    share f. The ceiling does not include a forward pass that the training step repeats, so it counts against the method.
    """
    visits = whole_visits(record.epochs, record.seconds["train"]) if forward_only(record) else record.examples_seen
    return record.num_examples * record.spec.epochs / visits


def forward_only(record: Record) -> float:
    """Returns the visits that were only a forward pass, without training; 0 in older records."""
    return _sum(record.epochs, "forward_only")


def score_visits(record: Record) -> float:
    """Returns the visits of the surveys for scores between the epochs; 0 without surveys."""
    return _sum(record.epochs, "score_visits")


def score_seconds(record: Record) -> float:
    """Returns the seconds of the surveys for scores between the epochs, a part of the phase select."""
    return _sum(record.epochs, "score_seconds")


def data_share(record: Record) -> float | None:
    """Returns the share of the training seconds in which steps waited for stored inputs; None: not known."""
    if not any(is_number(row.get("data_seconds")) for row in record.epochs):
        return None
    return min(1.0, _sum(record.epochs, "data_seconds") / record.seconds["train"])


def forward_share(rows: Sequence[Mapping[str, Any]], train_seconds: float) -> float | None:
    """Returns f, the seconds of a forward pass in training over those of a whole visit, measured in the same epochs.

    Args:
        rows: Rows of the epochs.
        train_seconds: Their training seconds, with those of the forward passes and of the choices.

    Returns:
        A share in (0, 1]; None without forward passes.
    """
    passed, seconds = _sum(rows, "forward_visits"), _sum(rows, "forward_seconds")
    rest = train_seconds - seconds - _sum(rows, "choice_seconds")
    if not passed or seconds <= 0 or rest <= 0:
        return None
    return min(1.0, (seconds / passed) / (rest / _sum(rows, "kept")))


def whole_visits(rows: Sequence[Mapping[str, Any]], train_seconds: float) -> float:
    """Returns the visits of some epochs. A forward pass alone counts as the share f of a visit (see `forward_share`)."""
    share = forward_share(rows, train_seconds)
    return _sum(rows, "kept") + (1.0 if share is None else share) * _sum(rows, "forward_only")


def _sum(rows: Iterable[Mapping[str, Any]], name: str) -> float:
    return sum(value for row in rows if is_number(value := row.get(name, 0)))


def seconds_to_accuracy(record: Record, accuracy: float) -> float | None:
    """Returns charged seconds until an evaluation first reaches the accuracy: prepare, and all epochs up to that one.

    Only some epochs are evaluated, so the result is late by up to `evaluate_every` epochs. None where no evaluation
    reaches the accuracy.
    """
    spent, last = record.seconds["prepare"], len(record.epochs) - 1
    for number, row in enumerate(record.epochs):
        seconds, shown = row.get("seconds"), row.get("test_accuracy")
        if not is_number(seconds):
            return None
        spent += seconds
        shown = record.test_accuracy if number == last else shown
        # Two equal shares of a test set may differ in their last bit.
        if is_number(shown) and shown >= accuracy - 1e-9:
            return spent
    return None


def worst_class_accuracy(record: Record) -> float | None:
    """Returns the least of the accuracies on the classes; None where the record has none."""
    return min(record.class_accuracy.values(), default=None)


def gradient_mass(record: Record) -> float | None:
    """Returns the sum over the epochs of visits x mean weight x mean learning rate; None where a row lacks a number."""
    names = ("kept", "mean_weight", "mean_learning_rate")
    factors = [[row.get(name) for name in names] for row in record.epochs]
    known = [[value for value in row if is_number(value)] for row in factors]
    return sum(map(math.prod, known)) if all(len(row) == len(names) for row in known) else None


def searched(record: Record) -> bool:
    """Returns whether networks were trained to find the run's connections."""
    return ticket_number(record, "search_epochs") is not None


def search_seconds(record: Record) -> float | None:
    """Returns the seconds of the search for connections, a part of prepare; None without a search, or if disturbed."""
    seconds = ticket_number(record, "seconds")
    if seconds is None or record.disturbed:
        return None
    return seconds if 0 <= seconds < charged_seconds(record) else None


def ticket_number(record: Record, name: str) -> float | None:
    """Returns a number of the search for connections; None where the record has no such number."""
    value = record.ticket.get(name)
    return float(value) if is_number(value) else None


@dataclass(frozen=True, slots=True)
class Summary:
    """The mean and the spread (sample standard deviation; None where n is 1) of n numbers."""

    mean: float
    spread: float | None
    n: int


def summary(values: Iterable[float | None]) -> Summary | None:
    """Returns the summary of the values that are not None; None where all are."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return Summary(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))
