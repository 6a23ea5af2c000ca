"""`sadp-bench run` and `sadp-bench sweep`: the commands that write records."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from sadp_bench.cli.options import (
    AllowImports,
    AsJson,
    CheckpointSeconds,
    Data,
    Minutes,
    Quiet,
    Records,
    listed,
    with_spec_options,
)
from sadp_bench.cli.output import Result, say
from sadp_bench.core.errors import BadInput
from sadp_bench.records.fields import option

if TYPE_CHECKING:
    from sadp_bench.records.store import Store
    from sadp_bench.sweeps.executors import Options
    from sadp_bench.sweeps.outcome import Outcome
    from sadp_bench.sweeps.planning import Plan
    from sadp_bench.sweeps.sweep_file import Source

LISTED = ("method", "ratio", "seed")  # options of a run that may be lists


@with_spec_options
def run(
    method: Annotated[
        str | None,
        Option(
            help="Pruning method: a name (`sadp-bench list methods`) or package.module:Class. Lists of methods, ratios and "
            "seeds, such as 0.3,0.5, make a sweep.",
            show_default="the recipe's",
        ),
    ] = None,
    ratio: Annotated[
        Any,
        Option(
            parser=listed(float),
            metavar="<float>",
            help="Pruning ratio in [0, 1): the share of example visits to save.",
            show_default="the recipe's",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        Option(
            help="Settings of a paper's experiment: a name (`sadp-bench list recipes`) or a .toml file. Other options "
            "take the place of its own.",
            show_default="none",
        ),
    ] = None,
    request: Any = None,
    protocol: Annotated[
        str | None, Option(help="epochs or updates: what a run has in common with full data.", show_default="epochs")
    ] = None,
    evaluate_on: Annotated[str | None, Option(help="test or validation.", show_default="test")] = None,
    evaluate_every: Annotated[
        int | None, Option(help="Epochs between evaluations.", show_default="a tenth of the run")
    ] = None,
    out: Records = Path("runs"),
    data: Data = None,
    no_reference: Annotated[bool, Option("--no-reference", help="Train no full-data reference.")] = False,
    again: Annotated[bool, Option("--again", help="Train also runs that have a record.")] = False,
    save_model: Annotated[bool, Option("--save-model", help="Keep the weights beside the record.")] = False,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    minutes: Minutes = None,
    concurrent_jobs: Annotated[
        int, Option(help="Number of runs that share this machine now; the record contains it.")
    ] = 1,
    jobs: Annotated[int, Option(help="Number of runs of lists that go on at a time.")] = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result | None:
    """Train one method after its paired full-data reference; measure what it saves and what it costs."""
    from sadp_bench.cli import run_view
    from sadp_bench.core import distributed
    from sadp_bench.core.time_limit import TimeLimit
    from sadp_bench.records.store import Store
    from sadp_bench.runs import environment, resolve, run
    from sadp_bench.sweeps.executors import Options

    limit = TimeLimit(minutes)
    environment.keep_freed_memory()
    request |= {"method": method, "ratio": ratio, "protocol": protocol}
    request |= {"evaluate_on": evaluate_on, "evaluate_every": evaluate_every}
    note = None
    if recipe is not None:
        request, note = _by_recipe(recipe, request)
    for name, what in (("method", "`sadp-bench list methods` names them"), ("ratio", "0 for full data")):
        if request.get(name) is None:
            raise BadInput(f"Missing option '--{name}': {what}; a --recipe may have it")
    if isinstance(request["method"], str) and "," in request["method"]:
        request["method"] = request["method"].split(",")
    if several := [option(name) for name in LISTED if isinstance(request[name], list)]:
        alone = {"--no-reference": no_reference, "--again": again, "--save-model": save_model}
        if refused := [name for name, given in alone.items() if given]:
            raise BadInput(
                f"{refused[0]} is for one run, and {several[0]} has several; give one value, or leave it out"
            )
        if note and not quiet:
            say(note)
        options = Options(
            jobs, data=data.absolute() if data else None, checkpoint_seconds=checkpoint_seconds, limit=limit
        )
        common = {name: value for name, value in request.items() if value is not None}
        return _swept({"common": common, "sweep": [{}]}, Store(out), options, as_json, quiet, allow_imports=True)
    if jobs != 1:
        raise BadInput(f"--jobs {jobs} is for lists of methods, ratios or seeds; leave it out of one run")
    with distributed.process_group(request.get("device")):
        with distributed.first_goes_ahead():
            spec, material = resolve.resolve(request, data)
        if note and not quiet and distributed.rank() == 0:
            say(note)
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
            limit=limit,
        )
    if outcome is None:  # Only the first of several processes prints.
        return None
    return Result(run_view.run_json(outcome) if as_json else lambda: run_view.print_result(run_view.panel(outcome)))


def _by_recipe(name: str, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Returns the request by a recipe and what the command line gives, and a line that names the recipe and the changes."""
    from sadp_bench.claims.recipe import filled, find_recipe

    recipe = find_recipe(name)
    request, changed = filled(recipe, given)
    about = f"; changed here: {', '.join(changed)}" if changed else ""
    line = f"recipe {recipe.claim.name}: {recipe.claim.source} `sadp-bench list recipes` shows what differs{about}"
    return request, line


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep file in TOML: see docs/sweeps.md.")],
    out: Records = Path("runs"),
    jobs: Annotated[
        int, Option(help="Number of runs at a time on a machine; each gets its share of the cores, or a GPU.")
    ] = 1,
    shard: Annotated[str | None, Option(help="i/n: train the i-th of n parts.", show_default="all")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the runs and their expected time; train none.")] = False,
    executor: Annotated[str, Option(help="local, or ray: tasks of a Ray cluster.")] = "local",
    retries: Annotated[int, Option(help="Number of further tries of a run that crashed.")] = 1,
    data: Data = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    minutes: Minutes = None,
    address: Annotated[
        str | None, Option(help="Address of the Ray cluster.", show_default="Ray on this machine")
    ] = None,
    gpus_per_run: Annotated[
        float | None, Option(help="GPUs of a run on cuda with Ray; 0.25: four runs share a GPU.", show_default="1")
    ] = None,
    allow_imports: AllowImports = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result:
    """Train all runs of a sweep file that have no record yet, references first, each in its own process."""
    from sadp_bench.core.time_limit import TimeLimit
    from sadp_bench.records.store import Store
    from sadp_bench.sweeps.executors import Options

    limit = TimeLimit(minutes)
    data = data.absolute() if data else None
    options = Options(jobs, retries, data, checkpoint_seconds, executor, address, gpus_per_run, limit)
    return _swept(file, Store(out), options, as_json, quiet, shard, dry_run, allow_imports)


def _swept(
    source: Source,
    store: Store,
    options: Options,
    as_json: bool,
    quiet: bool,
    shard: str | None = None,
    dry_run: bool = False,
    allow_imports: bool = False,
) -> Result:
    """Trains the runs of a sweep, or shows them; returns the closing summary behind the table of the runs."""
    from sadp_bench.cli import sweep_view
    from sadp_bench.sweeps import planning

    jobs, limit = options.jobs, options.limit
    message = (lambda line: None) if quiet else say
    make = partial(
        planning.make_plan,
        source,
        store,
        jobs=jobs,
        shard=planning.parse_shard(shard),
        data=options.data,
        allow_imports=allow_imports,
        message=message,
    )
    plan = make()
    if dry_run:
        if as_json:
            return Result(sweep_view.plan_json(plan, store, jobs))
        return Result(lambda: sweep_view.print_sweep(sweep_view.plan_table(plan, store, jobs)))
    ended = carried_out(plan, make, store, options, quiet)
    code, why = (1 if ended.failed or ended.without_settings else 0), ""
    if ended.left:
        stopped = limit.error(f"{ended.left} of {sweep_view.num_runs(ended)} runs were still to do")
        code, why = stopped.code, str(stopped)
    if as_json:
        return Result(sweep_view.closing_json(ended, store), code, why)
    return Result(partial(sweep_view.print_closing, ended, store), code, why)


def carried_out(plan: Plan, make: Callable[[], Plan], store: Store, options: Options, quiet: bool) -> Outcome:
    """Trains what is to do of a plan, with the progress on stderr.

    Args:
        plan: The plan.
        make: Makes it anew, once the trials of its search are done.
        store: Where the records go.
        options: How runs are carried out.
        quiet: Whether no progress is shown.
    """
    from sadp_bench.cli import sweep_view
    from sadp_bench.sweeps import outcome, scheduler

    if plan.is_to_do:
        store.check_writable(plan.whole_bytes)

    def schedule(plan: Plan, store: Store) -> scheduler.Standing:
        with redirect_stdout(sys.stderr):  # Ray prints messages, which are no results.
            started = scheduler.make_executor(plan, store, options)
            watcher = sweep_view.watcher(quiet, plan)
            return scheduler.Scheduler(plan, store, started, watcher, options.retries, options.limit).run()

    return outcome.carry_out(plan, store, make, schedule)
