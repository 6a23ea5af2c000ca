"""Every run, closed until it is asked for: what it was, on what, how it went, and the command that repeats it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from sadp_bench.core.phases import CHARGED_PHASES, PHASES
from sadp_bench.records.metrics import Comparison, is_plain, paired
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec, shown
from sadp_bench.report.axis_names import is_axis, spec_of
from sadp_bench.report.page.drawings import curve
from sadp_bench.report.page.markup import Markup, Part, element, named, pairs
from sadp_bench.report.page.wording import NOTHING, many, plain, signed
from sadp_bench.report.tables import Row, command, percent

Run = Comparison | Failure
Named = tuple[str, Run]
HEADS = ("method", "ratio", "seed", "accuracy", "charged time", "speed-up")


def sections(groups: Sequence[Sequence[Row]], records: Iterable[Record], failures: Iterable[Failure]) -> list[Markup]:
    """The runs of each group in the order of its table. A run that several groups show is told in the first."""
    waiting: dict[str, dict[str, Run]] = {}
    all_runs: list[Run] = [*paired(records), *failures]
    for run in all_runs:
        waiting.setdefault(_any_seed(run.spec).key, {})[run.spec.key] = run
    made = []
    for rows in groups:
        own = [(row["label"], run) for row in rows for run in _taken(row, waiting)]
        made += [_section(rows[0]["group"], own)] if own else []
    rest = [(run.spec.method, run) for left in waiting.values() for run in left.values()]
    return made + ([_section("Further runs", rest)] if rest else [])


def commands(specs: Iterable[Spec]) -> Markup:
    """One line a run, references first: a run that finds its reference's record trains none."""
    found = {spec.key: spec for spec in specs}
    lines = "\n".join(command(spec) for spec in sorted(found.values(), key=_in_turn))
    summary = element("summary", f"{many(len(found), 'command')}, references first")
    return element("details", summary, element("pre", element("code", lines)), class_="commands")


def _in_turn(spec: Spec) -> tuple[bool, str, float, int, str]:
    return spec.method != "full", spec.method, spec.ratio, spec.seed, spec.key


def _any_seed(spec: Spec) -> Spec:
    return dataclasses.replace(spec, seed=0)


def _taken(row: Row, waiting: dict[str, dict[str, Run]]) -> list[Run]:
    """The runs of a row, by seed, which no later row is given again."""
    spec = spec_of(row, 0)
    keys = [spec.key, *([spec.reference().key] if spec.method == "full" else [])]
    runs = [run for key in keys for run in waiting.pop(key, {}).values()]
    return sorted(runs, key=lambda run: run.spec.seed)


def _section(title: str, runs: Sequence[Named]) -> Markup:
    made = (_finished(label, run) if isinstance(run, Comparison) else _failed(label, run) for label, run in runs)
    heads = element("div", *(element("span", head) for head in HEADS), class_="heads", aria_hidden="true")
    return element("section", element("h3", title), heads, *made, class_="runs")


def _finished(label: str, pair: Comparison) -> Markup:
    run = pair.record
    speedup = NOTHING if pair.speedup is None else f"{plain(pair.speedup)}×"
    spans = [f"{plain(100 * run.test_accuracy)} %", plain(pair.seconds, 1, " s"), speedup]
    drawn = curve(run.epochs, f"Training loss and accuracy by epoch of {label}, seed {run.spec.seed}")
    return _details(
        label,
        run.spec,
        spans,
        *([_part("By epoch", drawn)] if drawn else []),
        _part("Result", pairs(_result(pair))),
        _part("Seconds", pairs(_seconds(run))),
        *([_part("Mean visits by class", pairs(_visits(run)))] if run.class_visits else []),
        _part("Settings", pairs(_spec(run.spec)), "long"),
        _part("Environment", pairs((_spaced(name), shown(value)) for name, value in run.environment.items())),
    )


def _failed(label: str, failure: Failure) -> Markup:
    where = [("learning rate then", failure.learning_rate)] if failure.learning_rate is not None else []
    told: list[tuple[str, Part]] = [
        ("reason", failure.reason),
        *([("in epoch", f"{failure.epoch + 1:,}")] if failure.epoch is not None else []),
        *((name, f"{value:g}") for name, value in where),
        ("attempts", failure.attempts),
        ("when", failure.when),
    ]
    last = element("pre", "\n".join(map(str, failure.last_lines)))
    return _details(
        label,
        failure.spec,
        [element("span", "failed", class_="failed")],
        _part("Failure", pairs(told)),
        *([_part("Its last lines", last, "wide")] if failure.last_lines else []),
        _part("Settings", pairs(_spec(failure.spec)), "long"),
    )


def _details(label: str, spec: Spec, spans: Sequence[Part], *parts: Markup) -> Markup:
    heads = [named(label), percent(spec.ratio), f"seed {spec.seed}", *spans]
    again = _part("The same again", element("pre", element("code", command(spec))), "wide")
    summary = element("summary", *(element("span", head) for head in heads))
    return element("details", summary, element("div", *parts, again, class_="parts"), id=f"run-{spec.key}")


def _part(title: str, content: Markup, class_: str = "whole") -> Markup:
    return element("div", element("h4", title), content, class_=class_)


def _result(pair: Comparison) -> list[tuple[str, Part]]:
    run, difference = pair.record, pair.accuracy_difference
    told: list[tuple[str, Part]] = [
        (f"{run.spec.evaluate_on} accuracy", f"{plain(100 * run.test_accuracy)} % of {_count(run.test_examples)}"),
        ("against its reference", NOTHING if difference is None else f"{signed(100 * difference)} points"),
        ("speed-up of ceiling", f"{plain(pair.speedup)} of {plain(pair.ceiling)}"),
        ("visits saved", f"{plain(100 * pair.realised_ratio)} %"),
        ("visits to train", _count(run.examples_seen)),
        ("visits to score", _count(run.prepare_examples)),
        ("firing rate by layer", ", ".join(_count(rate, 1, 3) for rate in run.firing_rate) or NOTHING),
        ("parameters", _count(run.num_parameters)),
        ("peak memory", f"{_count(run.peak_memory_bytes, 2**20)} MiB"),
        *_costs(run),
        ("finished", run.finished),
        ("interruptions", run.interruptions),
    ]
    told += [("no speed-up, as", "; ".join(pair.mismatch))] if pair.mismatch else []
    return told + ([("scores from run", run.scores_from)] if run.scores_from else [])


def _costs(run: Record) -> list[tuple[str, Part]]:
    """What records of an earlier version do not tell, or of runs that have all connections."""
    memory, counted = run.train_memory_bytes, run.operations
    told: list[tuple[str, Part]] = []
    if memory is not None:
        told.append(("training memory", f"{plain(memory / 2**20, 1)} MiB"))
    for name, unit, word in (("accumulates", 1e-6, "million"), ("multiply_accumulates", 1e-6, "million")):
        if name in counted:
            told.append((_spaced(name), f"{plain(counted[name] * unit, 3)} {word}"))
    if "energy_joules" in counted:
        told.append(("energy (45 nm estimate)", f"{plain(1e6 * counted['energy_joules'], 3)} µJ"))
    if run.ticket:
        told.append(("connections left", f"{plain(100 * run.density)} %"))
    return told + [(f"search: {_spaced(name)}", _fact(value)) for name, value in run.ticket.items()]


def _fact(value: Any) -> str:
    """'yes', '3', '12.50'."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _count(value, 1, 2 * isinstance(value, float))


def _count(value: Any, unit: int = 1, digits: int = 0) -> str:
    """A number that no one has checked: what is none is shown as it is."""
    return plain(value / unit, digits) if isinstance(value, int | float) else shown(value)


def _seconds(run: Record) -> list[tuple[str, Part]]:
    """The phases in their order, the sum that is charged, and what is not."""
    charged = [(name, plain(run.seconds[name], 2)) for name in CHARGED_PHASES]
    total = plain(sum(run.seconds[name] for name in CHARGED_PHASES), 2)
    others = [name for name in run.seconds if name not in CHARGED_PHASES]
    free = [(f"{name} (free)", plain(run.seconds[name], 2)) for name in sorted(others, key=_place)]
    return [*charged, ("charged", total), *free]


def _place(phase: str) -> tuple[int, str]:
    return PHASES.index(phase) if phase in PHASES else len(PHASES), phase


def _visits(run: Record) -> list[tuple[str, Part]]:
    return [(name, plain(mean)) for name, mean in run.class_visits.items()]


def _spec(spec: Spec) -> list[tuple[str, Part]]:
    fields = spec.to_json()
    owners = (("method", spec.method), ("backbone", spec.backbone), ("sparsity", spec.sparsity))
    tables = [(owner, fields.pop(f"{kind}_options")) for kind, owner in owners]
    named = {_spaced(name): value for name, value in fields.items() if not (is_axis(name) and is_plain(spec))}
    for owner, options in tables:
        named |= {f"{owner}: {name}": value for name, value in options.items()}
    return [*((name, shown(value)) for name, value in named.items()), ("key", spec.key)]


def _spaced(name: str) -> str:
    return str(name).replace("_", " ")
