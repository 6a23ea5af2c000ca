"""Everything that follows from raw records: budgets, speed-ups, efficiencies, means over seeds.

seconds           = prepare + select + train
speed-up          = seconds(full) / seconds(run)           all but the method alike: settings, data, environment
nominal maximum   = 1 / (1 - ratio)                        1 under the protocol `updates`
ceiling           = N * epochs / examples_seen             what it would be if dropped examples cost nothing
efficiency        = speed-up / ceiling                     1.0 = the theoretical maximum is reached
training speed-up = the same without prepare
time to accuracy  = charged seconds until an evaluation first shows full's final accuracy minus 1 point
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sadp_bench.record import CHARGED_PHASES, Record, is_number
from sadp_bench.spec import Spec

# What must agree before seconds may be compared; commit and dirty flag only warn.
TIMED_TOGETHER = ("device", "processor", "threads", "jobs", "torch", "spikingjelly", "python", "kernel")
BUDGET_TOLERANCE = 0.005  # of all example visits: how far a method may miss its ratio
ACCURACY_SLACK = 0.01  # below full's final accuracy: what the time to accuracy is the time to


def charged_seconds(record: Record) -> float:
    return sum(record.seconds[phase] for phase in CHARGED_PHASES)


def training_seconds(record: Record) -> float:
    return charged_seconds(record) - record.seconds["prepare"]


def nominal_maximum(spec: Spec) -> float:
    return 1.0 if spec.protocol == "updates" else 1 / (1 - spec.ratio)


def realised_ratio(record: Record) -> float:
    """The share of example visits saved over the run; under `updates`, of the data set in an epoch."""
    if record.spec.protocol == "updates":
        # The last epoch may stop early, when the updates are spent, so its size says nothing about the subset.
        whole = record.epochs[:-1] or record.epochs
        return 1 - statistics.fmean(row["kept"] for row in whole) / record.num_examples
    return 1 - record.examples_seen / (record.num_examples * record.spec.epochs)


def ceiling(record: Record) -> float:
    return record.num_examples * record.spec.epochs / record.examples_seen


def seconds_to_accuracy(record: Record, accuracy: float) -> float | None:
    """Charged seconds until an evaluation first shows so much: prepare, and all epochs up to that. None where none does.

    Only evaluated epochs can show it, so this is late by up to `evaluate_every` epochs.
    """
    spent, last = record.seconds["prepare"], len(record.epochs) - 1
    for number, row in enumerate(record.epochs):
        seconds, shown = row.get("seconds"), row.get("test_accuracy")
        if not is_number(seconds):
            return None
        spent += seconds
        shown = record.test_accuracy if number == last else shown
        # Shares of a test set that are equal may differ in their last bit.
        if is_number(shown) and shown >= accuracy - 1e-9:
            return spent
    return None


def differing(run: Record, reference: Record) -> list[str]:
    """What keeps two records' seconds from being compared, a phrase each."""
    other_data = run.data_sha256 != reference.data_sha256
    return (["other data"] if other_data else []) + [
        f"{name} {reference.environment.get(name)} -> {run.environment.get(name)}"
        for name in TIMED_TOGETHER
        if run.environment.get(name) != reference.environment.get(name)
    ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside its paired reference. Unrounded; None where it can't be had.

    accuracy_difference: in [-1, 1], the run's minus the reference's; None where the two saw other data.
    seconds_to_accuracy: None where it was never reached, too; share_to_accuracy: of what the reference took for it.
    mismatch: why there is no speed-up, nor a time to accuracy.
    """

    record: Record
    reference: Record | None
    realised_ratio: float
    nominal_maximum: float
    ceiling: float
    seconds: float
    accuracy_difference: float | None
    speedup: float | None
    efficiency: float | None
    training_speedup: float | None
    training_efficiency: float | None
    seconds_to_accuracy: float | None
    share_to_accuracy: float | None
    mismatch: tuple[str, ...]

    @property
    def spec(self) -> Spec:
        return self.record.spec


def compare(record: Record, reference: Record | None) -> Comparison:
    mismatch = tuple(differing(record, reference)) if reference else ()
    same_data = reference is not None and reference.data_sha256 == record.data_sha256
    speedup = training_speedup = to_accuracy = share_to_accuracy = None
    if reference and not mismatch:
        speedup = charged_seconds(reference) / charged_seconds(record)
        training_speedup = training_seconds(reference) / training_seconds(record)
        goal = reference.test_accuracy - ACCURACY_SLACK
        to_accuracy, of_full = seconds_to_accuracy(record, goal), seconds_to_accuracy(reference, goal)
        share_to_accuracy = to_accuracy / of_full if to_accuracy is not None and of_full else None
    top = ceiling(record)
    return Comparison(
        record=record,
        reference=reference,
        realised_ratio=realised_ratio(record),
        nominal_maximum=nominal_maximum(record.spec),
        ceiling=top,
        seconds=charged_seconds(record),
        accuracy_difference=record.test_accuracy - reference.test_accuracy if reference and same_data else None,
        speedup=speedup,
        efficiency=None if speedup is None else speedup / top,
        training_speedup=training_speedup,
        training_efficiency=None if training_speedup is None else training_speedup / top,
        seconds_to_accuracy=to_accuracy,
        share_to_accuracy=share_to_accuracy,
        mismatch=mismatch,
    )


def paired(records: Iterable[Record]) -> list[Comparison]:
    """Every record beside its reference, where that is among the records."""
    by_key: Mapping[str, Record] = {record.spec.key: record for record in records}
    return [compare(record, by_key.get(record.spec.reference().key)) for record in by_key.values()]


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and spread (sample standard deviation; None where n is 1) of n numbers."""

    mean: float
    spread: float | None
    n: int


def summary(values: Iterable[float | None]) -> Summary | None:
    """Of the values that are there; None where there is none."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return Summary(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))
