"""Shows the bias of draws at a stop of a study, as a table and as a sentence."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table
from rich.text import Text

from sadp_bench.core.text import compact, percent, printable
from sadp_bench.measure.study_file import BOUNDS

LABEL, COLUMN = 19, 12  # characters: largest width of a layer's name, and width of a draw's column
SEEN = 2.0  # standard errors: a larger squared bias is shown as a bias, a smaller one as a limit
BIAS_LEGEND = (
    "\nbias: the length of the difference between the expected gradient of a draw's batches and full data's, in percent of "
    "the length of full data's. It is measured in training mode, at the weights of the stop, and without the noise of "
    "finitely many draws. <: no bias seen; the limit is two standard errors above the estimate. batch, weighted: with the "
    "batch statistics of norm=batch and of norm=weighted. norms' means, variances: the difference of these statistics to "
    "full data's, as root mean square over channels, in percent of a standard deviation and of the variance. SADP and exact "
    "norm: drawn with SADP's own smoothing."
)


def share(part: dict[str, Any], unit: str = "") -> str:
    """Returns a bias in percent: '7.9 ± 0.4', or '< 1.2', two standard errors above the estimate, where none is seen."""
    square, error = part["square"], part["square_error"]
    if square is None or error is None:
        return "–"
    if square > SEEN * error:
        bias = math.sqrt(square)
        return f"{_number(bias)} ± {_number(error / (2 * bias))}{unit}"
    return f"< {_number(math.sqrt(max(0.0, square) + SEEN * error))}{unit}"


def _number(value: float) -> str:
    return f"{100 * value:.{0 if value >= 1 else 1}f}"


def bias_table(bias: dict[str, Any], names: dict[str, str]) -> list[Any]:
    """Returns the table of a stop.

    Args:
        bias: The bias, as `gradient_bias.gradient_bias` returns it.
        names: The labels of the draws.
    """
    rows = bias["rows"]
    norms = {norm for row in rows if "mean" in row for norm in row["mean"]["parts"]}
    layers = [name for name in rows[0]["gradient"]["parts"] if name not in norms]
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 0), header_style="dim")
    table.add_column("", width=min(LABEL, max(map(len, [*layers, "norms' variances"]))), no_wrap=True)
    for row in rows:
        table.add_column(f"{label(row, names)}\n{row['norm']}".rstrip(), width=COLUMN, justify="right", no_wrap=True)
    table.add_row("all layers", *(share(row["gradient"]["whole"]) for row in rows))
    for layer in layers:
        table.add_row(Text(printable(layer)), *(share(row["gradient"]["parts"][layer]) for row in rows))
    table.add_row("cosine, all", *(compact(row["gradient"]["whole"]["cosine"]) for row in rows))
    if norms:
        table.add_row("norms' means", *(share(row["mean"]["whole"]) for row in rows))
        table.add_row("norms' variances", *(share(row["variance"]["whole"]) for row in rows))
    heading = f"bias, %: {percent(bias['keep'], 0)} kept, {bias['rounds']} rounds"
    return [Text(heading, "dim"), table]


def label(row: dict[str, Any], names: dict[str, str]) -> str:
    """Returns the name of a row's draw."""
    draw: str = row["draw"]
    return names.get(draw, printable(draw.rpartition(":")[2]))


def bias_sentence(study: dict[str, Any], names: dict[str, str]) -> str:
    """Returns the bias at the last stop in a sentence: of the method (else of the exact norm), and of uniform sampling."""
    stop = study["stops"][-1]
    uniform, *others = stop["bias"]["rows"]
    shown = [row for row in others if row["draw"] not in BOUNDS] or others or [uniform]
    offs = [
        share(row["gradient"]["whole"], " %") + (f" with norm={row['norm']}" if row["norm"] else "") for row in shown
    ]
    return (
        f"After epoch {stop['epoch']}, with {percent(stop['bias']['keep'], 0)} kept, the expected gradient of a batch by "
        f"{label(shown[0], names)} is off full data's by {' and '.join(offs)} of its length. For uniform sampling it is "
        f"{share(uniform['gradient']['whole'], ' %')}."
    )
