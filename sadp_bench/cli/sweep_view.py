"""Shows a sweep: its plan, its progress on stderr, and its outcome."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sadp_bench.cli.output import say
from sadp_bench.core.text import count, duration, printable
from sadp_bench.records.naming import run_names
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import FAILED, Store
from sadp_bench.sweeps.planning import Plan
from sadp_bench.sweeps.scheduler import Standing, Watcher

SWEEP_WIDTH = 200  # columns, where stdout is no terminal
REMINDER_SECONDS = 600.0  # seconds between plain lines while no run ends


def plan_table(plan: Plan, states: dict[str, str], jobs: int) -> Group:
    """Returns the table that `--dry-run` prints."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "state"):
        table.add_column(name, overflow="fold")
    table.add_column("expected", justify="right", no_wrap=True)
    names = run_names(plan.runs)
    for spec in plan.runs:
        seconds = plan.seconds.get(spec.key)
        table.add_row(Text(names[spec.key]), states[spec.key], "" if seconds is None else duration(seconds))
    return Group(table, Text(plan_line(plan, states, jobs)))


def plan_line(plan: Plan, states: dict[str, str], jobs: int) -> str:
    """Returns the plan in a line: '12 runs: 3 done, 9 to do (1 failed before), about 4 min 10 s with 2 jobs'."""
    if not plan.to_do:
        return f"{count(len(plan.runs), 'run')}: all done"
    found = list(states.values())
    parts = [f"{found.count(state)} {state}" for state in ("failed before", "being trained") if state in found]
    detail = f" ({', '.join(parts)})" if parts else ""
    return (
        f"{count(len(plan.runs), 'run')}: {len(plan.done)} done, {len(plan.to_do)} to do{detail}, about "
        f"{duration(plan.expected_seconds(jobs))} with {count(jobs, 'job')}"
    )


def plan_json(plan: Plan, states: dict[str, str], jobs: int) -> dict[str, Any]:
    """Returns the object that `--dry-run --json` prints."""
    runs = [
        {"key": spec.key, "state": states[spec.key], "seconds": plan.seconds.get(spec.key), "spec": spec.to_json()}
        for spec in plan.runs
    ]
    return {"runs": runs, "expected_seconds": plan.expected_seconds(jobs), "jobs": jobs}


def closing(standing: Standing, store: Store) -> Group:
    """Returns the closing summary: the failed runs, and the counts."""
    names = run_names(standing.plan.runs)
    parts: list[Any] = []
    if standing.failed:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("failed", "tries", "why", "its last lines"):
            table.add_column(name, overflow="fold")
        for failure in standing.failed.values():
            path = printable(str(store.path(failure.spec, FAILED)))
            table.add_row(Text(names[failure.spec.key]), str(failure.attempts), Text(failure.reason), Text(path))
        parts += [table, Text("The same command tries them again.")]
    counts = f"{count(len(standing.plan.runs), 'run')}: {len(standing.done)} done, {len(standing.failed)} failed"
    return Group(*parts, Text(printable(f"{counts}; sadp-bench report {store.folder}")))


def closing_json(standing: Standing, store: Store) -> dict[str, Any]:
    """Returns the object that `sweep --json` prints."""
    failed = [
        {
            "key": failure.spec.key,
            "method": failure.spec.method,
            "ratio": failure.spec.ratio,
            "seed": failure.spec.seed,
            "reason": failure.reason,
            "attempts": failure.attempts,
            "file": str(store.path(failure.spec, FAILED)),
        }
        for failure in standing.failed.values()
    ]
    records = [str(store.path(spec)) for spec in standing.plan.runs if spec.key in standing.done]
    return {"runs": len(standing.plan.runs), "done": len(standing.done), "failed": failed, "records": records}


def watcher(quiet: bool, plan: Plan) -> Watcher:
    """Returns an overview on a terminal, plain lines elsewhere, and nothing visible when `quiet`."""
    if quiet:
        return Watcher()
    return Overview(plan) if sys.stderr.isatty() else SweepLines(plan)


def run_counts(standing: Standing) -> str:
    """Returns the counts in a line: '3 done, 2 running, 0 failed, 7 to do'."""
    begun = len(standing.done) + len(standing.failed) + len(standing.running)
    elsewhere = f", {len(standing.elsewhere)} of these at another process" if standing.elsewhere else ""
    return (
        f"{len(standing.done)} done, {len(standing.running)} running, {len(standing.failed)} failed, "
        f"{len(standing.plan.runs) - begun} to do{elsewhere}"
    )


class SweepLines(Watcher):
    """Prints a plain line at each run's start and end, and a reminder where no run ends for long."""

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
        """Prints how a run ended, and the counts."""
        self.message(f"{self.names[spec.key]}: {outcome}  [{self.summary(standing)}]")

    def tick(self, standing: Standing) -> None:
        """Prints the counts where no line was printed for long."""
        if time.monotonic() - self.last_line >= REMINDER_SECONDS:
            self.message(self.summary(standing))

    def summary(self, standing: Standing) -> str:
        """Returns the counts and the time left in a line."""
        return f"{run_counts(standing)}, about {duration(standing.seconds_left())} left"


class Overview(SweepLines):
    """Shows counts, a bar with the time left and a row for each running run, in place; failures stay above."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def message(self, line: str) -> None:
        """Prints a line above the overview."""
        self.console.print(Text(printable(line)))

    def started(self, spec: Spec, attempt: int, standing: Standing) -> None:
        """Renews the overview."""
        self.tick(standing)

    def ended(self, spec: Spec, outcome: str, standing: Standing) -> None:
        """Prints how a run failed, and renews the overview."""
        if spec.key not in standing.done:
            self.message(f"{self.names[spec.key]}: {outcome}")
        self.tick(standing)

    def tick(self, standing: Standing) -> None:
        """Renews the overview."""
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
        line = Padding(bar, 0)  # A bar alone does not end its line.
        return Group(Text(self.summary(standing), "bold"), line, table)


def print_sweep(shown: Group) -> None:
    """Prints on stdout."""
    Console(width=None if sys.stdout.isatty() else SWEEP_WIDTH).print(shown)
