"""`sadp-bench export`: scores, visits, masks and weights of a run, as files for other programs and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sadp_bench.cli.options import FILE, AsJson, Data, option
from sadp_bench.cli.output import Result
from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable

PARTS = "What to export"  # panel of the help


def export(
    run: Annotated[Path, typer.Argument(help="The file of a run's record (.json).", metavar="RECORD")],
    scores: Annotated[
        Path | None, option(PARTS, "Write the scores of the examples to this .npz file, for --method subset.", FILE)
    ] = None,
    visits: Annotated[
        Path | None, option(PARTS, "Write the number of visits of each example to this .csv file.", FILE)
    ] = None,
    masks: Annotated[
        Path | None,
        option(
            PARTS,
            "Write the masks of the visited examples and of the existing connections to this .npz file, for --method subset "
            "and --sparsity fixed.",
            FILE,
        ),
    ] = None,
    weights: Annotated[Path | None, option(PARTS, "Write the trained network to this .pt file.", FILE)] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> Result:
    """Export scores, visits, masks or weights of a run.

    Name at least one part. The files must not exist. docs/exports.md has their layouts.

    Examples:
      sadp-bench export runs/RECORD.json --scores s.npz --visits v.csv
      sadp-bench run --method subset --ratio 0.5 --set file=s.npz
    """
    parts = {"scores": scores, "visits": visits, "masks": masks, "weights": weights}
    wanted = {name: to for name, to in parts.items() if to is not None}
    if not wanted:
        raise BadInput("name at least one of --scores, --visits, --masks and --weights, each with a file to write")
    from sadp_bench.records.store import read
    from sadp_bench.runs import exporting

    try:
        record = read(run)
    except BadInput as error:
        raise BadInput(f"{run}: {error}") from None
    exporting.export(run, record, wanted, data)
    if as_json:
        return Result({name: str(to) for name, to in wanted.items()})
    lines = [printable(f"{name} -> {to}") for name, to in wanted.items()]
    if hint := _hint(record.spec.ratio, record.spec.density, wanted):
        lines.append(hint)
    return Result(lambda: print("\n".join(lines)))


def _hint(ratio: float, density: float, wanted: dict[str, Path]) -> str:
    """Returns a command that uses the export; "" where there is none."""
    run = "train with it: sadp-bench run --method"
    if "scores" in wanted:
        return printable(f"{run} subset --ratio {ratio or 0.5:g} --set file={wanted['scores']}")
    if "masks" in wanted and density < 1:
        words = f"--sparsity fixed --density {density:g} --set sparsity.file={wanted['masks']}"
        return printable(f"{run} full --ratio 0 {words}")
    if "masks" in wanted and ratio:
        return printable(f"{run} subset --ratio {ratio:g} --set file={wanted['masks']}")
    return ""
