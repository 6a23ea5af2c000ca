"""`sadp-bench claim`: tests a claim of a paper."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sadp_bench.cli.help import OUTPUT, WHAT, WHERE
from sadp_bench.cli.options import COUNT, FOLDER, AllowImports, AsJson, Data, Quiet, option
from sadp_bench.cli.output import Result, say
from sadp_bench.cli.waiting import loading
from sadp_bench.core.errors import BadInput

if TYPE_CHECKING:
    from sadp_bench.claims.claim_file import Claim
    from sadp_bench.records.record import Record

Records = list[tuple[Path, "Record"]]


def claim(
    name: Annotated[
        str | None,
        typer.Argument(help="A claim of the list, or a .toml file. Without it, all claims are listed.", metavar="NAME"),
    ] = None,
    from_: Annotated[
        Path | None, option(WHAT, "Measure the records of this folder; train nothing.", FOLDER, True, "--from")
    ] = None,
    jobs: Annotated[int | None, option(WHERE, "Number of runs at a time.", COUNT, "1")] = None,
    data: Data = None,
    allow_imports: AllowImports = False,
    out: Annotated[Path | None, option(OUTPUT, "Folder for the records, a file for each run.", FOLDER, "runs")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result:
    """Test a claim of a paper: train its runs, measure, give a verdict.

    The exit code is 0 if the claim held, else 1.

    Examples:
      sadp-bench claim
      sadp-bench claim hardest-subset --jobs 2
    """
    from sadp_bench.claims import claim_file
    from sadp_bench.claims.verdict import Verdict
    from sadp_bench.cli import claim_view

    if from_ is not None and not (out is None and jobs is None):
        raise BadInput("--from reads existing records; leave --out and --jobs out")
    if name is None:
        if from_ is not None or out is not None or jobs is not None:
            raise BadInput("name a claim for --from, --out or --jobs; `sadp-bench claim` lists the claims")
        claims = [claim_file.read_claim(path) for path in claim_file.catalog().values()]
        return Result([claim.to_json() for claim in claims] if as_json else lambda: claim_view.print_claims(claims))
    found = claim_file.find(name)
    with loading(quiet):
        from sadp_bench.claims.measure import measure, untested  # imports torch, which the list of claims does not need

    if not found.testable:
        result = untested(found)
    else:
        records, where = _records(
            found, from_, out or Path("runs"), 1 if jobs is None else jobs, data, allow_imports, quiet
        )
        result = measure(found, records, where, allow_imports=allow_imports)
    shown = result.to_json() if as_json else lambda: claim_view.print_result(result)
    return Result(shown, int(result.verdict is not Verdict.HELD))


def _records(
    claim: Claim, from_: Path | None, out: Path, jobs: int, data: Path | None, allow_imports: bool, quiet: bool
) -> tuple[Records, Path]:
    """Returns records with their paths, and their folder. They come from `from_`, or from runs that are trained now."""
    from sadp_bench.records.store import read_all

    if from_ is None:
        return _trained(claim, out, jobs, data, allow_imports, quiet), out
    found = read_all([from_])
    for problem in found.problems:
        say(f"sadp-bench: skipped {problem}")
    return found.records, from_


def _trained(claim: Claim, out: Path, jobs: int, data: Path | None, allow_imports: bool, quiet: bool) -> Records:
    """Trains the runs that have no record yet, and returns the records of all."""
    from sadp_bench.claims.runs import wants
    from sadp_bench.cli.train import carried_out
    from sadp_bench.records.store import Store
    from sadp_bench.sweeps import planning
    from sadp_bench.sweeps.executors import Options

    wants(claim, allow_imports=allow_imports)  # refuses metrics without runs before anything trains
    store, options = Store(out), Options(jobs, data=data.absolute() if data else None)
    message = (lambda line: None) if quiet else say
    make = partial(
        planning.make_plan,
        claim.path,
        store,
        jobs=jobs,
        data=options.data,
        allow_imports=allow_imports,
        message=message,
    )
    ended = carried_out(make(), make, store, options, quiet)
    if ended.failed or ended.without_settings:
        first = next(iter(ended.failed.values()), None)
        why = f": {first.reason}" if first else ", because no point of the search has all its trials done"
        failed = len(ended.failed) or len(ended.without_settings)
        raise BadInput(f"{failed} of the claim's runs failed{why}; `sadp-bench sweep {claim.path}` shows all of them")
    found = [(store.path(spec), store.find(spec)) for spec in ended.plan.runs]
    return [(path, record) for path, record in found if record is not None]
