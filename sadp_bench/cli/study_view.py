"""Shows a study: the scores at each stop, then their cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sadp_bench.cli.bias_view import BIAS_LEGEND, bias_sentence, bias_table
from sadp_bench.core.text import compact, percent, printable
from sadp_bench.measure.study_file import BOUNDS, KEEPS, LABELS, OWN, RIVALS, SOURCES, labels, title
from sadp_bench.records.axes import cosine_text

KEEP = [f"{keep:g}" for keep in KEEPS]
MIDDLE_KEEP = KEEP[len(KEEP) // 2]
NAME, NARROW, WIDE, GAP = 11, 5, 6, 2  # characters: widths of columns, and of the gap between groups
TABLE_WIDTH = 104  # characters: width of the whole table
# A column: its head, its width, and the path to its number in a score's table (source, measure, share kept).
StudyColumn = tuple[str, int, tuple[str, ...]]
ColumnGroups = list[tuple[str, list[StudyColumn]]]  # a heading and the columns of each group


def _kept(source: str, over: str) -> list[StudyColumn]:
    return [(keep, NARROW, (source, over, keep)) for keep in KEEP]


NOW: ColumnGroups = [
    ("", [("rank", WIDE, ("frozen", "spearman")), ("linear", WIDE, ("frozen", "pearson"))]),
    ("V / uniform", _kept("frozen", "over_uniform")),
    ("V / optimum", _kept("frozen", "over_optimum")),
    ("V / optimum", [(f"train {MIDDLE_KEEP}", 2 * NARROW, ("training", "over_optimum", MIDDLE_KEEP))]),
]
COLLECTED_COLUMNS: ColumnGroups = [
    ("", [("rank", WIDE, ("age 0", "spearman")), ("linear", WIDE, ("age 0", "pearson"))]),
    ("V / uniform", _kept("age 0", "over_uniform")),
    ("V / optimum", _kept("age 0", "over_optimum")),
]
TAU: ColumnGroups = [("tau now", _kept("frozen", "tau")), ("tau collected", _kept("age 0", "tau"))]
AGED: ColumnGroups = [
    (
        f"V / unif. at {MIDDLE_KEEP}",
        [(source, NARROW, (source, "over_uniform", MIDDLE_KEEP)) for source in SOURCES[3:]],
    )
]
STUDY_LEGEND = (
    "g: the exact gradient norm over all parameters. rank, linear: Spearman's and Pearson's correlation with g.\n"
    "V: the variance, sum g²(1/π − 1), of sampling in proportion to the score, by the share kept. It is divided by that of "
    "uniform sampling, or by that of the optimum, sampling in proportion to g. Bold: the column's best score.\n"
    "{tau}now: the score with the weights, statistics and inputs of g; train: in training mode. collected: the score from "
    "the training steps so far, with augmentation; age a: a epochs earlier. Collected scores are compared with the norms of "
    "the next epoch (root mean square over some augmented views). Uniform sampling is mixed into every score with a share of "
    "{smoothing:g}. errors: layers with the batch's mean in place of each example's spikes. SADP: layers with memory."
)
TAU_LEGEND = (
    "tau: an update has the second moment of uniform sampling with a batch tau times as large. It is at most 1 over the "
    "share kept. In the columns tau collected, exact norm is that of the next epoch: the optimum.\n"
)
OWN_LEGEND = " {name}: with the smoothing of SADP's own draw."
COSINE_LEGEND = (
    "\ncosine: over the weights of all convolution and linear layers, the mean over some full batches in training mode. "
    "Batch norm uses the statistics of each step, as in SLTT's training, so both gradients belong to one forward pass. In "
    "brackets: BPTT's gradient with the statistics of all steps, as in BPTT's training. g is the norm of BPTT's gradient in "
    "evaluation mode."
)


def study_table(study: dict[str, Any], path: Path | None = None) -> Group:
    """Returns all results of a study. `path` is the study's file."""
    spec = study["spec"]
    parts = [spec["dataset"], spec["backbone"], title(study) and f"pruned by {title(study)}"]
    heading = (
        f"{' · '.join(filter(None, parts))} · {study['examples']:,} of {study['num_examples']:,} examples · batch "
        f"{spec['batch_size']}{_backprop(spec)} · seed {spec['seed']} · {spec['device']}, threads {spec['threads']}"
    )
    has_bias, names = "bias" in study["stops"][-1], labels(study)
    found = [finding(study, names), bias_sentence(study, names) if has_bias else ""]
    shown: list[Any] = [Text(heading, "bold"), "", *(Text(f"{sentence}\n") for sentence in found if sentence)]
    for stop in study["stops"]:
        shown += [*_stop(stop, spec["epochs"], names), ""]
    has_tau = any("optimum_tau" in stop for stop in study["stops"])
    legend = STUDY_LEGEND.format(smoothing=study["smoothing"], tau=TAU_LEGEND if has_tau else "")
    legend += OWN_LEGEND.format(name=names[OWN]) if "sadp_smoothing" in study else ""
    legend += COSINE_LEGEND if any("gradient_cosine" in stop for stop in study["stops"]) else ""
    legend += BIAS_LEGEND if has_bias else ""
    shown += [_cost(study["cost"]), "", Text(legend, "dim")]
    return Group(
        *shown, *([Text("\n" + printable(f"study  {path}"), "dim", overflow="fold")] if path is not None else [])
    )


def finding(study: dict[str, Any], names: dict[str, str]) -> str:
    """Returns a sentence on the last stop: the variance with SADP's scores, with the best scores, and with the optimum.

    The sentence is about the middle share kept, and the scores that training steps collected. "" without a variance.
    """
    stop = study["stops"][-1]
    left = {name: _at(stop["scores"].get(name, {}), ("age 0", "over_uniform", MIDDLE_KEEP)) for name in RIVALS}
    known = {name: value for name, value in left.items() if value is not None}
    if "sadp" not in known:
        return ""
    best = min(known, key=lambda name: known[name])
    begin = f"After epoch {stop['epoch']}, with {percent(float(MIDDLE_KEEP), 0)} kept, SADP's scores leave"
    share = f"{percent(known['sadp'], 0)} of uniform sampling's variance"
    optimum = _at(stop["optimum_over_uniform"], ("coming", MIDDLE_KEEP))
    exact = "" if optimum is None else f"exact norms {percent(optimum, 0)}"
    if best == "sadp":
        return f"{begin} {share}, the least of all scores{f'; {exact}' if exact else ''}."
    return f"{begin} {share}; the best, {names[best]}, leaves {percent(known[best], 0)}{f', {exact}' if exact else ''}."


def _backprop(spec: dict[str, Any]) -> str:
    name = spec.get("backprop", "bptt")
    return "" if name == "bptt" else f" · {name}"


def print_study(study: dict[str, Any], path: Path | None = None) -> None:
    """Prints a study in the width of the terminal, or of its table where stdout is no terminal."""
    console = Console()
    (console if console.is_terminal else Console(width=TABLE_WIDTH)).print(study_table(study, path))


def _stop(stop: dict[str, Any], epochs: int, names: dict[str, str]) -> list[Any]:
    heading = (
        f"after epoch {stop['epoch']} of {epochs} · loss {stop['train_loss']:.3f} · mean g {compact(stop['norm_mean'])}, "
        f"varying by {percent(stop['norm_cv'], 0)} over examples"
    )
    heading += f" · {percent(stop['unseen'], 0)} never visited" if stop.get("unseen") else ""
    lines = [Padding(Text(line, "dim"), (0, 0, 0, NAME + 1)) for line in _lines(stop)]
    scores, has_tau = stop["scores"], "optimum_tau" in stop  # studies of earlier versions have only V
    tables = [*_table("now", NOW, scores, names), *_table("collected", COLLECTED_COLUMNS, scores, names)]
    if has_tau:
        of_exact = {"exact": {**scores.get("exact", {}), "age 0": {"tau": stop["optimum_tau"]["coming"]}}}
        tables += _table("tau, ages", TAU + AGED, scores | of_exact, names)
    else:
        tables += _table("ages", AGED, scores, names)
    bias = bias_table(stop["bias"], names) if "bias" in stop else []
    return [Text(heading, "bold"), *tables, *lines, *bias]


def _table(title: str, columns: ColumnGroups, scores: dict[str, Any], names: dict[str, str]) -> list[Any]:
    rows = _scores(columns, scores, names)
    return [_group_heads(title, columns), rows] if rows.row_count else []


def _group_heads(title: str, columns: ColumnGroups) -> Text:
    line = " " * NAME
    for name, members in columns:
        line += " " * (GAP if name else 0) + _heading(name, sum(width + 1 for _, width, _ in members))
    return Text((title + line[len(title) :]).rstrip(), "dim")


def _heading(name: str, width: int) -> str:
    """Returns a group's heading: ' ── V / optimum ──'."""
    return " " + f" {name} ".center(width - 1, "─") if name else " " * width


def _scores(columns: ColumnGroups, scores: dict[str, Any], names: dict[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 0), header_style="dim")
    table.add_column("", width=NAME, no_wrap=True)
    for name, members in columns:
        for place, (head, width, _) in enumerate(members):
            table.add_column(head, width=width + 1 + (GAP if name and place == 0 else 0), justify="right", no_wrap=True)
    paths = [path for _, members in columns for _, _, path in members]
    rows = {name: [_at(scores[name], path) for path in paths] for name in LABELS if name in scores}
    rivals = [row for name, row in rows.items() if name in RIVALS]
    choose = [_best_of(path) for path in paths]
    columns_of_rivals = [[v for v in column if v is not None] for column in zip(*rivals, strict=True)]
    bests = [of(column) if of and column else None for of, column in zip(choose, columns_of_rivals, strict=True)]
    for name, row in rows.items():
        if all(value is None for value in row):
            continue
        best = [name in RIVALS and value is not None and value == of for value, of in zip(row, bests, strict=True)]
        cells = [Text(compact(value), "bold" if bold else "") for value, bold in zip(row, best, strict=True)]
        table.add_row(Text(names[name]), *cells, style="dim" if name in BOUNDS else "")
    return table


def _best_of(path: tuple[str, ...]) -> Callable[[list[float]], float] | None:
    """Returns the function that chooses a column's best number: max for tau, min for V, None for a correlation."""
    return {"tau": max, "over_uniform": min, "over_optimum": min}.get(path[1])


def _at(sources: dict[str, Any], path: tuple[str, ...]) -> float | None:
    found: Any = sources
    for name in path:
        found = found.get(name) if found is not None else None
    return found


def _lines(stop: dict[str, Any]) -> list[str]:
    lines, lag, spikes = [], stop["lag"], percent(stop["spikes_cv"], 0)
    if lag is not None:
        over = "  ".join(compact(lag["over_optimum"][keep]) for keep in KEEP)
        lines.append(
            f"lagging statistics: g with running statistics has rank {compact(lag['spearman'])}, V / optimum {over}"
        )
    first, *others = stop["input_squares_cv"] or [None]
    then = " ".join("–" if value is None else f"{100 * value:.0f}" for value in others)
    lines.append(
        f"variation over examples: spikes {spikes}, input squares {percent(first, 0)} in the first layer"
        + (f", then {then} %" if then else "")
    )
    if found := stop.get("gradient_cosine"):
        other = cosine_text(found["norms_of_all_steps"])
        least = f", least {cosine_text(found['least'])} in {found['least_layer']}" if found["least_layer"] else ""
        lines.append(f"SLTT's gradient with BPTT's: cosine {cosine_text(found['whole'])} ({other}){least}")
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
        f"calibration of layers: {_share(first)} of a step, once in an epoch ({percent(whole, 2)} of the epoch)"
    )
    return Group(table, Text(notes, "dim"))


def _share(found: dict[str, float]) -> str:
    return f"{100 * found['median']:+.1f} ± {percent(found['spread'], 1)}"
