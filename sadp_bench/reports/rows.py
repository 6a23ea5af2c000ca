"""Rows of the tables: the runs of one choice over seeds, and their estimates, not rounded."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sadp_bench.records.comparison import is_void
from sadp_bench.records.fields import shown
from sadp_bench.records.metrics import UNPRUNED, search_seconds
from sadp_bench.records.naming import Settings
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.statistics import Estimate, Quantity, estimate
from sadp_bench.records.trials import Choice
from sadp_bench.reports.naming import (
    display_label,
)

ENVIRONMENT = (
    "device processor threads jobs kernel python torch torchvision spikingjelly numpy sadp_bench commit dirty".split()
)
MARGIN = 0.005  # share of accuracy that a lossless method may lose
MARK = "†"  # of numbers that lack a disturbed run
NOT_MEASURED = Estimate(math.nan, None, None, None, 0)


def over_seeds(values: Iterable[float | None], quantity: Quantity) -> Estimate:
    """Returns mean, sample standard deviation and 95 % interval of the values that are not None.

    Without a value the estimate has n = 0 and the mean NaN.
    """
    return estimate(values, quantity) or NOT_MEASURED


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """The finished runs of one choice within a group of comparable runs.

    Attributes:
        group: The group's title.
        settings: The settings that these runs share, as `Spec.flat` returns them.
        name: The choice within its group, such as "sadp 30 %".
        runs: The records, in the order of their seeds.
        missing_references: The commands that make the runs which a comparison lacks.
        mismatches: Why runs have no speed-up, a phrase each.
    """

    group: str
    settings: Settings
    name: str
    runs: tuple[Record, ...]
    COUNTED: ClassVar[dict[str, str]] = {}  # columns that count the runs of an estimate, or the entries of a list
    DERIVED: ClassVar[tuple[str, ...]] = ("disturbed_seeds", "data_sha256")  # properties that are columns
    missing_references: tuple[str, ...] = ()
    mismatches: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs."""
        return [run.spec.seed for run in self.runs]

    @property
    def disturbed_seeds(self) -> list[int]:
        """Seeds of the runs whose seconds are in no number."""
        return [run.spec.seed for run in self.runs if run.disturbed]

    @property
    def mark(self) -> str:
        """The mark of numbers that lack a run, as its seconds or those of its reference were disturbed; or ""."""
        return MARK if self.disturbed_seeds or any(map(is_void, self.mismatches)) else ""

    @property
    def data_sha256(self) -> list[str]:
        """Digests of the data that the runs saw."""
        return sorted({run.data_sha256 for run in self.runs})

    def environment(self, name: str) -> list[str]:
        """Returns the values of an entry of the runs' environments."""
        values = [run.environment.get(name) for run in self.runs]
        return sorted({"unknown" if value is None else shown(value) for value in values})

    def columns(self) -> dict[str, Any]:
        """Returns the row as one flat table: the columns of CSV and JSON. A number that was not measured is None.

        An estimate `x` becomes the columns `x_mean`, `x_sd`, `x_low` and `x_high`.
        """
        found: dict[str, Any] = {"group": self.group, **self.settings, "n": self.n, "seeds": self.seeds}
        for name, counted in self.COUNTED.items():
            value = getattr(self, counted)
            found[name] = value.n if isinstance(value, Estimate) else len(value)
        for name in (*(field.name for field in dataclasses.fields(self)), *self.DERIVED):
            value = getattr(self, name)
            if isinstance(value, Estimate):
                numbers = (value.mean if value.n else None, value.spread, value.low, value.high)
                found |= {f"{name}_{part}": x for part, x in zip(("mean", "sd", "low", "high"), numbers, strict=True)}
            elif name not in ("group", "settings", "runs", "failed", "choice", "print_label"):
                found[name] = list(value) if isinstance(value, tuple) else value
        return found | {f"environment.{name}": self.environment(name) for name in ENVIRONMENT}


# Of a record. Operations and joules are of one inference; density is the share of connections in the end.
COSTS: dict[str, Callable[[Record], float | None]] = {
    "train_memory_bytes": lambda run: run.train_memory_bytes,
    "search_seconds": search_seconds,
    "accumulates": lambda run: run.operations.get("accumulates"),
    "multiply_accumulates": lambda run: run.operations.get("multiply_accumulates"),
    "energy_joules": lambda run: run.operations.get("energy_joules"),
    "rate_energy_joules": lambda run: run.operations.get("rate_energy_joules"),
    "effective_energy_joules": lambda run: run.operations.get("effective_energy_joules"),
    "other_energy_joules": lambda run: run.operations.get("other_energy_joules"),
    "density": lambda run: run.density,
}


def costs(runs: Sequence[Record]) -> dict[str, Any]:
    """Returns an estimate of each of COSTS, by name."""
    return {name: over_seeds(map(cost, runs), Quantity.AMOUNT) for name, cost in COSTS.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class RatioRow(Row):
    """The runs of one method and ratio. Ratios and accuracies are shares.

    Attributes:
        label: The method, with those of its options that differ within the group.
        failed: The runs that ended without a record. They are in no number.
        margin: The share of accuracy that a lossless method may lose.
        verdict: That of `accuracy_difference`; None for methods that prune nothing, and without an interval.
        random_verdict: That of `random_difference`: better, worse, level or undecided; None likewise.
        cpu_speedup: Speed-up by CPU seconds, of runs on a CPU.
        accuracy_difference: Paired difference to `full`, and the differences, factors and shares below it too.
        worst_class_accuracy: Accuracy on the class where it is least, in each run. Older records have none.
        random_difference: Paired difference to the method `random` of the same group and ratio.
        n_random_settings: Number of settings of `random` there that the difference may be to. There is none to several.
        nominal_maximum: The speed-up if the budget of visits were all that costs.
        fitted_loss: Loss of the trained network on training images, in evaluation mode. Older records have none.
        loss_factor: Fitted loss over random's, paired and at the same ratio: a geometric mean.
        loss_share: The share of the possible in fitted loss, (random - method) / (random - ceiling).
        accuracy_share: The share of the possible in accuracy.
        gradient_mass: Over full's.
        verdict_p: Adjusted p-value behind the verdict; None without a correction (`report.corrections`).
        random_p: Adjusted p-value of the difference to random; None likewise.
        choice: The search that the runs' settings come from; None without one.
        print_label: The name in print that an author chose; "" without one.
    """

    COUNTED: ClassVar[dict[str, str]] = {
        "n_paired": "accuracy_difference", "n_timed": "speedup", "n_seconds": "seconds", "n_cpu": "cpu_speedup",
        "n_reached": "seconds_to_accuracy", "n_random": "random_difference", "n_failed": "failures",
        "n_worst_class": "worst_class_accuracy", "n_fitted": "fitted_loss", "n_loss_factor": "loss_factor",
        "n_loss_share": "loss_share", "n_accuracy_share": "accuracy_share", "n_mass": "gradient_mass",
    }  # fmt: skip
    DERIVED: ClassVar[tuple[str, ...]] = (
        "interruptions", "accuracies", "failures", "disturbed", "disturbed_seeds", "data_sha256", "decidable_difference",
    )  # fmt: skip

    label: str
    failed: tuple[Failure, ...]
    nominal_maximum: float
    accuracy: Estimate
    accuracy_difference: Estimate
    seconds: Estimate
    realised_ratio: Estimate
    speedup: Estimate
    cpu_speedup: Estimate
    ceiling: Estimate
    efficiency: Estimate
    training_speedup: Estimate
    training_efficiency: Estimate
    seconds_to_accuracy: Estimate
    share_to_accuracy: Estimate
    train_memory_bytes: Estimate
    search_seconds: Estimate
    accumulates: Estimate
    multiply_accumulates: Estimate
    energy_joules: Estimate
    rate_energy_joules: Estimate
    effective_energy_joules: Estimate
    other_energy_joules: Estimate
    density: Estimate
    random_difference: Estimate
    worst_class_accuracy: Estimate
    worst_class_difference: Estimate
    fitted_loss: Estimate
    fitted_accuracy: Estimate
    loss_factor: Estimate
    loss_share: Estimate
    accuracy_share: Estimate
    gradient_mass: Estimate
    n_random_settings: int
    margin: float
    verdict: str | None
    random_verdict: str | None
    verdict_p: float | None = None
    random_p: float | None = None
    choice: Choice | None = None
    print_label: str = ""

    def columns(self) -> dict[str, Any]:
        """Returns the row as one flat table; with the search's, where there was one."""
        if self.choice is None:
            return super().columns()
        found = self.choice.to_json()
        names = ("trials", "seeds", "epochs", "visits", "edges")
        return super().columns() | {f"search.{name}": found[name] for name in names}

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.settings["method"])

    @property
    def ratio(self) -> float:
        """Pruning ratio."""
        return float(self.settings["ratio"])

    @property
    def display_label(self) -> str:
        """The label with the method's display name: 'SADP (smoothing=0.1)'; or the name that an author chose."""
        return self.print_label or display_label(self.label, self.method)

    @property
    def specs(self) -> list[Spec]:
        """Specs of the finished and the failed runs."""
        return [*(run.spec for run in self.runs), *(run.spec for run in self.failed)]

    @property
    def is_full(self) -> bool:
        """Whether the method is the reference."""
        return self.method == "full"

    @property
    def prunes(self) -> bool:
        """Whether the method shows fewer examples than full data. Other methods are in no ranking, and have no verdict."""
        return self.method not in UNPRUNED

    @property
    def timed(self) -> list[Record]:
        """The runs whose seconds count."""
        return [run for run in self.runs if not run.disturbed]

    @property
    def disturbed(self) -> bool:
        """Whether no run's seconds count."""
        return bool(self.runs) and not self.timed

    @property
    def decidable_difference(self) -> float | None:
        """The smallest difference to full that these seeds can decide: half of its interval's width, a share."""
        return self.accuracy_difference.half

    @property
    def accuracies(self) -> list[float]:
        """Accuracies of the runs."""
        return [run.test_accuracy for run in self.runs]

    @property
    def interruptions(self) -> int:
        """Number of interruptions of all runs."""
        return sum(run.interruptions for run in self.runs)

    @property
    def failures(self) -> list[str]:
        """'seed 3: training diverged ...' for each failed run."""
        return [f"seed {failure.spec.seed}: {failure.reason}" for failure in self.failed]


def largest_first(groups: Iterable[Sequence[RatioRow]]) -> list[Sequence[RatioRow]]:
    """Returns the groups in the order of their runs' number, the largest first."""
    return sorted(groups, key=lambda group: -sum(row.n for row in group))


def shared_means(rows: Iterable[RatioRow]) -> list[float]:
    """Returns each row's mean accuracy over the seeds that all rows have, or over its own where they share none."""
    rows = list(rows)
    shared = set.intersection(*(set(row.seeds) for row in rows)) if rows else set()
    return [
        statistics.fmean(run.test_accuracy for run in row.runs if run.spec.seed in shared or not shared) for row in rows
    ]
