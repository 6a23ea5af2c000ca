"""`sadp-bench check`."""

from __future__ import annotations

import dataclasses
import json
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

from sadp_bench.core.errors import BadInput
from sadp_bench.gate.findings import Finding
from sadp_bench.records.record import Record

Option = typer.Option


def check(
    reference: Annotated[Path, typer.Argument(help="Folder of the reference records.")],
    against: Annotated[Path | None, Option(help="Take the records of this folder; train nothing.")] = None,
    run: Annotated[
        bool, Option("--run", help="Make the reference's runs anew: the default without --against.")
    ] = False,
    out: Annotated[
        Path | None, Option(help="Keep the new records here, and go on from those there.", show_default="nowhere")
    ] = None,
    accuracy_margin: Annotated[
        float | None,
        Option(help="Points that a mean accuracy may fall.", show_default="a band from the reference's seeds"),
    ] = None,
    no_exact: Annotated[
        bool, Option("--no-exact", help="Compare nothing bit for bit, though the environment seems the same.")
    ] = False,
    speed: Annotated[bool, Option("--speed", help="Measure the efficiency as well; a drop is a warning.")] = False,
    junit: Annotated[Path | None, Option(help="Write JUnit XML to this file.", show_default="none")] = None,
    data: Annotated[
        Path | None, Option(help="Folder of the data sets.", show_default="$SADP_BENCH_DATA, or a cache")
    ] = None,
    allow_imports: Annotated[
        bool, Option("--allow-imports", help="Let the records name package.module:Class.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="One JSON object on stdout, nothing else there.")] = False,
    quiet: Annotated[bool, Option(help="No progress.")] = False,
) -> None:
    """Hold this code to reference records: counts, selections, accuracy. Exit code 1 where something got worse."""
    from sadp_bench.gate import compare, report

    if against is not None and (run or out is not None):
        raise BadInput("--against takes records that are there; leave --run and --out out")
    margin = _margin(accuracy_margin)
    _check_apart(reference, against or out)
    if junit is not None and os.path.exists(junit) and not os.path.isfile(junit):
        raise BadInput(f"can't write {junit}: it is there and no regular file; choose another name")
    begun = time.perf_counter()
    records = compare.read_reference(reference)
    with redirect_stdout(sys.stderr), _new(records, against, out, data, allow_imports, quiet) as (folder, failed):
        nows, failed = compare.read_now(folder, records, failed)
        result = compare.compare(records, nows, failed, margin=margin, exactly=not no_exact)
        if speed:
            timed = _timed(records, data, allow_imports, quiet)
            result = dataclasses.replace(result, findings=[*result.findings, *timed])
    if junit is not None:
        report.write_junit(junit, result, time.perf_counter() - begun)
    kept = against or out
    if as_json:
        print(json.dumps(report.as_json(result, reference, kept), allow_nan=False))
    else:
        report.show(result, reference, kept)
    if not result.passed:
        raise typer.Exit(1)


def _margin(points: float | None) -> float | None:
    if points is not None and not (math.isfinite(points) and 0 <= points <= 100):
        raise BadInput(f"--accuracy-margin is in points of accuracy, from 0 to 100, not {points}")
    return None if points is None else points / 100


def _check_apart(reference: Path, other: Path | None) -> None:
    """Records that are compared with themselves always pass."""
    if other is None:
        return
    one, two = reference.resolve(), other.resolve()
    if one == two or one in two.parents or two in one.parents:
        raise BadInput(
            f"{other} and the reference {reference} are one folder, or one lies in the other: name another one"
        )


@contextmanager
def _new(
    records: list[Record], against: Path | None, out: Path | None, data: Path | None, allow_imports: bool, quiet: bool
) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder of the records to compare, made now unless they are there, and by key why runs failed."""
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
    return timing.findings(records, data, run_view.reporter(quiet))
