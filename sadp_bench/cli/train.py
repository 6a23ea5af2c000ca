"""`sadp-bench run` and `sadp-bench sweep`: the commands that write records."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sadp_bench.cli.help import OUTPUT, WHAT, WHERE
from sadp_bench.cli.options import (
    COUNT,
    NAME,
    NUMBER,
    AllowImports,
    AsJson,
    CheckpointSeconds,
    Data,
    Log,
    Minutes,
    Quiet,
    Records,
    choice,
    completing,
    option,
    settings_of,
)
from sadp_bench.cli.output import Result, say
from sadp_bench.cli.spec_options import listed, registered, with_spec_options
from sadp_bench.cli.waiting import loading
from sadp_bench.core.errors import BadInput
from sadp_bench.records import fields
from sadp_bench.records.fields import CHOICES

if TYPE_CHECKING:
    from sadp_bench.records.store import Store
    from sadp_bench.sweeps.executors import Options
    from sadp_bench.sweeps.outcome import Outcome
    from sadp_bench.sweeps.planning import Plan
    from sadp_bench.sweeps.sweep_file import Source

LISTED = ("method", "ratio", "seed")  # options of a run that may be lists


def recipe_names() -> list[str]:
    """Returns the names of the recipes."""
    from sadp_bench.claims.recipe import recipes

    return [*recipes()]


@with_spec_options
def run(
    method: Annotated[
        str | None,
        option(
            WHAT,
            "Data-pruning method: a name (`sadp-bench list methods`) or package.module:Class. Several methods, ratios or "
            "seeds, with commas between them, make a sweep. Required without --recipe.",
            NAME,
            autocompletion=registered("method"),
        ),
    ] = None,
    ratio: Annotated[
        Any,
        option(
            WHAT,
            "Share of the example visits to save: 0 is full data, 0.3 saves 30 %. Required without --recipe.",
            NUMBER,
            parser=listed(float),
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        option(
            WHAT,
            "Take the settings of a paper's experiment: a name (`sadp-bench list recipes`) or a .toml file. Other options "
            "replace its settings.",
            NAME,
            autocompletion=completing(recipe_names),
        ),
    ] = None,
    request: Any = None,
    protocol: Annotated[
        str | None,
        choice(
            WHAT,
            "What a pruned run has in common with full data: the number of epochs (it is then shorter), or of updates (it "
            "is then as long).",
            CHOICES["protocol"],
            "epochs",
        ),
    ] = None,
    no_reference: Annotated[
        bool,
        option(WHAT, "Do not train the full-data reference. Then there is no speed-up.", None, True, "--no-reference"),
    ] = False,
    again: Annotated[bool, option(WHAT, "Train even where there is a record already.", None, True, "--again")] = False,
    evaluate_on: Annotated[
        str | None,
        choice(
            OUTPUT,
            "Images that measure the accuracy: the test set, or a held-out tenth of the training set.",
            CHOICES["evaluate_on"],
            "test",
        ),
    ] = None,
    evaluate_every: Annotated[
        int | None, option(OUTPUT, "Epochs from one evaluation to the next. Evaluation is not charged.", COUNT, "1")
    ] = None,
    out: Records = Path("runs"),
    save_model: Annotated[
        bool, option(OUTPUT, "Keep the trained weights beside the record.", None, True, "--save-model")
    ] = False,
    save_scores: Annotated[
        bool,
        option(
            OUTPUT,
            "Keep the method's scores of the examples beside the record. `--method subset` trains on them.",
            None,
            True,
            "--save-scores",
        ),
    ] = False,
    log: Log = None,
    data: Data = None,
    jobs: Annotated[int, option(WHERE, "Number of runs at a time, for lists.", COUNT)] = 1,
    concurrent_jobs: Annotated[
        int,
        option(WHERE, "Number of runs that share this machine now. It is only written to the record.", COUNT),
    ] = 1,
    minutes: Minutes = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result | None:
    """Train a method and its full-data reference; show what it saves.

    The reference is the same run on all data. It trains first, unless it has a record. Each run ends in a record, and
    the same command continues a run that was interrupted.

    Examples:
      sadp-bench run --method sadp --ratio 0.3
      sadp-bench run --method random,sadp --ratio 0.3,0.5 --seed 0,1,2 --jobs 2
      sadp-bench run --method sadp --ratio 0.5 --set smoothing=0.3 --set memory=0
    """
    with loading(quiet):
        from sadp_bench.cli import run_view
        from sadp_bench.core import distributed
        from sadp_bench.core.time_limit import TimeLimit
        from sadp_bench.records.store import Store
        from sadp_bench.runs import environment, resolve, run
        from sadp_bench.sweeps.executors import Options
        from sadp_bench.training.loggers.base import make_loggers

    limit = TimeLimit(minutes)
    environment.keep_freed_memory()
    request |= {"method": method, "ratio": ratio, "protocol": protocol}
    request |= {"evaluate_on": evaluate_on, "evaluate_every": evaluate_every}
    note = None
    if recipe is not None:
        request, note = _by_recipe(recipe, request)
    for name, what in (("method", "`sadp-bench list methods` names them"), ("ratio", "0 for full data")):
        if request.get(name) is None:
            raise BadInput(f"Missing option '--{name}': {what}; a --recipe may have it (see sadp-bench run -h)")
    if isinstance(request["method"], str) and "," in request["method"]:
        request["method"] = request["method"].split(",")
    if several := [fields.option(name) for name in LISTED if isinstance(request[name], list)]:
        alone = {"--no-reference": no_reference, "--again": again}
        alone |= {"--save-model": save_model, "--save-scores": save_scores}
        if refused := [name for name, given in alone.items() if given]:
            raise BadInput(
                f"{refused[0]} is for one run, and {several[0]} has several; give one value, or leave it out"
            )
        if note and not quiet:
            say(note)
        options = Options(
            jobs, data=data.absolute() if data else None, checkpoint_seconds=checkpoint_seconds, limit=limit, log=log
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
            save_scores=save_scores,
            checkpoint_seconds=checkpoint_seconds,
            jobs=concurrent_jobs,
            limit=limit,
            loggers=make_loggers(log, out) if distributed.rank() == 0 else (),
        )
    if outcome is None:  # only the first of several processes prints
        return None
    return Result(run_view.run_json(outcome) if as_json else lambda: run_view.print_result(run_view.panel(outcome)))


def _by_recipe(name: str, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Returns the request from a recipe and the command line, and a line that names the recipe and the changes."""
    from sadp_bench.claims.recipe import filled, find_recipe

    recipe = find_recipe(name)
    request, changed = filled(recipe, given)
    about = f"; changed here: {', '.join(changed)}" if changed else ""
    line = f"recipe {recipe.claim.name}: {recipe.claim.source} `sadp-bench list recipes` shows what differs{about}"
    return request, line


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep file in TOML (docs/sweeps.md).", metavar="FILE")],
    dry_run: Annotated[
        bool, option(WHAT, "Show the runs and their expected time; train nothing.", None, True, "--dry-run")
    ] = False,
    shard: Annotated[
        str | None,
        option(WHAT, "Train the i-th of n parts, such as 1/4 on the first of four machines.", "I/N", "all"),
    ] = None,
    retries: Annotated[int, option(WHAT, "Further tries of a run that crashed.", COUNT)] = 1,
    jobs: Annotated[
        int, option(WHERE, "Number of runs at a time. Each gets its share of the cores, or a GPU.", COUNT)
    ] = 1,
    executor: Annotated[
        str,
        choice(WHERE, "Where runs train: on this machine, or on a cluster of Ray or Slurm.", ("local", "ray", "slurm")),
    ] = "local",
    address: Annotated[
        str | None, option(WHERE, "Address of the Ray cluster.", "ADDRESS", "Ray on this machine")
    ] = None,
    gpus_per_run: Annotated[
        float | None, option(WHERE, "GPUs of a run with Ray; 0.25: four runs share one.", NUMBER, "1 on cuda")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        option(
            WHERE,
            "A setting of all Slurm jobs, such as partition=gpu or timeout_min=600; jobs=N limits the jobs at a time. May be "
            "repeated.",
            "KEY=VALUE",
            "none",
        ),
    ] = None,
    data: Data = None,
    minutes: Minutes = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    allow_imports: AllowImports = False,
    out: Records = Path("runs"),
    log: Log = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result:
    """Train all runs of a sweep file that have no record yet.

    References come first, and each run has its own process. The same command continues a sweep that was interrupted.

    Examples:
      sadp-bench sweep experiments/smoke.toml --dry-run
      sadp-bench sweep experiments/smoke.toml --jobs 2
    """
    with loading(quiet):
        from sadp_bench.core.time_limit import TimeLimit
        from sadp_bench.records.store import Store
        from sadp_bench.sweeps.executors import Options

    limit = TimeLimit(minutes)
    data, pairs = data.absolute() if data else None, settings_of(slurm, "--slurm")
    options = Options(jobs, retries, data, checkpoint_seconds, executor, address, gpus_per_run, limit, log, pairs)
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
    """Trains the runs of a sweep, or shows its plan. Returns the plan, or the table of the runs and the closing summary."""
    with loading(quiet):
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
    """Trains the unfinished runs of a plan, with the progress on stderr.

    Args:
        plan: The plan.
        make: Returns the plan anew, after the trials of its search.
        store: The store of the records.
        options: The sweep's options.
        quiet: Whether to show no progress.
    """
    from sadp_bench.cli import sweep_view
    from sadp_bench.sweeps import outcome, scheduler

    if plan.is_to_do:
        store.check_writable(plan.whole_bytes)

    def schedule(plan: Plan, store: Store) -> scheduler.Standing:
        with redirect_stdout(sys.stderr):  # Ray prints messages, which must not mix with results
            started = scheduler.make_executor(plan, store, options)
            watcher = sweep_view.watcher(quiet, plan)
            return scheduler.Scheduler(plan, store, started, watcher, options.retries, options.limit).run()

    return outcome.carry_out(plan, store, make, schedule)
