"""The report as one self-contained HTML page, which loads no script, style, font or picture.

The script only sorts tables and filters lines; the page can be read without it. The template escapes all text of records. A
Content-Security-Policy names the page's style and script by their hashes, and forbids all others and all traffic.
Figures are images from `data:` URIs, which cannot run a script.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from sadp_bench import __version__
from sadp_bench.core.text import count, listed, percent
from sadp_bench.records.record import Record
from sadp_bench.reports.contents import Contents
from sadp_bench.reports.formats.forest import Bar, bars
from sadp_bench.reports.formats.headings import Heading, headings
from sadp_bench.reports.formats.run_details import commands, run_details
from sadp_bench.reports.rows import RatioRow, largest_first
from sadp_bench.reports.tables.by_ratio import RANDOM_VERDICT, VERDICT, claims_table, whole_table
from sadp_bench.reports.tables.table import Sheet, Table

ROW_KINDS = {
    "axes": "Data, time and weights together",
    "memory": "Training memory against time steps",
    "search": "The search for connections",
}
MOST_PLOTS = 4  # of a page of several groups; each takes half a second, and 100 kB of the page
# Signs make the verdicts readable without colors.
VERDICT_SIGNS = {"lossless": "●", "better": "▲", "level": "●", "worse": "▼", "undecided": "○"}
VERDICT_HEADS = (VERDICT.heading, RANDOM_VERDICT.heading)


def page(
    contents: Contents, images: Callable[[Record], Any] | None = None, doing: Callable[[str], None] = lambda what: None
) -> str:
    """Returns the page. The same records in any order give the same bytes.

    Args:
        contents: The report, with at least one finished run.
        images: Opens the training images of a record's run (`plots.pictures.at_hand`).
        doing: Is called with a line about each slow step.
    """
    import jinja2

    contents = replace(
        contents,
        records=sorted(contents.records, key=lambda run: run.spec.key),
        failures=sorted(contents.failures, key=lambda run: run.spec.key),
    )

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"code": _code, "two": _two, "minus": _minus, "sort": _sort, "count": count, "tight": _tight}
    left_out = list(contents.problems)
    plots = plots_by_group(contents, images, left_out.append, doing)
    doing("writing the page")
    specs = contents.specs
    runs = run_details(contents.rows, contents.records, contents.searches)
    common, headed = headings(list(dict.fromkeys([*(rows[0].group for rows in contents.groups), *runs])))
    groups = [_group(rows, headed[rows[0].group], contents.sheets) for rows in largest_first(contents.groups)]
    style, script = _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("page.html").render(
        title=f"Data pruning on {listed(sorted({spec.dataset for spec in specs}))}",
        policy=policy,
        style=style,
        script=script,
        version=__version__,
        contents=contents,
        methods=count(len({spec.method for spec in specs} - {"full"}), "method"),
        valid_seconds=_valid_seconds(contents.records),
        facts=_facts(contents, len(left_out)),
        common=common,
        headed=headed,
        groups=[group for group in groups if not group.brief],
        brief=[group for group in groups if group.brief],
        kinds=ROW_KINDS,
        sheets=_by_kind(contents.sheets),
        plots=plots,
        limited=len(contents.groups) > 1 and sum(map(len, plots.values())) >= MOST_PLOTS,
        verdicts=VERDICT_SIGNS,
        verdict_heads=VERDICT_HEADS,
        runs=dict(sorted(runs.items(), key=lambda group: -len(group[1]))),
        commands=commands(specs),
        commits=listed(_environment(contents.records, "commit")),
        left_out=left_out,
    )


@dataclass(frozen=True, slots=True)
class Group:
    """A group of runs on the page.

    Attributes:
        heading: The heading that sets it apart.
        brief: Whether its runs train for one epoch, after which methods hardly differ.
        runs: The number of finished runs.
        findings: The findings, a sentence each.
        claims: The table of claims, a line for each method and ratio.
        bars: The drawings of the intervals in `claims`, by column and line.
        whole: The table of all numbers, with the same lines.
        notes: The notes on both tables.
        outcomes: The tables of the training loss.
    """

    heading: Heading
    brief: bool
    runs: int
    findings: list[str]
    claims: Table
    bars: dict[int, list[Bar | None]]
    whole: Table
    notes: list[str]
    outcomes: list[Sheet]


def _group(rows: Sequence[RatioRow], heading: Heading, sheets: Iterable[Sheet]) -> Group:
    claims, own = claims_table(rows), [sheet for sheet in sheets if sheet.group == rows[0].group]
    [ratio] = [sheet for sheet in own if sheet.kind == "ratio"]
    drawn = {"to full": "accuracy_difference", "to random": "random_difference"}
    columns = {
        place: bars([getattr(row, drawn[name]) for row in rows], rows[0].margin)
        for place, name in enumerate(head.partition("\n")[0] for head in claims.heads)
        if name in drawn
    }
    return Group(
        heading,
        rows[0].settings["epochs"] == 1,
        sum(row.n for row in rows),
        ratio.findings,
        claims,
        columns,
        whole_table(rows),
        ratio.notes,
        [sheet for sheet in own if sheet.kind == "outcomes"],
    )


def _valid_seconds(records: Sequence[Record]) -> str:
    """Returns a sentence on the number of runs with valid seconds."""
    valid, all_runs = sum(not record.disturbed for record in records), len(records)
    if valid == all_runs:
        return "All runs have valid seconds."
    number = f"{valid:,}" if valid else "None"
    have = "has" if valid == 1 else "have"
    return f"{number} of {count(all_runs, 'run')} {have} valid seconds; other work disturbed the rest."


def plots_by_group(
    contents: Contents,
    images: Callable[[Record], Any] | None,
    warn: Callable[[str], None],
    doing: Callable[[str], None] = lambda what: None,
) -> dict[str, list[tuple[str, str, str]]]:
    """Returns kind, caption and `data:` URI of each plot, by the title of its group.

    Args:
        contents: The report.
        images: Opens the training images of a record's run.
        warn: Is called with the reason where a plot is left out.
        doing: Is called with a line about each plot.
    """
    from sadp_bench.reports.plots import as_data_uri, plots_of

    found: dict[str, list[tuple[str, str, str]]] = {}
    most = MOST_PLOTS if len(contents.groups) > 1 else None
    drawn = plots_of(contents.records, images, warn, contents.failures, contents.searches, most)
    for number, plot in enumerate(drawn, start=1):
        doing(f"drawing plot {number}")
        found.setdefault(plot.group, []).append((plot.kind, plot.caption, as_data_uri(plot.figure)))
    return found


def _file(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _by_kind(sheets: Iterable[Sheet]) -> dict[str, list[Sheet]]:
    found: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        found.setdefault(sheet.kind, []).append(sheet)
    return found


def _environment(records: Iterable[Record], name: str) -> list[str]:
    return sorted({str(record.environment.get(name, "unknown")) for record in records})


def _facts(contents: Contents, num_left_out: int) -> list[tuple[str, str]]:
    """Returns names and values of the page's overview: runs, methods, data, networks, machine and versions."""
    records, specs = contents.records, contents.specs
    beside = [f"{len(contents.failures):,} failed"] if contents.failures else []
    beside += [f"{num_left_out:,} left out"] if num_left_out else []
    of = {name: listed(_environment(records, name)) for name in ("processor", "device", "torch", "spikingjelly")}
    days = sorted({str(record.finished)[:10] for record in records})
    axes = {"Time axis": [row.time for row in contents.axes], "Weight axis": [row.weights for row in contents.axes]}
    ratios = sorted({spec.ratio for spec in specs if spec.method != "full"})
    return [
        ("Runs", f"{len(records):,}{f' ({listed(beside)})' if beside else ''}"),
        ("Methods", listed(list(dict.fromkeys(row.method for row in contents.rows)))),
        ("Pruning ratios", listed([percent(ratio) for ratio in ratios]) or "none"),
        *((name, ", ".join(dict.fromkeys(values))) for name, values in axes.items() if values),
        ("Seeds", listed([str(seed) for seed in sorted({spec.seed for spec in specs})])),
        ("Data", listed(sorted({spec.dataset for spec in specs}))),
        ("Networks", listed(sorted({spec.backbone for spec in specs}))),
        ("Measured on", f"{of['processor']} ({of['device']})"),
        ("Versions", f"torch {of['torch']}, spikingjelly {of['spikingjelly']}"),
        ("Finished", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"),
    ]


def _code(text: str) -> list[tuple[bool, str]]:
    """Returns (is code, text) for each part of a line. Code stands between backticks."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # the text itself contains a backtick
        return [(False, text)]
    return [(place % 2 == 1, part) for place, part in enumerate(parts)]


def _two(label: str) -> tuple[str, str]:
    """Returns the main part of a label, and its second line or its options in brackets."""
    main, line_end, below = label.partition("\n")
    if line_end:
        return main.removesuffix(" ·"), below
    method, bracket, options = label.partition(" (")
    return method, bracket.strip() + options


def _minus(text: str) -> str:
    """Returns the text with a minus sign for the hyphen before a number."""
    return re.sub(r"(?<![\w.)])-(?=\d)", "−", text)


def _tight(text: str) -> str:
    """Returns a sentence with a no-break space before each %."""
    return text.replace(" %", "\xa0%")


def _sort(value: float | str) -> str:
    return value if isinstance(value, str) else repr(value)
