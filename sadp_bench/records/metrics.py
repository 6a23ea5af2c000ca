"""Numbers derived from raw records: budgets, speed-ups, efficiencies, means over seeds.

seconds           = prepare + select + train
speed-up          = seconds(full) / seconds(run)           with the same settings, data and environment
nominal maximum   = 1 / (1 - ratio)                        1 under the protocol `updates`
ceiling           = N * epochs / examples_seen             the speed-up if dropped examples cost nothing
efficiency        = speed-up / ceiling                     1.0 = the theoretical maximum is reached
training speed-up = the same without prepare
time to accuracy  = charged seconds until an evaluation first shows full's final accuracy minus 1 point

For runs on the three axes, each beside the plain run (full data, bptt, dense) of its seed:

theoretical speed-up = ceiling * time factor * weights factor     counted, not measured: saved multiplications alone
time factor          = 3 / (1 + 2 K / T)                          sltt-k: forward costs 1, backward 2; otherwise 1
weights factor       = 1 / density                                dense hardware does not reward it
product              = product of the measured speed-ups of the runs that change a single axis
kept share           = speed-up / product                         1.0 = the axes multiply
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sadp_bench.core.phases import CHARGED_PHASES
from sadp_bench.records.record import Record, is_number
from sadp_bench.records.spec import LATER, Spec

# Fields of the environment that must agree before seconds are compared. Commit and dirty flag only warn.
TIMED_TOGETHER = ("device", "processor", "threads", "jobs", "torch", "spikingjelly", "python", "kernel")
VOID = "its seconds, or its reference's, say nothing"
BUDGET_TOLERANCE = 0.005  # share of all example visits by which a method may miss its ratio
ACCURACY_SLACK = 0.01  # share; the time to accuracy is the time to full's final accuracy minus it
MIN_DENSITY = 1e-12  # share, less than one connection of any network
TIME_AXIS = ("backprop", "k")
WEIGHT_AXIS = ("sparsity", "density", "early_time", "sparsity_options")
PLAIN_AXES = {name: LATER[name] for name in (*TIME_AXIS, *WEIGHT_AXIS)}


def charged_seconds(record: Record) -> float:
    """Returns the seconds of prepare, select and train."""
    return sum(record.seconds[phase] for phase in CHARGED_PHASES)


def training_seconds(record: Record) -> float:
    """Returns the seconds of select and train."""
    return record.seconds["select"] + record.seconds["train"]


def nominal_maximum(spec: Spec) -> float:
    """Returns the speed-up that the ratio alone allows."""
    return 1.0 if spec.protocol == "updates" else 1 / (1 - spec.ratio)


def realised_ratio(record: Record) -> float:
    """Returns the share of example visits saved over the run; under `updates`, of the data set in an epoch."""
    if record.spec.protocol == "updates":
        # The last epoch may stop early, when the updates are spent, so its size is not the subset's.
        whole = record.epochs[:-1] or record.epochs
        return 1 - statistics.fmean(row["kept"] for row in whole) / record.num_examples
    return 1 - record.examples_seen / (record.num_examples * record.spec.epochs)


def ceiling(record: Record) -> float:
    """Returns the speed-up that the run would have if dropped examples cost nothing."""
    return record.num_examples * record.spec.epochs / record.examples_seen


def seconds_to_accuracy(record: Record, accuracy: float) -> float | None:
    """Returns charged seconds until an evaluation first shows the accuracy: prepare, and all epochs up to that one.

    Only evaluated epochs can show it, so this is late by up to `evaluate_every` epochs. None where no evaluation
    shows it.
    """
    spent, last = record.seconds["prepare"], len(record.epochs) - 1
    for number, row in enumerate(record.epochs):
        seconds, shown = row.get("seconds"), row.get("test_accuracy")
        if not is_number(seconds):
            return None
        spent += seconds
        shown = record.test_accuracy if number == last else shown
        # Equal shares of a test set may differ in their last bit.
        if is_number(shown) and shown >= accuracy - 1e-9:
            return spent
    return None


def timing_mismatch(run: Record, reference: Record) -> list[str]:
    """Returns the reasons why two records' seconds can't be compared, a phrase each."""
    other_data = run.data_sha256 != reference.data_sha256
    return [
        *sorted({f"{VOID}: {record.disturbed}" for record in (run, reference) if record.disturbed}),
        *(["other data"] if other_data else []),
        *(
            f"{name} {reference.environment.get(name)} -> {run.environment.get(name)}"
            for name in TIMED_TOGETHER
            if run.environment.get(name) != reference.environment.get(name)
        ),
    ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside its paired reference. Numbers are unrounded, and None where they can't be had.

    Attributes:
        record: The run's record.
        reference: The record of the full-data run.
        seconds: Charged; None where they are disturbed.
        accuracy_difference: In [-1, 1], the run's minus the reference's; None where the two saw different data.
        seconds_to_accuracy: Also None where the accuracy was never reached.
        share_to_accuracy: `seconds_to_accuracy` over the reference's.
        mismatch: Why there is no speed-up and no time to accuracy, a phrase each.
    """

    record: Record
    reference: Record | None
    realised_ratio: float
    nominal_maximum: float
    ceiling: float
    seconds: float | None
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
        """The run's spec."""
        return self.record.spec


def compare(record: Record, reference: Record | None) -> Comparison:
    """Returns a run beside its reference, or alone where there is none."""
    mismatch = tuple(timing_mismatch(record, reference)) if reference else ()
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
        seconds=None if record.disturbed else charged_seconds(record),
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
    """Returns every record beside its reference, where that is among the records."""
    by_key: Mapping[str, Record] = {record.spec.key: record for record in records}
    return [compare(record, by_key.get(record.spec.reference().key)) for record in by_key.values()]


def is_plain(spec: Spec) -> bool:
    """Returns whether time and weights are the defaults, whatever the data."""
    return all(getattr(spec, name) == value for name, value in PLAIN_AXES.items())


def searched(record: Record) -> bool:
    """Returns whether networks were trained to find the run's connections."""
    return ticket_number(record, "search_epochs") is not None


def search_seconds(record: Record) -> float | None:
    """Returns the seconds of the search for connections, part of prepare; None where there was no search."""
    seconds = ticket_number(record, "seconds")
    return seconds if seconds is not None and 0 <= seconds < charged_seconds(record) else None


def ticket_number(record: Record, name: str) -> float | None:
    """Returns a number of the search for connections; None where the record has no such number."""
    value = record.ticket.get(name)
    return float(value) if is_number(value) else None


def time_factor(spec: Spec) -> float:
    """Returns the time axis's factor of the theoretical speed-up; sltt saves memory alone."""
    return 3 / (1 + 2 * spec.k / spec.timesteps) if spec.backprop == "sltt-k" else 1.0


def weights_factor(record: Record) -> float | None:
    """Returns the weight axis's factor of the theoretical speed-up; None without a connection."""
    return 1 / record.density if record.density >= MIN_DENSITY else None


def theoretical_speedup(record: Record) -> float | None:
    """Returns ceiling * time factor * weights factor; None without a connection."""
    weights = weights_factor(record)
    return None if weights is None else ceiling(record) * time_factor(record.spec) * weights


def changed_axes(spec: Spec) -> list[Spec]:
    """Returns the runs that share one axis (data, time or weights) with this run and the others with the plain run."""
    plain = spec.plain()
    singles = [
        dataclasses.replace(spec.reference() if spec.method == "full" else spec, **PLAIN_AXES),
        dataclasses.replace(plain, **{name: getattr(spec, name) for name in TIME_AXIS}),
        dataclasses.replace(plain, **{name: getattr(spec, name) for name in WEIGHT_AXIS}),
    ]
    return [single for single in singles if single.key != plain.key]


@dataclass(frozen=True, slots=True)
class AxesComparison:
    """A run beside its paired plain run. Numbers are unrounded, and None where they can't be had.

    Attributes:
        record: The run's record.
        plain: The record of the plain run.
        speedup: Against the plain run.
        speedup_without_search: The same without the seconds of a search for connections; None where there was none.
        product: Of the speed-ups of the single-axis runs, for combinations of two or more axes.
        missing: Single-axis runs that the product lacks.
        mismatch: Why there is no speed-up, a phrase each.
    """

    record: Record
    plain: Record | None
    speedup: float | None
    speedup_without_search: float | None
    product: float | None
    missing: tuple[Spec, ...]
    mismatch: tuple[str, ...]

    @property
    def spec(self) -> Spec:
        """The run's spec."""
        return self.record.spec

    @property
    def kept_share(self) -> float | None:
        """Returns speedup / product, for combinations of two or more axes."""
        return self.speedup / self.product if self.speedup is not None and self.product is not None else None


def against_plain(records: Iterable[Record]) -> list[AxesComparison]:
    """Returns every record beside its plain run, where that is among the records."""
    by_key = {record.spec.key: record for record in records}
    return [_against_plain(record, by_key) for record in by_key.values()]


def _against_plain(record: Record, by_key: Mapping[str, Record]) -> AxesComparison:
    plain = by_key.get(record.spec.plain().key)
    mismatch = tuple(timing_mismatch(record, plain)) if plain else ()
    speedup = without_search = product = None
    axes = changed_axes(record.spec)
    wanted = axes if len(axes) > 1 else []
    missing = tuple(single for single in wanted if single.key not in by_key)
    if plain and not mismatch:
        spent, searching = charged_seconds(record), search_seconds(record)
        speedup = charged_seconds(plain) / spent
        without_search = None if searching is None else charged_seconds(plain) / (spent - searching)
        if wanted and not missing:
            product = _product([by_key[single.key] for single in wanted], plain)
    return AxesComparison(record, plain, speedup, without_search, product, missing, mismatch)


def _product(singles: Sequence[Record], plain: Record) -> float | None:
    """Returns the product of the speed-ups; None where the seconds of a run can't be compared."""
    if any(timing_mismatch(single, plain) for single in singles):
        return None
    return math.prod(charged_seconds(plain) / charged_seconds(single) for single in singles)


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and sample standard deviation (spread; None where n is 1) of n numbers."""

    mean: float
    spread: float | None
    n: int


def summary(values: Iterable[float | None]) -> Summary | None:
    """Returns the summary of the values that are not None; None where all are."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return Summary(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))
