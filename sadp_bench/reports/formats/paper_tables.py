"""The LaTeX tables of a group by pruning ratio: accuracy and speed-up, and paired differences with both verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sadp_bench.core.text import NOTHING, number, percent, signed
from sadp_bench.records.statistics import Estimate
from sadp_bench.reports.formats.tabular import LINE, escaped, float_of, one_line, row
from sadp_bench.reports.naming import FIRST_METHODS
from sadp_bench.reports.paper import Paper
from sadp_bench.reports.rows import RatioRow, shared_means
from sadp_bench.reports.tables.table import GAP

SPREADS = {"ci": r"half-width of the 95\,\% $t$-interval", "std": "standard deviation"}
ALIKE = 0.005  # a method's ceiling is shown where it differs by more from the maximum of the ratio
LONG_NAME = 24  # letters
# Letters: the width of a ratio's column heads, by the cells shown.
HEADS = {"both": (10, 10), "accuracy": (5,), "speedup": (15,)}
MATHS = {
    r"\textbf{": 0,
    r"\underline{": 0,
    r"$\pm$": 1,
    r"$-$": 1,
    r"\dag{}": 1,
    r"\,": 0,
    r"$<$": 1,
    "{[}": 1,
    "{]}": 1,
    "}": 0,
}


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of a group that a paper shows.

    Attributes:
        title: The group's title.
        rows: The rows, in the order of the table.
        paper: The author's choices.
        label: The label of the group's table.
    """

    title: str
    rows: Sequence[RatioRow]
    paper: Paper
    label: str

    @property
    def ratios(self) -> list[float]:
        """The pruning ratios, rising."""
        return sorted({row.ratio for row in self.rows if not row.is_full})

    @property
    def usual(self) -> int:
        """The number of seeds that most rows have."""
        return Counter(row.n for row in self.rows if row.n).most_common(1)[0][0]

    def lines(self) -> dict[str, list[RatioRow]]:
        """Returns the rows of each method by its label, without `full`."""
        found: dict[str, list[RatioRow]] = {}
        for own in self.rows:
            if not own.is_full:
                found.setdefault(own.label, []).append(own)
        return found

    def caption(self, what: str, explained: str) -> tuple[str, str]:
        """Returns the caption, and a comment with the explanation where the author's caption replaces it."""
        if not self.paper.caption:
            return f"{escaped(self.title)}. {what} {explained}", ""
        return self.paper.caption, f"% {one_line(f'{what} {explained}')}\n"


def results(group: Group) -> str:
    """Returns the table of accuracies and speed-ups: a line for each method, columns for each ratio."""
    cells, ratios = group.paper.cells, group.ratios
    kinds: list[Callable[[RatioRow], str]] = []
    kinds += [_accuracies(group)] if cells != "speedup" else []
    kinds += [_speedup(group, alone=cells == "speedup")] if cells != "accuracy" else []
    body = [
        (escaped(group.paper.name(own[0])), own[0], [_at(own, ratio, kind) for ratio in ratios for kind in kinds])
        for own in group.lines().values()
    ]
    what, explained = _explained(group)
    caption, comment = group.caption(what, explained)
    if not ratios:
        return ""
    lines = [line for _, _, line in body]
    size, spans = _fitting([name for name, _, _ in body], lines, HEADS[cells] * len(ratios), len(ratios))
    tabulars = [_results_tabular(group, body, ratios[a:b], slice(a * len(kinds), b * len(kinds))) for a, b in spans]
    return comment + float_of(caption, size, tabulars, label=group.label)


def _results_tabular(
    group: Group, body: Sequence[tuple[str, RatioRow, list[str]]], ratios: Sequence[float], columns: slice
) -> str:
    """Returns the tabular of some of the ratios."""
    each = (columns.stop - columns.start) // len(ratios)
    lines = []
    for before, (name, own, cells) in zip([None, *(own for _, own, _ in body)], body, strict=False):
        if before is not None and before.method in FIRST_METHODS and own.method not in FIRST_METHODS:
            lines.append(r"\addlinespace")
        if any(cell != NOTHING for cell in cells[columns]):
            lines.append(row([name, *(escaped(cell) if cell == NOTHING else cell for cell in cells[columns])]))
    full = [_full(group, own, each * len(ratios)) for own in group.rows if own.is_full and own.n]
    return "\n".join([
        rf"\begin{{tabular}}{{@{{}}l{'r' * (each * len(ratios))}@{{}}}}", r"\toprule", *_results_head(group, ratios, each),
        r"\midrule", *full, *([r"\midrule"] if full else []), *lines, r"\bottomrule", r"\end{tabular}",
    ])  # fmt: skip


def _results_head(group: Group, ratios: Sequence[float], each: int) -> list[str]:
    if each == 1:
        what = {"accuracy": r"Accuracy (\%)", "speedup": r"Speed-up ($\times$)"}[group.paper.cells]
        head = rf"\multicolumn{{{len(ratios)}}}{{c}}{{{what} at a pruning ratio of}}"
        limits = [_maximum(group, ratio) if group.paper.cells == "speedup" else "" for ratio in ratios]
        return [
            row(["", head]),
            rf"\cmidrule(l){{2-{len(ratios) + 1}}}",
            row(["Method", *(_ratio(ratio) + limit for ratio, limit in zip(ratios, limits, strict=True))]),
        ]
    spans = [rf"\multicolumn{{{each}}}{{c}}{{{_ratio(ratio)} pruned{_maximum(group, ratio)}}}" for ratio in ratios]
    rules = [rf"\cmidrule(lr){{{2 + each * place}-{1 + each * (place + 1)}}}" for place in range(len(ratios))]
    return [
        row(["", *spans]),
        " ".join(rules),
        row(["Method", *([r"Acc. (\%)", "Speed-up"] * len(ratios))]),
    ]


def _ratio(ratio: float) -> str:
    return escaped(percent(ratio))


def _maximum(group: Group, ratio: float) -> str:
    """Returns the maximum of the speed-up at a ratio, in brackets."""
    found = {own.nominal_maximum for own in group.rows if own.ratio == ratio and not own.is_full}
    return rf" ($\leq {max(found):.2f}\times$)"


def _full(group: Group, own: RatioRow, columns: int) -> str:
    """Returns the line of full data: accuracy and charged seconds across all columns."""
    seconds = f"{number(own.seconds.mean, 1)}\\,s{escaped(own.mark)}" if own.seconds.n else ""
    shown = [] if group.paper.cells == "speedup" else [_estimate(own.accuracy, group, 100) + _subscript(own.n, group)]
    shown += [seconds] if seconds and group.paper.cells != "accuracy" else []
    return row([escaped(group.paper.name(own)), rf"\multicolumn{{{columns}}}{{c}}{{{', '.join(shown)}}}"])


def _at(rows: Iterable[RatioRow], ratio: float, cell: Callable[[RatioRow], str]) -> str:
    found = [own for own in rows if own.ratio == ratio]
    return cell(found[0]) if found else NOTHING


def _accuracies(group: Group) -> Callable[[RatioRow], str]:
    """Returns a function for the cell of a row's accuracy, with the best mean of a ratio in bold."""
    marks: dict[tuple[str, float], str] = {}
    for ratio in group.ratios:
        rivals = [own for own in group.rows if own.ratio == ratio and own.prunes and own.n]
        means = shared_means(rivals)
        ranks = sorted(set(means), reverse=True)
        for own, mean in zip(rivals, means, strict=True):
            rank = ranks.index(mean)
            if len(rivals) > 1 and rank == 0:
                marks[own.label, ratio] = r"\textbf"
            elif len(rivals) > 2 and rank == 1:
                marks[own.label, ratio] = r"\underline"

    def cell(own: RatioRow) -> str:
        if not own.n:
            return f"{len(own.failed)} failed"
        return _estimate(own.accuracy, group, 100, marks.get((own.label, own.ratio), "")) + _subscript(own.n, group)

    return cell


def _speedup(group: Group, alone: bool) -> Callable[[RatioRow], str]:
    """Returns a function for the cell of a row's speed-up, with its ceiling where it differs from the ratio's maximum."""

    def cell(own: RatioRow) -> str:
        if not own.n:
            return NOTHING
        found = own.speedup
        value = _estimate(found, group) if alone else number(found.mean)
        text = f"{value}{escaped(own.mark)}{_subscript(found.n, group)}" if found.n else "--"
        apart = own.ceiling.n and abs(own.ceiling.mean - own.nominal_maximum) > ALIKE
        return f"{text} / {own.ceiling.mean:.2f}" if apart else text

    return cell


def _estimate(found: Estimate, group: Group, scale: float = 1.0, mark: str = "", sign: bool = False) -> str:
    """Returns the mean and its spread: '62.21 ± 0.60', or '1.31 [1.25, 1.38]' where the interval is not symmetric."""
    shown = signed(scale * found.mean) if sign else number(scale * found.mean)
    mean = f"{mark}{{{escaped(shown)}}}" if mark else escaped(shown)
    if group.paper.spread == "std":
        return mean if found.spread is None else rf"{mean} $\pm$ {number(scale * found.spread)}"
    if found.low is None or found.high is None:
        return mean
    if found.half is not None:
        return rf"{mean} $\pm$ {number(scale * found.half)}"
    return f"{mean} {escaped(f'[{number(scale * found.low)}, {number(scale * found.high)}]')}"


def _subscript(n: int, group: Group) -> str:
    return "" if n == group.usual else f"$_{{{n}}}$"


def _explained(group: Group) -> tuple[str, str]:
    """Returns the title and the explanation of the table, as LaTeX source."""
    cells, shown = group.paper.cells, [own for own in group.rows if own.n]
    spread = SPREADS[group.paper.spread]
    accuracy, speedup = rf"accuracy (mean $\pm$ {spread})", "measured speed-up over full data"
    speedup += f" ({spread})" if cells == "speedup" and group.paper.spread == "std" else ""
    what = {"both": f"{accuracy} and {speedup}", "accuracy": accuracy, "speedup": speedup}[cells]
    numbers = {own.n for own in shown} | (
        {own.speedup.n for own in shown if own.speedup.n} if cells != "accuracy" else set()
    )
    notes = [f"$n = {group.usual}$ seed{'s' * (group.usual != 1)}" + ("" if numbers == {group.usual} else
             "; a subscript gives another number") + "."]  # fmt: skip
    if cells != "accuracy":
        apart = any(
            abs(own.ceiling.mean - own.nominal_maximum) > ALIKE for own in shown if own.ceiling.n and not own.is_full
        )
        notes.append("In brackets: the largest speed-up that the ratio allows.")
        notes.append("After a slash: the largest that the method's visits allow." if apart else "")
        notes.append(
            r"\dag{}: without disturbed runs."
            if any(own.mark and (own.is_full or own.speedup.n) for own in shown)
            else ""
        )
    if cells != "speedup" and sum(own.prunes for own in shown) > 1:
        notes.append("Best mean in bold, second best underlined.")
    return f"{what[0].upper()}{what[1:]}, by pruning ratio.", " ".join(filter(None, notes))


def differences(group: Group) -> str:
    """Returns the table of paired differences to full data and random sampling with their verdicts; "" without any."""
    rows = [own for own in group.rows if not own.is_full and own.n]
    to_full = any(own.accuracy_difference.n for own in rows)
    to_random = any(own.random_difference.n for own in rows)
    if not any(own.accuracy_difference.low is not None or own.random_difference.low is not None for own in rows):
        return ""
    timed = any(own.speedup.n for own in rows)
    columns = [*["Difference", "Verdict"] * (to_full + to_random), *[r"Speed-up ($\times$)"] * timed]
    against = [name for name, there in (("full data", to_full), ("random", to_random)) if there]
    above = [rf"\multicolumn{{2}}{{c}}{{Against {name}}}" for name in against] + [""] * timed
    rules = " ".join(rf"\cmidrule(lr){{{3 + 2 * place}-{4 + 2 * place}}}" for place in range(len(against)))
    lines: list[tuple[str, list[str]]] = []
    for own in group.lines().values():
        done = [one for one in own if one.n]
        for place, (name, one) in enumerate(zip(_in_lines(group.paper.name(own[0]), len(done)), done, strict=True)):
            cells = _against(one.accuracy_difference, one.verdict, one.verdict_p, group) if to_full else []
            cells += _against(one.random_difference, one.random_verdict, one.random_p, group) if to_random else []
            speed = f"{_estimate(one.speedup, group)}{escaped(one.mark)}" if one.speedup.n else "--"
            apart = r"\addlinespace" + "\n" if lines and place == 0 else ""
            lines.append((apart + escaped(name), [_ratio(one.ratio), *cells, *[speed] * timed]))
    names, body = [name.rpartition("\n")[2] for name, _ in lines], [cells for _, cells in lines]
    size, _ = _fitting(names, body, (5, *(len(head.replace("$", "")) for head in columns)), 1)
    tabular = "\n".join([
        rf"\begin{{tabular}}{{@{{}}lr{'rl' * len(against)}{'r' * timed}@{{}}}}", r"\toprule", row(["", "", *above]), rules,
        row(["Method", "Ratio", *columns]), r"\midrule", *(row([name, *cells]) for name, cells in lines), r"\bottomrule",
        r"\end{tabular}",
    ])  # fmt: skip
    caption = f"{escaped(group.title)}. {_differences_explained(group, to_random)}"
    return float_of(caption, size, [tabular], label=f"{group.label}-differences")


def _in_lines(name: str, lines: int) -> list[str]:
    """Returns the text of each of a method's lines: its name in the first, and the options of a long name in the second."""
    method, bracket, options = name.partition(" (")
    parts = [method, f"({options}"] if bracket and len(name) > LONG_NAME and lines > 1 else [name]
    return (parts + [""] * lines)[:lines]


def _against(found: Estimate, verdict: str | None, p: float | None, group: Group) -> list[str]:
    """Returns the cells of a paired difference and its verdict."""
    if not found.n:
        return ["", ""]
    text = verdict or ""
    adjusted = "" if p is None else " ($<$ 0.001)" if p < 0.001 else f" ({p:.3f})"
    return [_estimate(found, group, 100, sign=True), text + adjusted]


def _differences_explained(group: Group, to_random: bool) -> str:
    margin = f"{100 * group.rows[0].margin:g}"
    shown, intervals = group.paper.spread, any(own.speedup.low is not None for own in group.rows)
    adjusted = any(own.verdict_p is not None for own in group.rows)
    texts = [
        rf"Differences of accuracy in points, paired by seed: mean $\pm$ {SPREADS[shown]}.",
        rf"Against full data, lossless: the 95\,\% interval lies above $-{margin}$; worse: below it; else undecided.",
        rf"Against random sampling at the same ratio, better or worse: the interval excludes 0; level: it contains 0 and "
        rf"lies within $\pm {margin}$; else undecided." if to_random else "",
        "Intervals of speed-ups are made on logarithms." if shown == "ci" and intervals else "",
        "In brackets: the $p$-value, adjusted by Holm's method." if adjusted else "",
    ]  # fmt: skip
    return " ".join(filter(None, texts))


def _fitting(
    names: Sequence[str], body: Sequence[Sequence[str]], heads: Sequence[int], blocks: int
) -> tuple[str, list[tuple[int, int]]]:
    """Returns the largest letter size in which the table fits, and the blocks of columns that stand side by side.

    Args:
        names: The first column.
        body: The cells of each line.
        heads: The width of each column's head in letters.
        blocks: The number of blocks of columns. A table that fits in no size continues below with its further blocks.
    """
    each = len(heads) // blocks
    beside = max(map(_letters, names), default=0)
    widths = [max([_letters(line[place]) for line in body] + [head]) + GAP for place, head in enumerate(heads)]
    wide = [sum(widths[each * place : each * (place + 1)]) for place in range(blocks)]
    for size, room in LINE.items():
        if beside + sum(wide) <= room:
            return size, [(0, blocks)]
    spans, start = [], 0
    for stop in range(1, blocks + 1):
        if stop == blocks or beside + sum(wide[start : stop + 1]) > room:
            spans.append((start, stop))
            start = stop
    return size, spans


def _letters(source: str) -> int:
    """Returns the approximate printed width of a cell's source, in letters."""
    for command, letters in MATHS.items():
        source = source.replace(command, "x" * letters)
    return len(source.replace("$", "").replace("_{", "").replace("\\", ""))
