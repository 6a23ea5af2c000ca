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

from sadp_bench.cli.options import AsJson, Data, Quiet
from sadp_bench.cli.output import Result
from sadp_bench.core.errors import BadInput
from sadp_bench.gate.findings import Finding
from sadp_bench.records.record import Record

Option = typer.Option


def check(
    reference: Annotated[Path, typer.Argument(help="Folder of the reference records.")],
    against: Annotated[Path | None, Option(help="Compare with the records of this folder; train nothing.")] = None,
    run: Annotated[
        bool, Option("--run", help="Train the reference's runs anew: the default without --against.")
    ] = False,
    out: Annotated[
        Path | None, Option(help="Keep the new records here, and continue from those there.", show_default="nowhere")
    ] = None,
    accuracy_margin: Annotated[
        float | None,
        Option(help="Points that a mean accuracy may fall.", show_default="a band from the reference's seeds"),
    ] = None,
    no_exact: Annotated[
        bool, Option("--no-exact", help="Compare nothing bit for bit, even in the same environment.")
    ] = False,
    speed: Annotated[bool, Option("--speed", help="Measure the efficiency too; a drop is a warning.")] = False,
    junit: Annotated[Path | None, Option(help="Write JUnit XML to this file.", show_default="none")] = None,
    data: Data = None,
    allow_imports: Annotated[
        bool, Option("--allow-imports", help="Allow package.module:Class in the records, whose code then runs.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Result:
    """Compare this code with reference records: counts, selections, accuracy. Exit code 1 if something got worse."""
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
    """Raises BadInput where the folders overlap: records always pass a comparison with themselves."""
    if compared is None:
        return
    first, second = (Path(os.path.realpath(folder)) for folder in (reference, compared))
    if first == second or first in second.parents or second in first.parents:
        raise BadInput(
            f"{compared} and the reference {reference} are one folder, or one lies in the other: name another folder"
        )


@contextmanager
def _new_records(
    records: list[Record], against: Path | None, out: Path | None, data: Path | None, allow_imports: bool, quiet: bool
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yields the folder of the records to compare, trained now without `against`, and by key why runs failed."""
    if against is not None:
        yield against, {}
        return
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
