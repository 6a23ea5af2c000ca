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
from sadp_bench.gate.command import check
from sadp_bench.spec_options import trains

app = typer.Typer(
    name="sadp-bench",
    help="Benchmark of data-pruning methods for training spiking neural networks.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Option = typer.Option
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
@trains
def run(
    method: Annotated[str, Option(help="Pruning method: a name (`sadp-bench list methods`) or package.module:Class.")],
    ratio: Annotated[float, Option(help="Pruning ratio in [0, 1): the share of example visits to save.")],
    asked: Any = None,
    protocol: Annotated[str | None, Option(help="Equal epochs, or equal updates.", show_default="epochs")] = None,
    evaluate_on: Annotated[str | None, Option(help="test or validation.", show_default="test")] = None,
    evaluate_every: Annotated[int | None, Option(help="Epochs.", show_default="a tenth of the run")] = None,
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
    from sadp_bench import environment, experiment, parts, ranks, terminal
    from sadp_bench.store import Store

    environment.keep_freed_memory()
    with ranks.joined(asked["device"]):
        with ranks.first_goes_ahead():
            own = {"method": method, "ratio": ratio, "protocol": protocol}
            evaluated = {"evaluate_on": evaluate_on, "evaluate_every": evaluate_every}
            spec, material = parts.resolve({**asked, **own, **evaluated}, data)
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
    format: Annotated[str, Option(help="text, markdown, latex, csv, json or html.")] = "text",
    to: Annotated[Path | None, Option(help="Write to a file instead.")] = None,
    check: Annotated[bool, Option("--check", help="Write nothing; fail if the file of --to is out of date.")] = False,
    margin: Annotated[float, Option(help="Points of accuracy that a lossless method may lose.")] = 0.5,
    plots: Annotated[Path | None, Option(help="Draw the plots into this folder.")] = None,
    pictures: Annotated[
        bool, Option("--pictures", help="With --plots or html: the images chosen most and least; reads the data set.")
    ] = False,
    data: Data = None,
) -> None:
    """The table of all runs: accuracy, speed-up against its ceiling, and paired differences, by method and ratio."""
    if check and (to is None or plots is not None):
        raise BadInput("--check writes nothing and reads the file of --to: give --to, and leave --plots out")
    from sadp_bench.report import render, stale
    from sadp_bench.store import atomic, read_all

    if pictures and plots is None and format != "html":
        raise BadInput("--pictures is for --plots and --format html: give one of them")
    found = read_all(folders or [Path("runs")])
    for problem in found.problems:
        print(f"sadp-bench: skipped {problem}", file=sys.stderr)
    records = [record for _, record in found.records]
    width, styled = 120, False
    if to is None:
        from rich.console import Console

        width, styled = Console().width, Console().is_terminal
    from sadp_bench.report.pictures import at_hand

    images = at_hand(data) if pictures else None
    text = render(
        records,
        found.problems,
        format,
        failures=found.failures,
        margin_points=margin,
        width=width,
        styled=styled,
        images=images,
    )
    if check and to is not None:
        if (why := stale(to, text)) is not None:
            print(f"sadp-bench: {why}", file=sys.stderr)
            raise typer.Exit(1)
        return
    if plots is not None:
        from sadp_bench.report.plots import draw

        def tell(reason: str) -> None:
            print(f"sadp-bench: {reason}", file=sys.stderr)

        for path in draw(records, plots, images, tell, failures=found.failures):
            print(f"drew {path}", file=sys.stderr)
    if to is None:
        sys.stdout.write(text)
    else:
        with atomic(to) as file:
            file.write(text.encode())


app.command()(check)


@app.command()
@trains
def speed(
    methods: Annotated[str, Option(help="Methods, separated by commas.")] = "random,sadp",
    ratios: Annotated[str, Option(help="Pruning ratios, separated by commas.")] = "0.3,0.5,0.7",
    rounds: Annotated[int, Option(help="Timed epochs of each arm at most, after one untimed.")] = 30,
    half_width: Annotated[float, Option(help="Stop when no 95 % interval reaches further from its median.")] = 0.01,
    minutes: Annotated[float, Option(help="Stop after about so long.")] = 10,
    plots: Annotated[Path | None, Option(help="Draw the plot into this folder.")] = None,
    asked: Any = None,
    data: Data = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure training speed-ups on a noisy machine: epochs of all arms interleaved, full data against itself as the
    noise floor. The scoring before training is not part of it."""
    from sadp_bench import environment, speed, terminal

    environment.keep_freed_memory()
    wanted = [_number(ratio) for ratio in ratios.split(",")]
    names = [name.strip() for name in methods.split(",")]
    result = speed.measure(asked, names, wanted, rounds, data, terminal.reporter(quiet), half_width, 60 * minutes)
    if as_json:
        print(json.dumps(result))
    else:
        terminal.show(terminal.speed_table(result))
    if plots is not None:
        from sadp_bench.report.speed_plots import draw

        for path in draw(result, plots):
            print(f"drew {path}", file=sys.stderr)


@app.command()
@trains
def study(
    at: Annotated[
        str | None, Option(help="Epochs to stop after, separated by commas.", show_default="1, a quarter, half, all")
    ] = None,
    examples: Annotated[int, Option(help="Training examples to study, a fixed random part.")] = 512,
    asked: Any = None,
    data: Data = None,
    out: Annotated[Path, Option(help="Folder to keep the study in.")] = Path("studies"),
    from_: Annotated[Path | None, Option("--from", help="Show a kept study instead of making one.")] = None,
    plots: Annotated[Path | None, Option(help="Draw the plots into this folder.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Hold every score against exact gradient norms while full data trains: correlation, variance of the draw, cost."""
    from sadp_bench import study_table, studyfile

    if from_ is not None:
        if at or any(value not in (None, {}) for value in asked.values()):
            raise BadInput("--from shows a study as it is kept; leave the options of training out")
        found, path = studyfile.read(from_), from_
    else:
        found, path = _new_study(asked, at, examples, data, out, quiet)
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
