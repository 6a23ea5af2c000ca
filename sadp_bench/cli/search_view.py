"""Shows the search of a sweep: the accuracy of every trial, and the settings that were chosen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from sadp_bench.core.text import NOTHING, count, listed
from sadp_bench.records.naming import run_names
from sadp_bench.records.trials import SEARCHABLE, Choice, Point
from sadp_bench.sweeps.planning import SearchPlan


def search_choices(search: SearchPlan) -> list[Choice]:
    """Returns the choices of a sweep's runs that have trials."""
    return [search.choices[key] for key in search.shown if key in search.choices]


def search_table(found: Sequence[Choice]) -> Table:
    """Returns a table with a row for each method and ratio: its trials, and the chosen values, marked at an edge."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("search", "mean validation accuracy, %", "chosen"):
        table.add_column(name, overflow="fold")
    plain = [choice.spec.of_valid(seed=0, **dict.fromkeys(SEARCHABLE, 0.0)) for choice in found]
    names = run_names(plain)
    for choice, spec in zip(found, plain, strict=True):
        points = "   ".join(f"{_values(choice, point)}: {_accuracy(choice, point)}" for point in choice.points)
        table.add_row(Text(names[spec.key]), Text(points), Text(_chosen(choice)))
    return table


def search_line(found: Sequence[Choice]) -> str:
    """Returns the searched settings, the seeds and the visits: 'searched: learning rate; 2 seeds (0, 1); ...'."""
    names = listed(
        [name.replace("_", " ") for name in dict.fromkeys(name for choice in found for name in choice.names)]
    )
    seeds = sorted({seed for choice in found for seed in choice.seeds})
    visits = sum(choice.visits for choice in found)
    return f"searched: {names}; {count(len(seeds), 'seed')} ({', '.join(map(str, seeds))}); {visits:,} example visits"


def _values(choice: Choice, point: Point) -> str:
    return ", ".join(f"{point.values[SEARCHABLE.index(name)]:g}" for name in choice.names)


def _accuracy(choice: Choice, point: Point) -> str:
    if point.diverged:
        return "diverged"
    lacking = len(choice.seeds) - len(point.accuracies)
    shown = NOTHING if point.mean is None else f"{100 * point.mean:.2f}"
    return f"{shown} ({lacking} to do)" if lacking else shown


def _chosen(choice: Choice) -> str:
    edges = choice.edges
    values = [f"{value:g}{f' ({edges[name]} tried)' if name in edges else ''}" for name, value in choice.chosen.items()]
    return ", ".join(values) or NOTHING
