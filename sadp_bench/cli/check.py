"""`sadp-bench check`: the gate of continuous integration."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from sadp_bench.cli.help import OUTPUT, WHERE
from sadp_bench.cli.options import FILE, FOLDER, NUMBER, AsJson, Data, Quiet, option
from sadp_bench.cli.output import Result
from sadp_bench.cli.waiting import loading
from sadp_bench.core.errors import BadInput
from sadp_bench.gate.findings import Finding
from sadp_bench.records.record import Record

COMPARED = "What to compare"


def check(
    reference: Annotated[Path, typer.Argument(help="Folder of the reference records.", metavar="DIR")],
    against: Annotated[
        Path | None, option(COMPARED, "Compare with the records of this folder; train nothing.", FOLDER)
    ] = None,
    run: Annotated[
        bool, option(COMPARED, "Train the reference's runs anew: the default without --against.", None, True, "--run")
    ] = False,
    accuracy_margin: Annotated[
        float | None,
        option(
            COMPARED,
            "Points by which a mean accuracy may be below the reference's.",
            NUMBER,
            "a band by the reference's seeds",
        ),
    ] = None,
    no_exact: Annotated[
        bool,
        option(COMPARED, "Compare nothing bit for bit, even in the same environment.", None, True, "--no-exact"),
    ] = False,
    speed: Annotated[
        bool, option(COMPARED, "Also measure the efficiency; a drop is a warning.", None, True, "--speed")
    ] = False,
    data: Data = None,
    allow_imports: Annotated[
        bool,
        option(
            WHERE,
            "Allow package.module:Class in the records. Its code then runs: use it only for records that you trust.",
            None,
            True,
            "--allow-imports",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        option(OUTPUT, "Keep the new records here. Existing ones are not trained again.", FOLDER, "nowhere"),
    ] = None,
    junit: Annotated[Path | None, option(OUTPUT, "Also write the result as JUnit XML to this file.", FILE)] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result:
    """Compare this code with reference records, as a gate of CI.

    It trains the runs of the reference anew, and compares counts, selections and accuracy. The exit code is 1 if
    something got worse.

    Examples:
      sadp-bench check results/ci
      sadp-bench check results/ci --against runs
    """
    with loading(quiet):
        from sadp_bench.gate import compare, report

    if against is not None and (run or out is not None):
        raise BadInput("--against compares with existing records; leave --run and --out out")
    margin = _margin(accuracy_margin)
    _check_apart(reference, against or out)
    if junit is not None and os.path.exists(junit) and not os.path.isfile(junit):
        raise BadInput(f"can't write {junit}: it exists and is no regular file; choose another name")
    start = time.perf_counter()
    records = compare.read_reference(reference)
    with (
        redirect_stdout(sys.stderr),
        _new_records(records, against, out, data, allow_imports, quiet) as (folder, failed),
    ):
        nows, failed = compare.read_now(folder, records, failed)
        result = compare.compare_runs(records, nows, failed, margin=margin, exact=not no_exact)
        if speed:
            timed = _timed(records, data, allow_imports, quiet)
            result = dataclasses.replace(result, findings=[*result.findings, *timed])
    if junit is not None:
        report.write_junit(junit, result, time.perf_counter() - start)
    kept = against or out
    shown = (
        report.check_json(result, reference, kept) if as_json else lambda: report.print_check(result, reference, kept)
    )
    return Result(shown, 0 if result.passed else 1)


def _margin(points: float | None) -> float | None:
    if points is not None and not (math.isfinite(points) and 0 <= points <= 100):
        raise BadInput(f"--accuracy-margin is in points of accuracy, from 0 to 100, not {points}")
    return None if points is None else points / 100


def _check_apart(reference: Path, compared: Path | None) -> None:
    """Raises BadInput where the folders overlap, because records always pass a comparison with themselves."""
    if compared is None:
        return
    first, second = (Path(os.path.realpath(folder)) for folder in (reference, compared))
    if first == second or first in second.parents or second in first.parents:
        raise BadInput(
            f"{compared} and the reference {reference} are the same folder, or one contains the other: name another folder"
        )


@contextmanager
def _new_records(
    records: list[Record], against: Path | None, out: Path | None, data: Path | None, allow_imports: bool, quiet: bool
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yields the folder of the records to compare, and the reasons of failures by key. Trains them without `against`."""
    if against is not None:
        yield against, {}
        return
    with loading(quiet):
        from sadp_bench.cli import run_view
        from sadp_bench.gate.rerun import rerun
        from sadp_bench.records.store import Store
        from sadp_bench.runs import environment

    environment.keep_freed_memory()
    with TemporaryDirectory(prefix="sadp-bench-check-") as temporary:
        folder = out or Path(temporary)
        yield folder, rerun(records, Store(folder), data, run_view.reporter(quiet), allow_imports=allow_imports)


def _timed(records: list[Record], data: Path | None, allow_imports: bool, quiet: bool) -> list[Finding]:
    from sadp_bench.cli import run_view
    from sadp_bench.gate import timing
    from sadp_bench.gate.rerun import check_trusted
    from sadp_bench.runs import environment

    environment.keep_freed_memory()
    check_trusted(records, allow_imports)
    return timing.timing_findings(records, data, run_view.reporter(quiet))
