"""What a person sees of a study: the scores at each stop, then what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sadp_bench.measure.study_file import BOUNDS, KEEPS, LABELS, RIVALS, SOURCES

KEEP = [f"{keep:g}" for keep in KEEPS]
MIDDLE = KEEP[len(KEEP) // 2]
NAME, NARROW, WIDE, GAP = 11, 5, 6, 2  # characters
COLUMNS = 104
# A column: its head, its width, and where its number stands in a score's table: source, measure, share kept.
Column = tuple[str, int, tuple[str, ...]]
Columns = list[tuple[str, list[Column]]]  # in groups, with what stands over each


def _kept(source: str, over: str) -> list[Column]:
    return [(keep, NARROW, (source, over, keep)) for keep in KEEP]


NOW: Columns = [
    ("", [("rank", WIDE, ("frozen", "spearman")), ("linear", WIDE, ("frozen", "pearson"))]),
    ("V / uniform", _kept("frozen", "over_uniform")),
    ("V / optimum", _kept("frozen", "over_optimum")),
    ("V / optimum", [(f"train {MIDDLE}", 2 * NARROW, ("training", "over_optimum", MIDDLE))]),
]
COLLECTED: Columns = [
    ("", [("rank", WIDE, ("age 0", "spearman")), ("linear", WIDE, ("age 0", "pearson"))]),
    ("V / uniform", _kept("age 0", "over_uniform")),
    ("V / optimum", _kept("age 0", "over_optimum")),
    (
        f"V / uniform at {MIDDLE}",
        [(source, NARROW, (source, "over_uniform", MIDDLE)) for source in SOURCES[3:]],
    ),
]
LEGEND = (
    "g: the exact gradient norm over all parameters. rank, linear: Spearman's and Pearson's correlation\n"
    "with g. V: the variance, sum g²(1/π − 1), of drawing in proportion to the score, by the share kept: over\n"
    "that of drawing uniformly, and over that of drawing in proportion to g. Bold: the least of its column.\n"
    "now: of the same weights, statistics and inputs as g; train: in training mode. as collected: by the\n"
    "steps of the epoch just over, augmented; age a: a epochs earlier; held against the norms that the coming\n"
    "epoch will meet (root mean square over some augmented views). Every score has {smoothing:g} of uniform\n"
    "sampling mixed in. errors: layers with the batch's mean in place of each example's spikes. SADP: layers\n"
    "with memory."
)


def study_table(study: dict[str, Any], path: Path | None = None) -> Group:
    """All that a study measured. path: where it was kept."""
    spec = study["spec"]
    title = (
        f"{spec['dataset']} · {spec['backbone']} · {study['examples']:,} of {study['num_examples']:,} examples · batch "
        f"{spec['batch_size']} · seed {spec['seed']} · {spec['device']}, threads {spec['threads']}"
    )
    parts: list[Any] = [Text(title, "bold"), ""]
    for stop in study["stops"]:
        parts += [*_stop(stop, spec["epochs"]), ""]
    parts += [_cost(study["cost"]), "", Text(LEGEND.format(smoothing=study["smoothing"]), "dim")]
    return Group(*parts, *([Text(f"\nstudy  {path}", "dim", overflow="fold")] if path is not None else []))


def show(study: dict[str, Any], path: Path | None = None) -> None:
    """On a terminal as wide as it is, elsewhere as wide as the table."""
    console = Console()
    (console if console.is_terminal else Console(width=COLUMNS)).print(study_table(study, path))


def _stop(stop: dict[str, Any], epochs: int) -> list[Any]:
    heading = (
        f"after epoch {stop['epoch']} of {epochs} · loss {stop['train_loss']:.3f} · mean g {number(stop['norm_mean'])}, "
        f"varying by {percent(stop['norm_cv'])} over examples"
    )
    lines = [Padding(Text(line, "dim"), (0, 0, 0, NAME + 1)) for line in _lines(stop)]
    tables = [*_table("now", NOW, stop["scores"]), *_table("as collected", COLLECTED, stop["scores"])]
    return [Text(heading, "bold"), *tables, *lines]


def _table(title: str, columns: Columns, scores: dict[str, Any]) -> list[Any]:
    return [_group_heads(title, columns), _scores(columns, scores)]


def _group_heads(title: str, columns: Columns) -> Text:
    line = " " * NAME
    for name, own in columns:
        line += " " * (GAP if name else 0) + _over(name, sum(width + 1 for _, width, _ in own))
    return Text((title + line[len(title) :]).rstrip(), "dim")


def _over(name: str, width: int) -> str:
    """' ── V / optimum ──', right above its columns."""
    return " " + f" {name} ".center(width - 1, "─") if name else " " * width


def _scores(columns: Columns, scores: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 0), header_style="dim")
    table.add_column("", width=NAME, no_wrap=True)
    for name, own in columns:
        for place, (head, width, _) in enumerate(own):
            table.add_column(head, width=width + 1 + (GAP if name and place == 0 else 0), justify="right", no_wrap=True)
    wanted = [where for _, own in columns for _, _, where in own]
    rows = {name: [_found(scores[name], where) for where in wanted] for name in LABELS if name in scores}
    rivals = [row for name, row in rows.items() if name in RIVALS]
    least = [min((v for v in column if v is not None), default=None) for column in zip(*rivals, strict=True)]
    for name, row in rows.items():
        if all(value is None for value in row):
            continue
        best = [place > 1 and name in RIVALS and value == least[place] for place, value in enumerate(row)]
        cells = [Text(number(value), "bold" if bold else "") for value, bold in zip(row, best, strict=True)]
        table.add_row(Text(LABELS[name]), *cells, style="dim" if name in BOUNDS else "")
    return table


def _found(sources: dict[str, Any], where: tuple[str, ...]) -> float | None:
    found: Any = sources
    for name in where:
        found = found.get(name) if found is not None else None
    return found


def _lines(stop: dict[str, Any]) -> list[str]:
    lines, lag = [], stop["lag"]
    if lag is not None:
        over = "  ".join(number(lag["over_optimum"][keep]) for keep in KEEP)
        lines.append(
            f"lagging statistics: g under the running ones has rank {number(lag['spearman'])}, V / optimum {over}"
        )
    first, *others = stop["input_squares_cv"] or [None]
    then = " ".join("–" if value is None else f"{100 * value:.0f}" for value in others)
    lines.append(
        f"vary over examples: spikes by {percent(stop['spikes_cv'])}, input squares by {percent(first)} in the first layer"
        + (f", then {then} %" if then else "")
    )
    bound_ratio = " ".join("–" if value is None else f"{value:.2g}" for value in stop["bound_ratio"]["frozen"])
    return [*lines, f"k, exact over middle step's bound, by layer: {bound_ratio}"]


def _cost(cost: dict[str, Any]) -> Group:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", width=NAME, no_wrap=True)
    table.add_column("adds to a training step", justify="right", no_wrap=True)
    for name, share in cost["scores"].items():
        table.add_row(Text(LABELS.get(name, name)), _share(share))
    table.add_row(Text("noise", "dim"), Text(_share(cost["noise"]), "dim"))
    first, whole = cost["calibration"]["first_batch"], cost["calibration"]["share_of_epoch"]
    notes = (
        f"plain step {1000 * cost['step_seconds']:.1f} ms; noise: plain steps against themselves; median ± half the\n"
        f"interquartile range over {cost['rounds']} rounds of {cost['batches']} steps\n"
        f"calibration of layers: {_share(first)} of a step, once an epoch: {100 * whole:.2f} % of one"
    )
    return Group(table, Text(notes, "dim"))


def _share(found: dict[str, float]) -> str:
    return f"{100 * found['median']:+.1f} ± {100 * found['spread']:.1f} %"


def number(value: float | None) -> str:
    """Three decimals where there is room for them, in at most six characters; a dash where there is no number."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 10_000:
        return f"{value:.0e}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0}f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"
