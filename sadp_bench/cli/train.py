"""`sadp-bench run` and `sadp-bench sweep`: they leave records."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from sadp_bench.cli.options import trains
from sadp_bench.cli.shared_options import AsJson, CheckpointSeconds, Data, Quiet


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
    from sadp_bench.cli import run_view
    from sadp_bench.core import distributed
    from sadp_bench.records.store import Store
    from sadp_bench.runs import environment, resolve, run

    environment.keep_freed_memory()
    with distributed.joined(asked["device"]):
        with distributed.first_goes_ahead():
            own = {"method": method, "ratio": ratio, "protocol": protocol}
            evaluated = {"evaluate_on": evaluate_on, "evaluate_every": evaluate_every}
            spec, material = resolve.resolve({**asked, **own, **evaluated}, data)
        outcome = run.run(
            spec,
            material,
            Store(out),
            run_view.reporter(quiet or distributed.rank() > 0),
            reference=not no_reference,
            again=again,
            save_model=save_model,
            checkpoint_seconds=checkpoint_seconds,
            jobs=concurrent_jobs,
        )
    if outcome is None:  # the first process speaks for all
        return
    if as_json:
        print(json.dumps(run_view.as_json(outcome)))
    else:
        run_view.show(run_view.panel(outcome))


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
    from sadp_bench.cli import sweep_view
    from sadp_bench.records.store import Store
    from sadp_bench.sweeps import planning, scheduler
    from sadp_bench.sweeps.executors import Options

    data = data.absolute() if data else None
    store, options = Store(out), Options(jobs, retries, data, checkpoint_seconds, executor, address, gpus_per_run)
    say = (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    plan = planning.make_plan(
        file, store, jobs=jobs, shard=planning.parse_shard(shard), data=data, allow_imports=allow_imports, say=say
    )
    if dry_run:
        states = planning.states(plan, store)
        shown = sweep_view.plan_json if as_json else sweep_view.plan_table
        sweep_view.show(shown(plan, states, jobs))
        return
    if plan.to_do:
        store.check_writable(plan.needed_bytes)
    with redirect_stdout(sys.stderr):  # Ray has messages of its own, which are no results
        started = scheduler.make_executor(plan, store, options)
        watcher = sweep_view.watcher(quiet, plan, jobs)
        standing = scheduler.Scheduler(plan, store, started, watcher, options.retries).run()
    sweep_view.show((sweep_view.closing_json if as_json else sweep_view.closing)(standing, store))
    if standing.failed:
        raise typer.Exit(1)
