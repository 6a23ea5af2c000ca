"""The details of every run of a report: result, seconds, settings, environment, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sadp_bench.core.phases import CHARGED_PHASES, PHASES
from sadp_bench.core.text import NOTHING, number, percent, signed
from sadp_bench.records.axes import cosine_places, cosine_text, is_plain
from sadp_bench.records.comparison import Comparison, paired
from sadp_bench.records.fields import shown
from sadp_bench.records.metrics import searched
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.trials import Searches
from sadp_bench.reports.grouping import NO_SEARCHES
from sadp_bench.reports.naming import command, is_axis
from sadp_bench.reports.rows import RatioRow

Facts = list[tuple[str, Any]]  # names and values


@dataclass(frozen=True, slots=True)
class RunDetails:
    """One run of the page.

    Attributes:
        key: The key of its spec.
        label: The method's label in its group's table.
        columns: Ratio and seed, then accuracy, charged time and speed-up, or "failed".
        failed: Whether it ended without a record.
        parts: The title and the facts of each part.
        last_lines: The last lines that a failed run printed.
        command: The command that repeats it.
    """

    key: str
    label: str
    columns: list[str]
    failed: bool
    parts: list[tuple[str, Facts]]
    last_lines: str
    command: str


def run_details(
    rows: Iterable[RatioRow], records: Iterable[Record], searches: Searches = NO_SEARCHES
) -> dict[str, list[RunDetails]]:
    """Returns the runs of each group in the order of its rows. A run of several groups appears only in the first."""
    pairs = {pair.spec.key: pair for pair in paired(records, searches.reference)}
    found: dict[str, dict[str, RunDetails]] = {}
    for row in rows:
        own: Sequence[Record | Failure] = sorted((*row.runs, *row.failed), key=lambda run: run.spec.seed)
        for run in own:
            key = run.spec.key
            if not any(key in runs for runs in found.values()):
                made = _run_of(row.display_label, run, pairs)
                found.setdefault(row.group, {})[key] = made
    return {group: list(runs.values()) for group, runs in found.items()}


def commands(specs: Iterable[Spec]) -> list[str]:
    """Returns the command of each run. References come first, so that no later run trains its reference again."""
    found = {spec.key: spec for spec in specs}
    order = sorted(found.values(), key=lambda s: (s.method != "full", s.method, s.ratio, s.seed, s.key))
    return [command(spec) for spec in order]


def _run_of(label: str, run: Record | Failure, pairs: Mapping[str, Comparison]) -> RunDetails:
    return _failed(label, run) if isinstance(run, Failure) else _finished(label, pairs[run.spec.key])


def _finished(label: str, pair: Comparison) -> RunDetails:
    run = pair.record
    speedup = NOTHING if pair.speedup is None else f"{number(pair.speedup)}×"
    columns = [f"{number(100 * run.test_accuracy)} %", number(pair.seconds, 1, " s"), speedup]
    parts = [
        ("Result", _result(pair)),
        ("Seconds", _seconds(run.seconds)),
        ("CPU seconds", _seconds(run.cpu_seconds)),
        ("Accuracy by class", [(name, f"{number(100 * share)} %") for name, share in run.class_accuracy.items()]),
        ("Mean visits by class", [(name, number(mean)) for name, mean in run.class_visits.items()]),
        ("Settings", _settings(run.spec)),
        ("Environment", [(_spaced(name), shown(value)) for name, value in run.environment.items()]),
    ]
    return _run(label, run.spec, columns, False, parts)


def _failed(label: str, failure: Failure) -> RunDetails:
    rate, epoch = failure.learning_rate, failure.epoch
    facts = [
        ("reason", failure.reason),
        ("in epoch", None if epoch is None else f"{epoch + 1:,}"),
        ("learning rate then", None if rate is None else f"{rate:g}"),
        ("attempts", failure.attempts),
        ("when", failure.when),
    ]
    parts = [("Failure", [fact for fact in facts if fact[1] is not None]), ("Settings", _settings(failure.spec))]
    return _run(label, failure.spec, ["failed"], True, parts, "\n".join(map(str, failure.last_lines)))


def _run(
    label: str, spec: Spec, columns: list[str], failed: bool, parts: list[tuple[str, Facts]], last_lines: str = ""
) -> RunDetails:
    columns = [percent(spec.ratio), f"seed {spec.seed}", *columns]
    return RunDetails(spec.key, label, columns, failed, [part for part in parts if part[1]], last_lines, command(spec))


def _result(pair: Comparison) -> Facts:
    run, difference = pair.record, pair.accuracy_difference
    facts: Facts = [
        (f"{run.spec.evaluate_on} accuracy", f"{number(100 * run.test_accuracy)} % of {_count(run.test_examples)}"),
        ("against its reference", NOTHING if difference is None else f"{signed(100 * difference)} points"),
        ("speed-up of ceiling", f"{number(pair.speedup)} of {number(pair.ceiling)}"),
        *([] if pair.cpu_speedup is None else [("speed-up by CPU", number(pair.cpu_speedup))]),
        ("visits saved", f"{number(100 * pair.realised_ratio)} %"),
        ("visits to train", _count(run.examples_seen)),
        ("visits to score", _count(run.prepare_examples)),
        ("firing rate by layer", ", ".join(_count(rate, 1, 3) for rate in run.firing_rate) or NOTHING),
        *([("accuracy by steps, %", _steps(run.accuracy_by_step))] if run.accuracy_by_step else []),
        *_fitted(run),
        *_cosine(run.gradient_cosine),
        ("parameters", _count(run.num_parameters)),
        ("peak memory", f"{_count(run.peak_memory_bytes, 2**20)} MiB"),
        *_costs(run),
        ("finished", run.finished),
        ("interruptions", run.interruptions),
    ]
    facts += [("no speed-up, because", "; ".join(pair.mismatch))] if pair.mismatch else []
    return facts + ([("scores from run", run.scores_from)] if run.scores_from else [])


def _steps(share_T: Sequence[float]) -> str:
    return ", ".join(number(100 * share) for share in share_T[:MAX_STEPS]) + (
        ", .." if len(share_T) > MAX_STEPS else ""
    )


def _fitted(run: Record) -> Facts:
    """Returns loss and accuracy on training images in evaluation mode; [] for older records."""
    if run.fitted_loss is None or run.fitted_accuracy is None:
        return []
    images = f"of {_count(run.fitted_examples)} training images"
    return [
        ("fitted loss", f"{run.fitted_loss:.4g} {images}"),
        ("fitted accuracy", f"{number(100 * run.fitted_accuracy)} %"),
    ]


def _cosine(found: Mapping[str, Any]) -> Facts:
    """Returns the cosine of SLTT's gradient with BPTT's; [] for runs without it."""
    return [("cosine with BPTT", f"{cosine_text(found.get('last'))}, {cosine_places(found)}")] if found else []


MAX_STEPS = 16  # time steps whose accuracy fits on a line
OTHER_ENERGIES = {
    "rate_energy_joules": "by firing rate",
    "effective_energy_joules": "by NeuroBench",
    "other_energy_joules": "of neurons, norms",
}


def _costs(run: Record) -> Facts:
    """Returns memory, operations, energy and connections, as far as the record contains them."""
    memory, counted = run.train_memory_bytes, run.operations
    facts: Facts = [] if memory is None else [("training memory", f"{number(memory / 2**20, 1)} MiB")]
    for name in ("accumulates", "multiply_accumulates"):
        if name in counted:
            facts.append((_spaced(name), f"{number(counted[name] * 1e-6, 3)} million"))
    if "energy_joules" in counted:
        facts.append(("energy (45 nm estimate)", f"{number(1e6 * counted['energy_joules'], 3)} µJ"))
    for name, label in OTHER_ENERGIES.items():
        if name in counted:
            facts.append((f"energy {label}", f"{number(1e6 * counted[name], 3)} µJ"))
    if run.ticket:
        facts.append(("connections left", f"{number(100 * run.density)} %"))
    plain = {name: value for name, value in run.ticket.items() if not isinstance(value, dict | list)}
    kind = "search" if searched(run) else run.spec.sparsity
    return facts + [(f"{kind}: {_spaced(name)}", _fact(value)) for name, value in plain.items()]


def _fact(value: Any) -> str:
    """Returns 'yes', '3' or '12.50'."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _count(value, 1, 2 * isinstance(value, float))


def _count(value: Any, unit: int = 1, digits: int = 0) -> str:
    """Returns a number as text. The value is unchecked; any other value is shown as it is."""
    return number(value / unit, digits) if isinstance(value, int | float) else shown(value)


def _seconds(spent: Mapping[str, float]) -> Facts:
    """Returns the charged phases in their order, their sum where none is missing, and then the uncharged phases."""
    charged = {name: spent[name] for name in CHARGED_PHASES if name in spent}
    total = [("charged", number(sum(charged.values())))] if len(charged) == len(CHARGED_PHASES) else []
    others = sorted((name for name in spent if name not in CHARGED_PHASES), key=_phase_order)
    return [
        *((name, number(seconds)) for name, seconds in charged.items()),
        *total,
        *((f"{name} (free)", number(spent[name])) for name in others),
    ]


def _phase_order(phase: str) -> tuple[int, str]:
    return PHASES.index(phase) if phase in PHASES else len(PHASES), phase


def _settings(spec: Spec) -> Facts:
    settings = {name: value for name, value in spec.flat().items() if not (is_axis(name) and is_plain(spec))}
    return [*((_spaced(name), shown(value)) for name, value in settings.items()), ("key", spec.key)]


def _spaced(name: str) -> str:
    return str(name).replace("_", " ")
