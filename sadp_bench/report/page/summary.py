"""The top of the page: what was compared, on what, and what was found, as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.report.page.markup import Markup, Part, element, joined, named, pairs, scrolling
from sadp_bench.report.page.tables import VERDICTS, verdict
from sadp_bench.report.page.wording import between, listed, plain, signed
from sadp_bench.report.tables import Row, percent, shared_means

HEADS = (
    ("ratio", ""),
    ("best mean accuracy", ""),
    ("accuracy", "% [95 %]"),
    ("against full", "points [95 %]"),
    ("verdict", ""),
    ("against random", "points [95 %]"),
    ("speed-up", "of its ceiling"),
    ("time saved", "of full's"),
    ("all methods", "number by verdict"),
)


def facts(
    records: Sequence[Record],
    specs: Sequence[Spec],
    table: Sequence[Row],
    num_failed: int,
    num_left_out: int,
    axes: Sequence[tuple[str, Part]] = (),
) -> Markup:
    """What was compared, and on what. specs: of the failed runs too. axes: what else was compared."""
    pruned = sorted({spec.ratio for spec in specs if spec.method != "full"})

    def environment(name: str) -> str:
        return listed(_sorted(record.environment.get(name, "unknown") for record in records))

    beside = [f"{num_failed:,} failed"] if num_failed else []
    beside += [f"{num_left_out:,} left out"] if num_left_out else []
    facts: list[tuple[str, Part]] = [
        ("Runs", f"{len(records):,}{f' ({listed(beside)})' if beside else ''}"),
        ("Methods", listed(list(dict.fromkeys(row["method"] for row in table)))),
        ("Pruning ratios", listed([percent(ratio) for ratio in pruned]) or "none"),
        *axes,
        ("Seeds", listed([str(seed) for seed in sorted({spec.seed for spec in specs})])),
        ("Data", listed(_sorted(spec.dataset for spec in specs))),
        ("Networks", listed(_sorted(spec.backbone for spec in specs))),
        ("Measured on", f"{environment('processor')} ({environment('device')})"),
        ("Versions", f"torch {environment('torch')}, spikingjelly {environment('spikingjelly')}"),
        ("Finished", _days(records)),
    ]
    return pairs(facts, class_="facts")


def _days(records: Sequence[Record]) -> str:
    days = _sorted(str(record.finished)[:10] for record in records)
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _sorted(values: Iterable[object]) -> list[str]:
    return sorted({str(value) for value in values})


def findings(groups: Sequence[Sequence[Row]]) -> Markup:
    """The best mean at each ratio of each group: what it costs, what it saves, and whether seeds enough say so."""
    head = element("tr", *(element("th", name, _small(unit), scope="col") for name, unit in HEADS))
    bodies = [_group(number, rows) for number, rows in enumerate(groups, 1)]
    caption = element("caption", "The best method of each group and ratio", class_="hidden")
    table = element("table", caption, element("thead", head), *bodies, class_="findings")
    return scrolling(table, "Table of findings")


def _group(number: int, rows: Sequence[Row]) -> Markup:
    link = element("a", rows[0]["group"], href=f"#group-{number}")
    told = element("div", link, element("p", fastest_lossless(rows)))
    title = element("th", told, colspan=len(HEADS), scope="rowgroup")
    ratios = sorted({row["ratio"] for row in rows if row["method"] != "full"})
    return element("tbody", element("tr", title), *(_line(_at(rows, ratio)) for ratio in ratios))


def fastest_lossless(rows: Sequence[Row]) -> str:
    """The answer to what most readers came for, in a sentence."""
    full = next((row for row in rows if row["method"] == "full" and row["n"]), None)
    reference = ""
    if full:
        reach = between(full.get("accuracy_low"), full.get("accuracy_high"), scale=100)
        shown = " ".join(filter(None, [f"{plain(100 * full['accuracy_mean'])} %", reach]))
        spent = "" if full["seconds_mean"] is None else f" in {plain(full['seconds_mean'], 1)} s"
        reference = f"Full data: {shown}{spent} (n = {full['n']}). "
    timed = [row for row in rows if row.get("verdict") == "lossless" and row["speedup_mean"] is not None]
    if timed:
        best = max(timed, key=lambda row: float(row["speedup_mean"]))
        told = f"{best['label']} at {percent(best['ratio'])}, {plain(best['speedup_mean'])}× (n = {best['n_timed']})"
        return f"{reference}Fastest of the lossless: {told}."
    if any(row.get("verdict") == "lossless" for row in rows):
        return f"{reference}None of the lossless was timed."
    if any(row.get("verdict") for row in rows):
        return f"{reference}Nothing is shown to be lossless."
    return f"{reference}No verdict: too few seeds beside full."


def _at(rows: Sequence[Row], ratio: float) -> list[Row]:
    return [row for row in rows if row["ratio"] == ratio and row["method"] != "full"]


def _line(rows: Sequence[Row]) -> Markup:
    """rows: all pruned ones of one group and ratio."""
    ratio = element("th", percent(rows[0]["ratio"]), scope="row")
    done = [row for row in rows if row["n"]]
    if not done:
        return element("tr", ratio, element("td", "no run has finished", colspan=len(HEADS) - 1))
    best = max(zip(shared_means(done), done, strict=True), key=lambda pair: pair[0])[1]
    cells = [
        named(best["label"]),
        _two(plain(100 * best["accuracy_mean"]), _reach(best, "accuracy", f"n = {best['n']}")),
        _difference(best, "accuracy_difference"),
        verdict(best),
        _difference(best, "random_difference"),
        f"{plain(best['speedup_mean'])} of {plain(best['ceiling_mean'])}",
        _saved(best),
        joined(_counts(done), " "),
    ]
    return element("tr", ratio, *(element("td", cell) for cell in cells))


def _difference(row: Row, name: str) -> Markup:
    mean = row.get(f"{name}_mean")
    return _two(signed(None if mean is None else 100 * mean), _reach(row, name))


def _reach(row: Row, name: str, more: str = "") -> str:
    return " ".join(filter(None, [between(row.get(f"{name}_low"), row.get(f"{name}_high"), scale=100), more]))


def _saved(row: Row) -> str:
    return plain(None if row["speedup_mean"] is None else 100 * (1 - 1 / row["speedup_mean"]), 0, " %")


def _counts(rows: Sequence[Row]) -> list[Part]:
    told = [row.get("verdict") for row in rows]
    parts: list[Part] = [
        element("span", f"{told.count(name)} {name}", class_=f"count {name}") for name in VERDICTS if name in told
    ]
    return parts + ([element("span", f"{told.count(None)} without a verdict", class_="count")] if None in told else [])


def _two(above: str, below: str) -> Markup:
    return joined([above, _small(below)])


def _small(text: str) -> Markup | None:
    return element("small", text) if text else None
