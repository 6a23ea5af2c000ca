"""The report as one HTML page that stands alone: no script, style, font or picture comes from anywhere else.

The page reads without its script, which only sorts tables. The template escapes all text of records. A
Content-Security-Policy names the page's style and script by their hashes, and forbids all other ones and all traffic.
Figures are images from `data:` URIs, which cannot run a script.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.resources import files
from typing import Any

from sadp_bench import __version__
from sadp_bench.core.text import count, listed, percent
from sadp_bench.records.record import Record
from sadp_bench.reports.contents import Contents
from sadp_bench.reports.formats.run_details import commands, run_details
from sadp_bench.reports.tables.by_ratio import RANDOM_VERDICT, VERDICT, whole_table
from sadp_bench.reports.tables.findings import best_methods
from sadp_bench.reports.tables.table import Sheet

ROW_KINDS = {
    "outcomes": "Training loss, and the share of the possible",
    "axes": "Data, time and weights together",
    "memory": "Training memory against time steps",
    "search": "The search for connections",
}
# A sign each, so that no color has to be seen.
VERDICT_SIGNS = {"lossless": "●", "better": "▲", "level": "●", "worse": "▼", "undecided": "○"}
VERDICT_HEADS = (VERDICT.heading, RANDOM_VERDICT.heading)


def page(
    contents: Contents, images: Callable[[Record], Any] | None = None, doing: Callable[[str], None] = lambda what: None
) -> str:
    """Returns the page. The same records in any order give the same bytes.

    Args:
        contents: The report, in which one row at least has a number.
        images: Opens the images that a record was trained on (`plots.pictures.at_hand`).
        doing: Is called with what goes on, where that takes long.
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
    environment.filters |= {"code": _code, "two": _two, "minus": _minus, "sort": _sort, "count": count}
    left_out = list(contents.problems)
    plots = plots_by_group(contents, images, left_out.append, doing)
    specs = contents.specs
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
        facts=_facts(contents, len(left_out)),
        findings=best_methods(contents.groups),
        kinds=ROW_KINDS,
        sheets=_by_kind(contents.sheets),
        groups=[(rows[0].group, whole_table(rows)) for rows in contents.groups],
        plots=plots,
        verdicts=VERDICT_SIGNS,
        verdict_heads=VERDICT_HEADS,
        runs=run_details(contents.rows, contents.records, contents.searches),
        commands=commands(specs),
        commits=listed(_environment(contents.records, "commit")),
        left_out=left_out,
    )


def plots_by_group(
    contents: Contents,
    images: Callable[[Record], Any] | None,
    warn: Callable[[str], None],
    doing: Callable[[str], None] = lambda what: None,
) -> dict[str, list[tuple[str, str, str]]]:
    """Returns kind, caption and `data:` URI of each plot, by the title of its group.

    Args:
        contents: The report.
        images: Opens the images that a record was trained on.
        warn: Is called with the reason why a plot is left out.
        doing: Is called with what goes on.
    """
    from sadp_bench.reports.plots import as_data_uri, plots_of

    found: dict[str, list[tuple[str, str, str]]] = {}
    drawn = plots_of(contents.records, images, warn, contents.failures, contents.searches)
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
    """Returns the compared methods, and the data and network of the comparison."""
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
    """Returns the parts of a line, and whether each is code: code stands between backticks."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # the text itself contains a backtick
        return [(False, text)]
    return [(place % 2 == 1, part) for place, part in enumerate(parts)]


def _two(label: str) -> tuple[str, str]:
    """Returns the main part of a label and its smaller part: a second line, or options in brackets."""
    main, line_end, below = label.partition("\n")
    if line_end:
        return main.removesuffix(" ·"), below
    method, bracket, options = label.partition(" (")
    return method, bracket.strip() + options


def _minus(text: str) -> str:
    """Returns the text with a minus sign for the hyphen before a number."""
    return re.sub(r"(?<![\w.)])-(?=\d)", "−", text)


def _sort(value: float | str) -> str:
    return value if isinstance(value, str) else repr(value)
