"""A run beside its full-data reference: differences, speed-ups and efficiencies. `metrics` has the definitions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sadp_bench.core.phases import PHASES
from sadp_bench.records.disturbance import disturbance, ready_threads
from sadp_bench.records.metrics import (
    ceiling,
    charged_cpu_seconds,
    charged_seconds,
    gradient_mass,
    nominal_maximum,
    realised_ratio,
    seconds_to_accuracy,
    training_seconds,
    worst_class_accuracy,
)
from sadp_bench.records.naming import run_name
from sadp_bench.records.record import DISTURBED, Record, is_number
from sadp_bench.records.spec import Spec

# Fields of the environment that must be equal before seconds are compared. Commit and dirty flag only give warnings.
TIMED_TOGETHER = ("device", "processor", "threads", "jobs", "torch", "spikingjelly", "python", "kernel")
VOID = "its seconds, or its reference's, do not count"
ACCURACY_SLACK = 0.01  # share; the time to accuracy is the time to full's final accuracy minus this share


def marked(record: Record, reference: Record | None = None) -> Record:
    """Returns the record, marked as disturbed where the rule finds a disturbance.

    Args:
        record: The run.
        reference: The record of the full-data run. Where that is disturbed, the run has no speed-up.
    """
    return _marked(record, None if reference is None else marked(reference))


def _marked(record: Record, reference: Record | None) -> Record:
    """Returns `marked` of a record beside a reference that is marked already."""
    if record.disturbed:
        return record
    efficiency = None
    if reference is not None and not timing_mismatch(record, reference):
        speedups = (spent(reference) / spent(record) for spent in (charged_seconds, training_seconds))
        efficiency = max(speedups) / ceiling(record)  # the larger one of the run's and its training part's
    why = disturbance(
        seconds=charged_seconds(record),
        cpu_seconds=charged_cpu_seconds(record),
        ready_threads=_ready_threads(record),
        cores=_of_environment(record, "cores"),
        efficiency=efficiency,
    )
    return dataclasses.replace(record, environment=record.environment | {DISTURBED: why}) if why else record


def _ready_threads(record: Record) -> float | None:
    """Returns the machine's ready threads; None on a GPU, and for a run in several parts: its load averages are of one."""
    start, end = _of_environment(record, "load_average_start"), _of_environment(record, "load_average_end")
    if start is None or end is None or record.interruptions or record.environment.get("device") != "cpu":
        return None
    return ready_threads(start, end, sum(record.seconds[phase] for phase in PHASES))


def _of_environment(record: Record, name: str) -> float | None:
    value = record.environment.get(name)
    return float(value) if is_number(value) and value >= 0 else None


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


def is_void(mismatch: str) -> bool:
    """Returns whether a reason for no speed-up is that a run, or its reference, is disturbed."""
    return mismatch.startswith(VOID)


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """A run beside its paired reference. Numbers are unrounded, and None where the records do not give them.

    Attributes:
        record: The run's record, marked where it is disturbed.
        reference: The record of the full-data run, marked likewise.
        seconds: Charged seconds; None where they are disturbed.
        cpu_speedup: Speed-up by CPU seconds. Disturbed runs have one too, unless a note excludes their seconds.
        accuracy_difference: The run's accuracy minus the reference's, in [-1, 1]; None where the two had different data.
        seconds_to_accuracy: Charged seconds to full's final accuracy minus 1 point; None also where no epoch reached it.
        share_to_accuracy: `seconds_to_accuracy` over the reference's.
        mismatch: Reasons why there is no speed-up and no time to accuracy, a phrase each.
    """

    record: Record
    reference: Record | None
    realised_ratio: float
    nominal_maximum: float
    ceiling: float
    seconds: float | None
    accuracy_difference: float | None
    speedup: float | None
    cpu_speedup: float | None
    efficiency: float | None
    training_speedup: float | None
    training_efficiency: float | None
    seconds_to_accuracy: float | None
    share_to_accuracy: float | None
    mismatch: tuple[str, ...]

    def __repr__(self) -> str:
        """Returns one line: 'sadp 0.3: accuracy 0.9139 (full data 0.9167), speed-up 1.38 of at most 1.43'."""
        of_full = "" if self.reference is None else f" (full data {self.reference.test_accuracy:.4f})"
        top = f"of at most {self.ceiling:.2f}"
        gain = f"speed-up {self.speedup:.2f} {top}" if self.speedup is not None else f"no speed-up, {top}"
        why = self.record.disturbed or "; ".join(self.mismatch)
        return f"{run_name(self.spec)}: accuracy {self.record.test_accuracy:.4f}{of_full}, {gain}" + f" ({why})" * bool(
            why
        )

    @property
    def spec(self) -> Spec:
        """The run's spec."""
        return self.record.spec

    @property
    def worst_class_difference(self) -> float | None:
        """The accuracy on the run's worst class minus the accuracy on the reference's worst class, in [-1, 1]."""
        if self.reference is None or self.accuracy_difference is None:
            return None
        of_run, of_reference = worst_class_accuracy(self.record), worst_class_accuracy(self.reference)
        return None if of_run is None or of_reference is None else of_run - of_reference

    @property
    def gradient_mass(self) -> float | None:
        """The run's gradient mass over the reference's."""
        own, whole = (None if record is None else gradient_mass(record) for record in (self.record, self.reference))
        share = own / whole if own and whole else 0.0
        return share if 0 < share < math.inf else None


def compare(record: Record, reference: Record | None) -> Comparison:
    """Returns a run beside its reference; without a reference, alone."""
    return _compare(record, reference, None if reference is None else marked(reference))


def _compare(record: Record, unmarked: Record | None, reference: Record | None) -> Comparison:
    """Returns a run beside its reference. The reference is passed twice: as it was recorded, and as the rule marks it."""
    cpu_speedup = speedup_by_cpu(record, unmarked)
    record = _marked(record, reference)
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
        cpu_speedup=cpu_speedup,
        efficiency=None if speedup is None else speedup / top,
        training_speedup=training_speedup,
        training_efficiency=None if training_speedup is None else training_speedup / top,
        seconds_to_accuracy=to_accuracy,
        share_to_accuracy=share_to_accuracy,
        mismatch=mismatch,
    )


def speedup_by_cpu(record: Record, reference: Record | None) -> float | None:
    """Returns the reference's CPU seconds over the run's; None where they don't count. The rule has marked neither record."""
    if reference is None or timing_mismatch(record, reference):
        return None
    spent, of_reference = charged_cpu_seconds(record), charged_cpu_seconds(reference)
    return None if spent is None or of_reference is None else of_reference / spent


def paired(
    records: Iterable[Record], reference_of: Callable[[Spec], Spec] = lambda spec: spec.reference()
) -> list[Comparison]:
    """Returns every record beside its reference, where the records have one.

    Args:
        records: The runs.
        reference_of: Returns a run's reference, which may have another learning rate (`trials.Searches`).
    """
    by_key: Mapping[str, Record] = {record.spec.key: record for record in records}
    keys = [(record, reference_of(record.spec).key) for record in by_key.values()]
    references = {key for _, key in keys}
    marks = {key: marked(by_key[key]) for key in references if key in by_key}  # once, as many runs share a reference
    return [_compare(record, by_key.get(key), marks.get(key)) for record, key in keys]
