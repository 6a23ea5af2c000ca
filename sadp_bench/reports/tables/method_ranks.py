"""The table of ranks: the mean rank of each method over all tables by ratio, and which ranks differ significantly."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters

from sadp_bench.core.text import count
from sadp_bench.records.naming import method_labels
from sadp_bench.records.statistics import ALPHA, MIN_BLOCKS, MIN_METHODS, RankAnalysis, rank_analysis
from sadp_bench.reports.rows import RatioRow, shared_means
from sadp_bench.reports.tables.table import Cell, Sheet, Table

Scores = dict[tuple[str, float], dict[str, float]]


def scores(table: Sequence[RatioRow]) -> Scores:
    """Returns mean test accuracies by (group, ratio) and method, each over the seeds that all methods have.

    Methods that prune nothing and blocks whose runs saw different data are left out. A method with other options counts as
    another method in all groups. Its name here contains them, although a label contains only settings that differ within a
    group.
    """
    names = method_labels(spec for row in table for spec in row.specs)
    blocks: dict[tuple[str, float], list[RatioRow]] = {}
    for row in table:
        if row.n and row.prunes and row.settings["evaluate_on"] == "test":
            blocks.setdefault((row.group, row.ratio), []).append(row)
    return {
        block: dict(zip((names[row.runs[0].spec.key] for row in rows), shared_means(rows), strict=True))
        for block, rows in blocks.items()
        if len({digest for row in rows for digest in row.data_sha256}) == 1
    }


def rank_sheet(table: Sequence[RatioRow]) -> Sheet | None:
    """Returns the sheet of ranks; None where there are too few methods or blocks (`why_no_ranks`)."""
    found = rank_analysis(scores(table))
    if found is None:
        return None
    letters: dict[str, str] = {}
    for letter, group in zip(ascii_letters, found.groups, strict=False):
        for name in group:
            letters[name] = letters.get(name, "") + letter
    lines = [(name, [Cell(f"{rank:.2f}"), Cell(letters[name])]) for name, rank in found.mean_ranks.items()]
    title = f"Ranks by accuracy over {found.num_blocks} blocks (a table at a ratio)"
    return Sheet("ranks", "", title, [Table(["method", "mean rank", "group"], lines)], _notes(found))


def _notes(found: RankAnalysis) -> list[str]:
    p = "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"
    decided = "" if found.p_value < ALPHA else ", so no method is shown to differ from another"
    dropped, left_out = found.dropped_blocks, ", ".join(found.left_out)
    return [
        "Rank 1 is best. Methods that share a letter cannot be told apart: their mean ranks differ by less than the "
        f"critical difference of {found.critical_difference:.2f} (Nemenyi, 5 %).",
        f"Friedman's test: chi² = {found.statistic:.2f}, {p}{decided}. The test assumes independent blocks, but blocks of "
        "one data set are dependent.",
        *([f"Left out: {count(dropped, 'block')} that lack{'s' * (dropped == 1)} a method."] if dropped else []),
        *([f"Left out, because they are in fewer than {MIN_BLOCKS} blocks: {left_out}."] if left_out else []),
    ]


def why_no_ranks(table: Sequence[RatioRow]) -> str | None:
    """Returns why there are no ranks; None for fewer than two methods."""
    blocks = scores(table)
    methods = {name for block in blocks.values() for name in block}
    if len(methods) < 2:
        return None
    whole = sum(methods <= set(block) for block in blocks.values())
    return (
        f"No ranks of methods. They need at least {MIN_METHODS} methods, and {MIN_BLOCKS} blocks (a table at a ratio) that "
        f"contain all of them. Here: {len(methods)} methods, {whole} such block{'s' * (whole != 1)}."
    )
