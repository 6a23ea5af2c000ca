"""Which methods rank above which over all tables, as far as that can be told."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_letters

from sadp_bench.records.spec import shown
from sadp_bench.records.statistics import ALPHA, MIN_BLOCKS, MIN_METHODS, RankAnalysis, rank_analysis
from sadp_bench.report.sheets import Cell, Grid, Sheet
from sadp_bench.report.tables import Row, shared_means

Scores = dict[tuple[str, float], dict[str, float]]


def scores(table: list[Row]) -> Scores:
    """Mean accuracy on the test set, over the seeds that all have, by (group, ratio) and method. Without `full`; without
    blocks whose runs saw different data."""
    blocks: dict[tuple[str, float], list[Row]] = {}
    for row in table:
        if row["n"] and row["method"] != "full" and row["evaluate_on"] == "test":
            blocks.setdefault((row["group"], row["ratio"]), []).append(row)
    return {
        block: dict(zip((_name(row, table) for row in rows), shared_means(rows), strict=True))
        for block, rows in blocks.items()
        if len({digest for row in rows for digest in row["data_sha256"]}) == 1
    }


def _name(row: Row, table: list[Row]) -> str:
    """Of a method and its settings, the same in every group: labels tell only what differs within one."""
    own = {name: value for name, value in row.items() if name.startswith("method.")}
    rivals = [other for other in table if other["method"] == row["method"]]
    told = [
        f"{name.removeprefix('method.')}={shown(value)}"
        for name, value in sorted(own.items())
        if any(name not in other or shown(other[name]) != shown(value) for other in rivals)
    ]
    return f"{row['method']} ({', '.join(told)})" if told else row["method"]


def rank_sheet(table: list[Row]) -> Sheet | None:
    """None where there are too few methods or blocks: `why_no_ranks`."""
    found = rank_analysis(scores(table))
    if found is None:
        return None
    letters = _letters(found)
    lines = [(name, [Cell(f"{rank:.2f}"), Cell(letters[name])]) for name, rank in found.mean_ranks.items()]
    title = f"Ranks by accuracy over {found.num_blocks} blocks (a table at a ratio)"
    return Sheet(title, [("", Grid(["method", "mean rank", "group"], lines))], _told(found))


def _letters(found: RankAnalysis) -> Mapping[str, str]:
    of: dict[str, str] = {}
    for letter, group in zip(ascii_letters, found.groups, strict=False):
        for name in group:
            of[name] = of.get(name, "") + letter
    return of


def _told(found: RankAnalysis) -> list[str]:
    p = "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"
    decided = "" if found.p_value < ALPHA else ", so no method is shown to differ from another"
    dropped, left_out = found.dropped_blocks, ", ".join(found.left_out)
    return [
        "Rank 1 is best. Methods that share a letter can't be told apart: their mean ranks differ by less than the "
        f"critical difference of {found.critical_difference:.2f} (Nemenyi, 5 %).",
        f"Friedman's test: chi² = {found.statistic:.2f}, {p}{decided}. It takes the blocks for independent, which those "
        "of one data set are not.",
        *(
            [f"Left out: {dropped} block{'s' * (dropped > 1)} that lack{'s' * (dropped == 1)} a method."]
            if dropped
            else []
        ),
        *([f"Left out, being in fewer than {MIN_BLOCKS} blocks: {left_out}."] if left_out else []),
    ]


def why_no_ranks(table: list[Row]) -> str | None:
    """None where a lone method asks for none."""
    blocks = scores(table)
    methods = {name for block in blocks.values() for name in block}
    if len(methods) < 2:
        return None
    whole = sum(methods <= set(block) for block in blocks.values())
    return (
        f"No ranks of methods: they take at least {MIN_METHODS} methods in {MIN_BLOCKS} blocks (a table at a ratio) "
        f"that hold them all; here: {len(methods)} methods, {whole} such block{'s' * (whole != 1)}."
    )
