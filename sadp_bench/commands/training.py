"""`sadp-bench run` and `sadp-bench sweep`: they leave records."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from sadp_bench.commands.options import AsJson, CheckpointSeconds, Data, Quiet
from sadp_bench.spec_options import trains


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
