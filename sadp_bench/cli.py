"""The command line. It parses, calls, prints and turns bad input into one line; torch is imported by the commands
that need it only."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from sadp_bench import __version__
from sadp_bench.errors import BadInput, printable

app = typer.Typer(
    name="sadp-bench",
    help="Benchmark of data-pruning methods for training spiking neural networks.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Option = typer.Option
Dataset = Annotated[str | None, Option(help="Data set: a name or package.module:Class.", show_default="digits")]
Backbone = Annotated[str | None, Option(help="Spiking network: a name or package.module:Class.", show_default="cnn")]
Epochs = Annotated[int | None, Option(help="Epochs of full-data training.", show_default="the data set's")]
BatchSize = Annotated[int | None, Option(help="Examples a batch.", show_default="the data set's")]
Timesteps = Annotated[int | None, Option(help="Time steps T.", show_default="the data set's")]
Optimizer = Annotated[str | None, Option(help="sgd or adamw.", show_default="sgd")]
LearningRate = Annotated[float | None, Option(help="At the start of the schedule.", show_default="the data set's")]
Schedule = Annotated[str | None, Option(help="cosine or constant.", show_default="cosine")]
WeightDecay = Annotated[float | None, Option(help="Of all parameters.", show_default="5e-4")]
Augment = Annotated[str | None, Option(help="none, crop or crop-flip.", show_default="the data set's")]
Loss = Annotated[
    str | None, Option(help="Of the logits' mean over time, or of each step: mean or step.", show_default="mean")
]
Precision = Annotated[str | None, Option(help="auto, fp32, bf16 or fp64.", show_default="auto")]
Threads = Annotated[int | None, Option(help="CPU threads.", show_default="all cores")]
Device = Annotated[str | None, Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")]
Seed = Annotated[int | None, Option(help="Of weights, order, augmentation and draws.", show_default="0")]
TrainExamples = Annotated[int | None, Option(help="Train on a fixed, class-balanced part.", show_default="all")]
Set = Annotated[list[str] | None, Option(help="KEY=VALUE of the method, or backbone.KEY=VALUE; repeatable.")]
Data = Annotated[Path | None, Option(help="Folder of the data sets.", show_default="$SADP_BENCH_DATA, or a cache")]
CheckpointSeconds = Annotated[
    float, Option(help="Write a checkpoint at the first epoch end after so many; 0: at every.")
]
AsJson = Annotated[bool, Option("--json", help="One JSON object on stdout, nothing else there.")]
Quiet = Annotated[bool, Option(help="No progress.")]


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"sadp-bench {__version__}")
        raise typer.Exit


@app.command()
def run(
    method: Annotated[str, Option(help="Pruning method: a name (`sadp-bench list methods`) or package.module:Class.")],
    ratio: Annotated[float, Option(help="Pruning ratio in [0, 1): the share of example visits to save.")],
    dataset: Dataset = None,
    backbone: Backbone = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    timesteps: Timesteps = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    schedule: Schedule = None,
    weight_decay: WeightDecay = None,
    augment: Augment = None,
    loss: Loss = None,
    precision: Precision = None,
    threads: Threads = None,
    device: Device = None,
    seed: Seed = None,
    train_examples: TrainExamples = None,
    protocol: Annotated[str | None, Option(help="Equal epochs, or equal updates.", show_default="epochs")] = None,
    evaluate_on: Annotated[str | None, Option(help="test or validation.", show_default="test")] = None,
    evaluate_every: Annotated[int | None, Option(help="Epochs.", show_default="a tenth of the run")] = None,
    set: Set = None,
    out: Annotated[Path, Option(help="Folder of the records.")] = Path("runs"),
    data: Data = None,
    no_reference: Annotated[bool, Option("--no-reference", help="Train no full-data reference.")] = False,
    again: Annotated[bool, Option("--again", help="Train also what has a record.")] = False,
    save_model: Annotated[bool, Option("--save-model", help="Keep the weights beside the record.")] = False,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    concurrent_jobs: Annotated[int, Option(help="Runs that share this machine now, for the record.")] = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train one method, and the paired full-data reference before it; measure what was saved and what it cost."""
    asked = {name: value for name, value in locals().items() if name in SPEC_OPTIONS}
    from sadp_bench import environment, experiment, parts, ranks, terminal
    from sadp_bench.store import Store

    environment.keep_freed_memory()
    with ranks.joined(device):
        with ranks.first_goes_ahead():
            spec, material = parts.resolve({**asked, "set": _table(set)}, data)
        outcome = experiment.run(
            spec,
            material,
            Store(out),
            terminal.reporter(quiet or ranks.rank() > 0),
            reference=not no_reference,
            again=again,
            save_model=save_model,
            checkpoint_seconds=checkpoint_seconds,
            jobs=concurrent_jobs,
        )
    if outcome is None:  # the first process speaks for all
        return
    if as_json:
        print(json.dumps(terminal.as_json(outcome)))
    else:
        terminal.show(terminal.panel(outcome))


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep file, TOML: see experiments/README.md.")],
    out: Annotated[Path, Option(help="Folder of the records.")] = Path("runs"),
    jobs: Annotated[int, Option(help="Runs at a time on a machine; each has its share of the cores, or a GPU.")] = 1,
    shard: Annotated[str | None, Option(help="i/n: the i-th of n parts.", show_default="all")] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show the runs and the time they will take; train none.")
    ] = False,
    executor: Annotated[str, Option(help="local, or ray: tasks of a Ray cluster.")] = "local",
    retries: Annotated[int, Option(help="How often a run that crashed is tried again.")] = 1,
    data: Data = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    address: Annotated[str | None, Option(help="Of the Ray cluster.", show_default="a Ray of this machine")] = None,
    gpus_per_run: Annotated[
        float | None, Option(help="On Ray, of runs on cuda; 0.25: four a GPU.", show_default="1")
    ] = None,
    allow_imports: Annotated[bool, Option("--allow-imports", help="Let the file name package.module:Class.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train all runs of a file that have no record yet, each in a process of its own, references first."""
    from sadp_bench import overview, scheduler, sweep
    from sadp_bench.executors import Options
    from sadp_bench.store import Store

    data = data.absolute() if data else None
    store, options = Store(out), Options(jobs, retries, data, checkpoint_seconds, executor, address, gpus_per_run)
    say = (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    plan = sweep.make_plan(
        file, store, jobs=jobs, shard=sweep.parse_shard(shard), data=data, allow_imports=allow_imports, say=say
    )
    if dry_run:
        states = sweep.states(plan, store)
        shown = overview.plan_json if as_json else overview.plan_table
        overview.show(shown(plan, states, jobs))
        return
    if plan.to_do:
        store.check_writable(plan.needed_bytes)
    with redirect_stdout(sys.stderr):  # Ray has messages of its own, which are no results
        started = scheduler.make_executor(plan, store, options)
        watcher = overview.watcher(quiet, plan, jobs)
        standing = scheduler.Scheduler(plan, store, started, watcher, options.retries).run()
    overview.show((overview.closing_json if as_json else overview.closing)(standing, store))
    if standing.failed:
        raise typer.Exit(1)


@app.command()
def report(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of records.", show_default="runs")] = None,
    format: Annotated[str, Option(help="text, markdown, csv or json.")] = "text",
    to: Annotated[Path | None, Option(help="Write to a file instead.")] = None,
    plots: Annotated[Path | None, Option(help="Draw the plots into this folder.")] = None,
) -> None:
    """The table of all runs: accuracy, and speed-up against its ceiling, by method and ratio."""
    from sadp_bench.report import render
    from sadp_bench.store import atomic, read_all

    found = read_all(folders or [Path("runs")])
    for problem in found.problems:
        print(f"sadp-bench: skipped {problem}", file=sys.stderr)
    records = [record for _, record in found.records]
    width, styled = 120, False
    if to is None:
        from rich.console import Console

        width, styled = Console().width, Console().is_terminal
    text = render(records, found.problems, format, failures=found.failures, width=width, styled=styled)
    if plots is not None:
        from sadp_bench.report.plots import draw

        for path in draw(records, plots):
            print(f"drew {path}", file=sys.stderr)
    if to is None:
        sys.stdout.write(text)
    else:
        with atomic(to) as file:
            file.write(text.encode())


@app.command()
def speed(
    methods: Annotated[str, Option(help="Methods, separated by commas.")] = "random,sadp",
    ratios: Annotated[str, Option(help="Pruning ratios, separated by commas.")] = "0.3,0.5,0.7",
    rounds: Annotated[int, Option(help="Timed epochs of each arm at most, after one untimed.")] = 30,
    half_width: Annotated[float, Option(help="Stop when no 95 % interval reaches further from its median.")] = 0.01,
    minutes: Annotated[float, Option(help="Stop after about so long.")] = 10,
    dataset: Dataset = None,
    backbone: Backbone = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    timesteps: Timesteps = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    schedule: Schedule = None,
    weight_decay: WeightDecay = None,
    augment: Augment = None,
    loss: Loss = None,
    precision: Precision = None,
    threads: Threads = None,
    device: Device = None,
    seed: Seed = None,
    train_examples: TrainExamples = None,
    set: Set = None,
    data: Data = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure training speed-ups on a noisy machine: epochs of all arms interleaved, full data against itself as the
    noise floor. The scoring before training is not part of it."""
    asked = {name: value for name, value in locals().items() if name in SPEC_OPTIONS}
    from sadp_bench import environment, speed, terminal

    environment.keep_freed_memory()
    wanted = [_number(ratio) for ratio in ratios.split(",")]
    names = [name.strip() for name in methods.split(",")]
    result = speed.measure(
        {**asked, "set": _table(set)}, names, wanted, rounds, data, terminal.reporter(quiet), half_width, 60 * minutes
    )
    if as_json:
        print(json.dumps(result))
    else:
        terminal.show(terminal.speed_table(result))


@app.command()
def study(
    at: Annotated[
        str | None, Option(help="Epochs to stop after, separated by commas.", show_default="1, a quarter, half, all")
    ] = None,
    examples: Annotated[int, Option(help="Training examples to study, a fixed random part.")] = 512,
    dataset: Dataset = None,
    backbone: Backbone = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    timesteps: Timesteps = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    schedule: Schedule = None,
    weight_decay: WeightDecay = None,
    augment: Augment = None,
    loss: Loss = None,
    precision: Precision = None,
    threads: Threads = None,
    device: Device = None,
    seed: Seed = None,
    train_examples: TrainExamples = None,
    set: Set = None,
    data: Data = None,
    out: Annotated[Path, Option(help="Folder to keep the study in.")] = Path("studies"),
    from_: Annotated[Path | None, Option("--from", help="Show a kept study instead of making one.")] = None,
    plots: Annotated[Path | None, Option(help="Draw the plots into this folder.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Hold every score against exact gradient norms while full data trains: correlation, variance of the draw, cost."""
    asked = {name: value for name, value in locals().items() if name in SPEC_OPTIONS}
    from sadp_bench import study_table, studyfile

    if from_ is not None:
        if at or set or any(value is not None for value in asked.values()):
            raise BadInput("--from shows a study as it is kept; leave the options of training out")
        found, path = studyfile.read(from_), from_
    else:
        found, path = _new_study({**asked, "set": _table(set)}, at, examples, data, out, quiet)
    if as_json:
        print(json.dumps(found))
    else:
        study_table.show(found, path)
    if plots is not None:
        from sadp_bench.report.study_plots import draw

        for drawn in draw(found, plots):
            print(f"drew {drawn}", file=sys.stderr)


def _new_study(
    asked: dict[str, Any], at: str | None, examples: int, data: Path | None, out: Path, quiet: bool
) -> tuple[dict[str, Any], Path]:
    from sadp_bench import environment, studyfile, terminal
    from sadp_bench.store import Store
    from sadp_bench.study import Study

    environment.keep_freed_memory()
    study = Study(asked, at, examples, data, terminal.reporter(quiet))
    Store(out).check_writable()
    found = study.measure()
    return found, studyfile.write(out, found)


@app.command(name="list")
def list_(
    kind: Annotated[str, typer.Argument(help="methods, backbones or datasets.")],
    as_json: AsJson = False,
) -> None:
    """What is registered, one line each, with its source."""
    from sadp_bench import registry

    kinds = {"methods": "method", "backbones": "backbone", "datasets": "dataset"}
    if kind not in kinds:
        raise BadInput(f"list what? '{kind}' is unknown{registry.nearest(kind, kinds)}")
    entries = registry.entries(kinds[kind])
    if as_json:
        print(json.dumps([{"name": e.name, "path": e.path, "summary": e.summary, "source": e.source} for e in entries]))
    else:
        for entry in entries:
            print(f"{entry.name:<14}{entry.summary}\n{'':<14}{entry.source}")


@app.command()
def doctor(data: Data = None, as_json: AsJson = False) -> None:
    """Versions, device, kernels, data sets on disk, and whether `baselines` is ours."""
    from sadp_bench import doctor

    found = doctor.examine(data)
    if as_json:
        print(json.dumps(found))
        return
    print(doctor.text(found))


SPEC_OPTIONS = frozenset(
    "method ratio dataset backbone epochs batch_size timesteps optimizer learning_rate schedule weight_decay augment loss "
    "precision threads device seed train_examples protocol evaluate_on evaluate_every".split()
)


def _table(pairs: list[str] | None) -> dict[str, str]:
    table = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--set takes KEY=VALUE, not '{pair}'")
        table[key.strip()] = value.strip()
    return table


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"--ratios takes numbers separated by commas, not '{text}'") from None


def main(arguments: list[str] | None = None) -> Any:
    """The console script. Exit code 2 and one line for bad input, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that can't show a character must not end a run
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # The command line library's own complaints (an unknown option, say) have this ancestor; it has no public name.
    usage_error: Any = typer.BadParameter.__mro__[2]
    try:
        code = typer.main.get_command(app)(arguments, standalone_mode=False)
        if code == 130:  # what the command line library makes of Ctrl-C
            raise KeyboardInterrupt
    except BadInput as error:
        _fail(str(error))
    except usage_error as error:
        _fail(f"{error.format_message()}{_came(error, arguments)} (see sadp-bench --help)")
    except (KeyboardInterrupt, typer.Abort):
        goes_on = "; the same command goes on from the last checkpoint" if arguments[0] in ("run", "sweep") else ""
        print(f"sadp-bench: interrupted{goes_on}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `sadp-bench report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _came(error: Any, arguments: list[str]) -> str:
    """What was given to the option that the command line library complains of: its own message leaves that out."""
    names = getattr(getattr(error, "param", None), "opts", [])
    words = [part for word in arguments for part in word.split("=", 1)]
    given = [after for before, after in itertools.pairwise(words) if before in names]
    return f": '{given[-1]}'" if given else ""


def _fail(message: str) -> None:
    rank = os.environ.get("RANK", "0")
    who = "sadp-bench" if rank == "0" else f"sadp-bench (rank {rank})"
    print(f"{who}: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)
