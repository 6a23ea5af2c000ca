"""Shows a sweep: its plan, its progress on stderr, and its outcome."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sadp_bench.cli.output import say
from sadp_bench.cli.power_view import Decision, decision
from sadp_bench.cli.search_view import search_choices, search_line, search_table
from sadp_bench.core.text import count, duration, printable
from sadp_bench.records.naming import run_names
from sadp_bench.records.record import Failure
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import FAILED, Store, read_all
from sadp_bench.sweeps import planning
from sadp_bench.sweeps.outcome import Outcome
from sadp_bench.sweeps.planning import Plan
from sadp_bench.sweeps.scheduler import Standing, Watcher

SWEEP_WIDTH = 200  # columns, where stdout is no terminal
STATES = ("failed before", "being trained")  # states that the plan's line counts
REMINDER_SECONDS = 600.0  # seconds between plain lines while no run ends


def plan_table(plan: Plan, store: Store, jobs: int) -> Group:
    """Returns the tables that `--dry-run` prints: the trials of the search, their choices so far, and the runs."""
    found = _decision(plan, store)
    decides = [] if found is None else [Text(found.sentence())]
    if plan.search is None:
        return Group(*_plan_parts(plan, store, jobs), *decides)
    trials, choices = plan.search.plan, search_choices(plan.search)
    searched: list[Any] = [Text(""), search_table(choices), Text(search_line(choices))] if choices else []
    whole = Text(f"search and runs: about {duration(plan.whole_seconds(jobs))} with {count(jobs, 'job')}")
    return Group(
        *_plan_parts(trials, plan.search.store, jobs, "trial"),
        *searched,
        Text(""),
        *_plan_parts(plan, store, jobs),
        whole,
        *decides,
    )


def _decision(plan: Plan, store: Store) -> Decision | None:
    """Returns what the seeds of the runs decide, by the spreads of finished runs."""
    done = [store.find(spec) for spec in plan.runs if spec.key in plan.done]
    return decision(plan.runs, [record for record in done if record is not None])


def _plan_parts(plan: Plan, store: Store, jobs: int, noun: str = "run") -> list[Any]:
    """Returns a plan's table, and its summary in a line."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in (noun, "state"):
        table.add_column(name, overflow="fold")
    table.add_column("expected", justify="right", no_wrap=True)
    names, states = run_names(plan.runs), planning.states(plan, store)
    for spec in plan.runs:
        seconds = plan.seconds.get(spec.key)
        table.add_row(Text(names[spec.key]), states[spec.key], "" if seconds is None else duration(seconds))
    return [table, Text(plan_line(plan, states, jobs, noun))]


def plan_line(plan: Plan, states: dict[str, str], jobs: int, noun: str = "run") -> str:
    """Returns the plan in a line: '12 runs: 3 done, 9 to do (1 failed before), about 4 min 10 s with 2 jobs'."""
    if not plan.seconds:
        return f"{count(len(plan.runs), noun)}: all done"
    found = list(states.values())
    parts = [
        f"{found.count(state)} {state}" for state in (*STATES, *dict.fromkeys(plan.skipped.values())) if state in found
    ]
    detail = f" ({', '.join(parts)})" if parts else ""
    return (
        f"{count(len(plan.runs), noun)}: {len(plan.done)} done, {len(plan.runs) - len(plan.done)} to do{detail}, about "
        f"{duration(plan.expected_seconds(jobs))} with {count(jobs, 'job')}"
    )


def plan_json(plan: Plan, store: Store, jobs: int) -> dict[str, Any]:
    """Returns the object that `--dry-run --json` prints. A run without settings has no key yet."""
    found = {"runs": _runs_json(plan, store), "expected_seconds": plan.whole_seconds(jobs), "jobs": jobs}
    if (decides := _decision(plan, store)) is not None:
        found["decides"] = decides.to_json()
    if plan.search is None:
        return found
    chosen = [choice.to_json() for choice in search_choices(plan.search)]
    return found | {"trials": _runs_json(plan.search.plan, plan.search.store), "search": chosen}


def _runs_json(plan: Plan, store: Store) -> list[dict[str, Any]]:
    states, names = planning.states(plan, store), () if plan.search is None else plan.search.names
    found = []
    for spec in plan.runs:
        is_open = spec.key in plan.skipped
        fields = {name: None if is_open and name in names else v for name, v in spec.to_json().items()}
        key = None if is_open else spec.key
        found.append({"key": key, "state": states[spec.key], "seconds": plan.seconds.get(spec.key), "spec": fields})
    return found


def num_runs(outcome: Outcome) -> int:
    """Returns the number of trials and runs of a sweep."""
    return len(outcome.plan.runs) + (0 if outcome.trials is None else len(outcome.trials.plan.runs))


def closing(outcome: Outcome, store: Store) -> Group:
    """Returns the closing summary: the failed runs, the choices of a search with its trials, and the counts."""
    parts: list[Any] = []
    if failed := _failed(outcome, store):
        names = run_names([*outcome.plan.runs, *(failure.spec for failure, _ in failed)])
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("failed", "tries", "why", "its last lines"):
            table.add_column(name, overflow="fold")
        for failure, path in failed:
            shown = printable(str(path))
            table.add_row(Text(names[failure.spec.key]), str(failure.attempts), Text(failure.reason), Text(shown))
        parts += [table, Text("The same command tries them again.")]
    search = outcome.plan.search
    if search is not None and outcome.trials is not None:
        found = search_choices(search)
        parts += [search_table(found), Text(search_line(found))]
        parts += [Text(f"{count(len(search.plan.runs), 'trial')}: {len(search.plan.done)} done")]
        if lacking := len(outcome.without_settings):
            parts += [
                Text(f"not trained: {count(lacking, 'run')}, because no point of the search has all its trials done")
            ]
    if search is None and (lacking := len(outcome.without_settings)):
        parts += [Text(f"not trained: {count(lacking, 'run')}, because the run that makes their scores left none")]
    failures = 0 if outcome.runs is None else len(outcome.runs.failed)
    done = len(outcome.plan.done) if outcome.runs is None else len(outcome.runs.done)
    counts = f"{count(len(outcome.plan.runs), 'run')}: {done} done, {failures} failed"
    return Group(*parts, Text(printable(f"{counts}; sadp-bench report {store.folder}")))


def print_closing(outcome: Outcome, store: Store) -> None:
    """Prints the table of the finished runs, as `sadp-bench report` shows it, and the closing summary."""
    from sadp_bench.records.trials import sorted_out
    from sadp_bench.reports import render

    keys, found = {spec.key for spec in outcome.plan.runs}, read_all([store.folder])
    records, _, searches = sorted_out(found.records, found.failures, [store.folder])
    if shown := [record for record in records if record.spec.key in keys]:
        console = Console()
        print(render(shown, width=console.width, styled=console.is_terminal, searches=searches))
    print_sweep(closing(outcome, store))


def _failed(outcome: Outcome, store: Store) -> list[tuple[Failure, Path]]:
    """Returns the failures of trials and runs with their files."""
    search, runs = outcome.plan.search, outcome.runs
    in_search = Store(store.folder) if search is None else search.store
    of_runs = set() if runs is None else set(runs.failed)
    return [
        (failure, (store if key in of_runs else in_search).path(failure.spec, FAILED))
        for key, failure in outcome.failed.items()
    ]


def closing_json(outcome: Outcome, store: Store) -> dict[str, Any]:
    """Returns the object that `sweep --json` prints."""
    failed = [
        {
            "key": failure.spec.key,
            "method": failure.spec.method,
            "ratio": failure.spec.ratio,
            "seed": failure.spec.seed,
            "reason": failure.reason,
            "attempts": failure.attempts,
            "file": str(path),
        }
        for failure, path in _failed(outcome, store)
    ]
    done = outcome.plan.done if outcome.runs is None else outcome.runs.done
    records = [str(store.path(spec)) for spec in outcome.plan.runs if spec.key in done]
    found = {"runs": len(outcome.plan.runs), "done": len(done), "failed": failed, "records": records}
    search = outcome.plan.search
    return found if search is None else found | {"search": [choice.to_json() for choice in search_choices(search)]}


def watcher(quiet: bool, plan: Plan) -> Watcher:
    """Returns an overview on a terminal, plain lines elsewhere, and nothing visible when `quiet`."""
    if quiet:
        return Watcher()
    return Overview(plan) if sys.stderr.isatty() else SweepLines(plan)


def run_counts(standing: Standing) -> str:
    """Returns the counts in a line: '3 done, 2 running, 0 failed, 7 to do'."""
    begun = len(standing.done) + len(standing.failed) + len(standing.running)
    elsewhere = f", {len(standing.elsewhere)} of these in another process" if standing.elsewhere else ""
    return (
        f"{len(standing.done)} done, {len(standing.running)} running, {len(standing.failed)} failed, "
        f"{len(standing.plan.runs) - begun} to do{elsewhere}"
    )


class SweepLines(Watcher):
    """Prints a plain line at each run's start and end, and a reminder where no run ends for a long time."""

    def __init__(self, plan: Plan) -> None:
        self.names = run_names(plan.runs)
        self.last_line = time.monotonic()

    def message(self, line: str) -> None:
        """Prints a line."""
        say(line)
        self.last_line = time.monotonic()

    def started(self, spec: Spec, attempt: int, standing: Standing) -> None:
        """Prints that a run started."""
        again = f" (try {attempt})" if attempt > 1 else ""
        self.message(f"{self.names[spec.key]}: started{again}")

    def ended(self, spec: Spec, outcome: str, standing: Standing) -> None:
        """Prints the outcome of a run, and the counts."""
        self.message(f"{self.names[spec.key]}: {outcome}  [{self.summary(standing)}]")

    def tick(self, standing: Standing) -> None:
        """Prints the counts where no line was printed for a long time."""
        if time.monotonic() - self.last_line >= REMINDER_SECONDS:
            self.message(self.summary(standing))

    def summary(self, standing: Standing) -> str:
        """Returns the counts and the time left in a line."""
        return f"{run_counts(standing)}, about {duration(standing.seconds_left())} left"


class Overview(SweepLines):
    """Shows counts, a bar with the time left and a row for each run in training, in place. Failures stay above."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def message(self, line: str) -> None:
        """Prints a line above the overview."""
        self.console.print(Text(printable(line)))

    def started(self, spec: Spec, attempt: int, standing: Standing) -> None:
        """Redraws the overview."""
        self.tick(standing)

    def ended(self, spec: Spec, outcome: str, standing: Standing) -> None:
        """Prints the failure of a run, and redraws the overview."""
        if spec.key not in standing.done:
            self.message(f"{self.names[spec.key]}: {outcome}")
        self.tick(standing)

    def tick(self, standing: Standing) -> None:
        """Redraws the overview."""
        self.live.start()
        self.live.update(self.shown(standing), refresh=True)

    def stop(self) -> None:
        """Removes the overview."""
        self.live.stop()

    def shown(self, standing: Standing) -> Group:
        """Returns the overview."""
        ended, now = len(standing.done) + len(standing.failed), time.monotonic()
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
        for key, running in standing.running.items():
            table.add_row(Text(self.names[key]), duration(now - running.since), Text(running.latest, "dim"))
        bar = ProgressBar(total=max(1, len(standing.plan.runs)), completed=ended, width=40)
        line = Padding(bar, 0)  # a bar alone does not end its line
        return Group(Text(self.summary(standing), "bold"), line, table)


def print_sweep(shown: Group) -> None:
    """Prints tables and texts on stdout."""
    Console(width=None if sys.stdout.isatty() else SWEEP_WIDTH).print(shown)
