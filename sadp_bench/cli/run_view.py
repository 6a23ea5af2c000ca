"""Shows a run: its progress on stderr, its results on stdout."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sadp_bench.cli.output import say
from sadp_bench.core.progress import Progress as Silent
from sadp_bench.core.text import duration, percent, printable
from sadp_bench.records.axes import cosine_places, cosine_text, weak_cosine
from sadp_bench.records.comparison import Comparison, is_void
from sadp_bench.records.metrics import (
    UNPRUNED,
    charged_cpu_seconds,
    charged_seconds,
    forward_only,
    forward_share,
    score_seconds,
)
from sadp_bench.records.naming import run_name
from sadp_bench.runs.exporting import SCORES
from sadp_bench.runs.run import Outcome

LEAST_BAR, MOST_BAR, TIME = 10, 24, 7  # columns: least and largest width of the bar, and width of the time left
LESSER = ("rate", "kept", "loss")  # numbers beside the bar that a narrow terminal omits, in this order
WEAK_COSINE = (
    "SLTT's gradient has cosine {} with BPTT's. SLTT leaves out the gradient from step to step, which is large here. The "
    "paper's regime is backbone.tau=1.1 (with reset=soft, surrogate=triangle, detach_reset=false)."
)


def reporter(quiet: bool) -> Silent:
    """Returns a bar on a terminal, plain lines elsewhere, and nothing visible when `quiet`."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else RunLines()


class RunLines(Silent):
    """Prints a plain line after each epoch or round."""

    def __init__(self) -> None:
        self.title = ""
        self.visits = self.done = self.num_epochs = 0
        self.started = 0.0

    def message(self, line: str) -> None:
        """Prints a line."""
        say(line)

    def start(self, title: str, visits: int, num_epochs: int) -> None:
        """Starts the count of example visits. `visits` is their expected total."""
        self.title, self.visits, self.num_epochs, self.done = title, visits, num_epochs, 0
        self.started = time.perf_counter()

    def advance(self, visits: int) -> None:
        """Counts example visits."""
        self.done += visits

    def epoch(self, row: dict[str, Any], num_examples: int) -> None:
        """Prints the epoch's line with the time left."""
        left = self._left(self.done / max(1, self.visits))
        self.message(f"{self.title}  {'  '.join(epoch_parts(row, self.num_epochs, num_examples).values())}  {left}")

    def round(self, text: str, share: float) -> None:
        """Prints the round's line with the time left."""
        self.message(f"{self.title}  {text}  {self._left(share)}")

    def _left(self, share: float) -> str:
        elapsed = time.perf_counter() - self.started
        return f"{duration(elapsed * max(0.0, 1 / max(share, 1e-9) - 1))} left"


class Bar(Silent):
    """Shows a bar with epoch, loss, kept share, accuracy, images/s and time left. At its end one line remains.

    Args:
        console: The console of the bar; by default stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.title = ""
        self.num_epochs = 0
        self.parts: dict[str, str] = {}
        self.started = 0.0
        self.visits = self.done = 0
        self.scale = 1.0  # factor from finished visits to the bar's length

    def message(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(Text(printable(line)))

    def start(self, title: str, visits: int, num_epochs: int) -> None:
        """Starts a bar of `visits` example visits."""
        self.title, self.num_epochs, self.visits, self.done, self.scale = title, num_epochs, visits, 0, 1.0
        self.parts = {"epoch": f"epoch 1/{num_epochs}"}
        self.column = BarColumn(bar_width=LEAST_BAR)
        columns = (TextColumn("{task.description}"), self.column, TextColumn("{task.fields[state]}"))
        self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
        self.task = self.bar.add_task("", total=visits, state="")
        self._show()
        self.bar.start()
        self.started = time.perf_counter()

    def advance(self, visits: int) -> None:
        """Advances the bar by example visits."""
        self.done += visits
        self.parts["rate"] = f"{self.done / (time.perf_counter() - self.started):,.0f} images/s"
        self._show()

    def epoch(self, row: dict[str, Any], num_examples: int) -> None:
        """Shows the epoch's numbers beside the bar."""
        parts = epoch_parts(row, self.num_epochs, num_examples)
        self.parts = {**parts, "rate": self.parts.get("rate", parts["rate"])}
        self._show()

    def round(self, text: str, share: float) -> None:
        """Sets the bar to a share of the measurement, independently of the expected visits."""
        self.parts["epoch"] = text
        if self.done:
            self.scale = share * self.visits / self.done
        self._show()

    def stop(self) -> None:
        """Removes the bar and prints the last state."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
            self.message("  ".join([self.title, *self.parts.values()]))

    def _show(self) -> None:
        """Fits title, bar and numbers into the terminal. The bar keeps its least width; `LESSER` numbers make room."""
        if self.bar is None:
            return
        title = (
            self.title
            if len(self.title) <= self.console.width // 3
            else f"{self.title[: self.console.width // 3 - 1]}…"
        )
        room = self.console.width - len(title) - TIME - 3  # a space between columns
        state = fitted(self.parts, room - LEAST_BAR)
        self.column.bar_width = max(LEAST_BAR, min(MOST_BAR, room - len(state)))
        self.bar.update(self.task, description=title, completed=self.done * self.scale, state=state)


def fitted(parts: dict[str, str], room: int) -> str:
    """Returns the numbers of an epoch in a line of at most `room` columns. A short line omits the `LESSER` numbers."""
    kept = dict(parts)
    for name in LESSER:
        if len("  ".join(kept.values())) > room:
            kept.pop(name, None)
    return "  ".join(kept.values())


def epoch_parts(row: dict[str, Any], num_epochs: int, num_examples: int) -> dict[str, str]:
    """Returns a row's numbers: 'epoch 3/20', 'kept 70.0 %', 'loss 0.812', 'accuracy 71.20 %', '853 images/s'."""
    parts = {
        "epoch": f"epoch {row['epoch'] + 1}/{num_epochs}",
        "kept": f"kept {percent(row['kept'] / num_examples, 1)}",
        "loss": f"loss {row['train_loss']:.3f}",
    }
    if "test_accuracy" in row:
        parts["accuracy"] = f"accuracy {percent(row['test_accuracy'], 2)}"
    return parts | {"rate": f"{row['kept'] / row['seconds']:,.0f} images/s"}


def panel(outcome: Outcome) -> Panel:
    """Returns the closing panel of a run."""
    found = outcome.comparison
    run, full = found.record, found.reference
    title = f"{run_name(run.spec)} · {run.spec.dataset} · {run.spec.backbone} · seed {run.spec.seed}"
    parts: list[Any] = [_times(found), "", _facts(found)]
    if full is None:
        parts += ["", Text("No full-data reference: no speed-up. Run without --no-reference to train it.", "yellow")]
    elif places := [phrase for phrase in found.mismatch if not is_void(phrase)]:
        why = "; ".join(places)
        parts += ["", Text(f"No speed-up: the reference is from another environment ({why}); use --again.", "yellow")]
    for line in disturbances(found):
        parts += ["", Text(f"{line}. Measure it with sadp-bench speed.", "yellow")]
    if (cosine := weak_cosine(run)) is not None:
        parts += ["", Text(WEAK_COSINE.format(cosine_text(cosine)), "yellow")]
    if run.interruptions:
        times = "once" if run.interruptions == 1 else f"{run.interruptions} times"
        parts += ["", Text(f"Interrupted {times}; the seconds are the sum over all parts.", "dim")]
    paths = printable(f"record     {outcome.path}")
    if outcome.reference_path and outcome.reference_path != outcome.path:
        paths += "\n" + printable(f"reference  {outcome.reference_path}")
    for name, suffix in (("weights", ".pt"), ("scores", SCORES)):
        if (kept := outcome.path.with_suffix(suffix)).exists():
            paths += "\n" + printable(f"{name:<11}{kept}")
    parts += ["", Text(paths, "dim", overflow="fold")]
    return Panel(Group(*parts), title=Text(title, "bold"), expand=False, padding=(1, 2))


def _times(found: Comparison) -> Table:
    run, full = found.record, found.reference
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    on = "test" if run.spec.evaluate_on == "test" else "held-out"
    table.add_column("", overflow="fold")
    for name in (f"{on} accuracy", "prepare", "select", "train", "charged", "evaluate"):
        table.add_column(name, justify="right", no_wrap=True)
    shown = [("full data", full)] if full is not None and full.spec.key != run.spec.key else []
    for name, record in [*shown, (run_name(run.spec), run)]:
        seconds = record.seconds
        cells = [seconds["prepare"], seconds["select"], seconds["train"], charged_seconds(record), seconds["evaluate"]]
        table.add_row(name, percent(record.test_accuracy, 2), *(f"{value:.2f} s" for value in cells))
    if shown and found.accuracy_difference is not None:
        table.add_row("difference", f"{100 * found.accuracy_difference:+.2f}", style="dim")
    return table


def _facts(found: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    table.add_row("realised ratio", f"{found.realised_ratio:.4f}", f"asked for {found.record.spec.ratio:g}")
    if found.speedup is not None and found.efficiency is not None:
        table.add_row("speed-up", f"{found.speedup:.3f} x", "charged seconds of full data / of this run")
    if found.cpu_speedup is not None and found.record.spec.method != "full":
        table.add_row("speed-up by CPU", f"{found.cpu_speedup:.3f} x", "CPU seconds of full data / of this run")
    of_ratio = (
        "1 / (1 - ratio)" if found.record.spec.method not in UNPRUNED else "every example is shown in every epoch"
    )
    table.add_row("nominal maximum", f"{found.nominal_maximum:.3f} x", of_ratio)
    share = forward_share(found.record.epochs, found.record.seconds["train"])
    if share is not None:
        note = f"of a visit; {forward_only(found.record):,.0f} were a forward pass alone"
        table.add_row("forward pass", percent(share, 1), note)
    if seconds := score_seconds(found.record):
        table.add_row("scores", f"{seconds:.2f} s", "of select: passes over all examples, one before each epoch")
    but = "" if share is None else " but their forward pass"
    table.add_row("ceiling", f"{found.ceiling:.3f} x", f"if dropped examples cost nothing{but}")
    if found.efficiency is not None:
        table.add_row("efficiency", percent(found.efficiency, 1), "speed-up / ceiling")
        if found.record.seconds["prepare"] > 0.01 * charged_seconds(found.record):
            table.add_row("  training part", percent(found.training_efficiency, 1), "the same without prepare")
    if cosine := found.record.gradient_cosine:
        places = printable(cosine_places(cosine))
        table.add_row("cosine with BPTT", cosine_text(cosine.get("last")), f"of SLTT's gradient; {places}")
    return table


def disturbances(found: Comparison) -> list[str]:
    """Returns a line for each reason why the run or its reference is disturbed."""
    runs = {"this run": found.record}
    if found.reference is not None and found.reference.spec.key != found.record.spec.key:
        runs["the full-data run"] = found.reference
    reasons: dict[str, list[str]] = {}
    for name, run in runs.items():
        if run.disturbed:
            reasons.setdefault(run.disturbed, []).append(name)
    return [
        f"No speed-up, as {' and '.join(names)} {'was' if len(names) == 1 else 'were'} disturbed: {why}"
        for why, names in reasons.items()
    ]


def run_json(outcome: Outcome) -> dict[str, Any]:
    """Returns the object that `run --json` prints, unrounded. Numbers without a reference or undisturbed runs are null."""
    found = outcome.comparison
    return {
        "method": found.record.spec.method,
        "ratio": found.record.spec.ratio,
        "realised_ratio": found.realised_ratio,
        "test_accuracy": found.record.test_accuracy,
        "reference_accuracy": found.reference.test_accuracy if found.reference else None,
        "seconds": found.seconds,
        "speedup": found.speedup,
        "nominal_maximum": found.nominal_maximum,
        "ceiling": found.ceiling,
        "efficiency": found.efficiency,
        "cpu_seconds": charged_cpu_seconds(found.record),
        "cpu_speedup": found.cpu_speedup,
        "disturbed": found.record.disturbed,
        "reference_disturbed": found.reference.disturbed if found.reference else None,
        "record": str(outcome.path),
    }


def print_result(renderable: Any) -> None:
    """Prints an object of Rich on stdout."""
    Console().print(renderable)
