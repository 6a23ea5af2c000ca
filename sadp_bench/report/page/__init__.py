"""The report as one HTML page that stands alone: no script, style, font or picture comes from anywhere else.

It reads without its script, which only sorts; it prints; and whatever a record says is shown as text (see `markup`). A
Content-Security-Policy names the page's own style and script by their hashes, and forbids every other and all traffic.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from importlib.resources import files

from sadp_bench import __version__
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.report.further import further
from sadp_bench.report.notes import notes
from sadp_bench.report.page import axes, runs, summary
from sadp_bench.report.page.figures import Figures, Open
from sadp_bench.report.page.guide import guide
from sadp_bench.report.page.markup import Markup, element, joined, with_code
from sadp_bench.report.page.tables import grid_table, group_table
from sadp_bench.report.page.wording import listed, many
from sadp_bench.report.ranks import rank_sheet, why_no_ranks
from sadp_bench.report.tables import Row


def page(
    records: Iterable[Record],
    table: Sequence[Row],
    problems: Iterable[str] = (),
    failures: Iterable[Failure] = (),
    images: Open | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """table: the `rows` of these records and failures, of which one at least has a number. problems: files left out.
    images: for the pictures, as `plots.draw` takes it. remarks: of whoever keeps the records.

    The same records give the same bytes, in whatever order.
    """
    records = sorted(records, key=lambda record: record.spec.key)
    failures = sorted(failures, key=lambda failure: failure.spec.key)
    specs = [record.spec for record in records] + [failure.spec for failure in failures]
    groups = [list(rows) for _, rows in itertools.groupby(table, key=lambda row: row["group"])]
    found = further(records)
    titles = dict.fromkeys(row["group"] for row in [*table, *found.memory])
    figures = Figures(records, titles, images, failures)
    left_out = [*problems, *figures.left_out]
    title = f"Data pruning on {listed(sorted({spec.dataset for spec in specs}))}"
    facts = summary.facts(records, specs, table, len(failures), len(left_out), axes.facts(found))
    by_ratio = [rows for rows in groups if not found.tells(rows)]
    main = [
        *([_section("findings", "Findings", summary.findings(by_ratio))] if by_ratio else []),
        *(_section(name, heading, *parts) for name, heading, parts in axes.sections(found, figures)),
        *(_group(number, rows, figures) for number, rows in enumerate(by_ratio, start=1)),
        _section("ranks", "Ranks over all groups", *_ranks(table), *figures.of("")),
        _section("runs", "Every run", *runs.sections(groups, records, failures)),
        _section("again", "All of it again", *_again(specs, records)),
        _section("guide", "How to read it", guide(table[0].get("margin"))),
        *([_section("left-out", "Left out", _list(left_out))] if left_out else []),
    ]
    body = element(
        "body",
        element(
            "header", element("h1", title), _lead(specs, len(records)), *([_list(remarks)] if remarks else []), facts
        ),
        element("main", *main),
        element("footer", f"Made by sadp-bench {__version__} from its records."),
    )
    return f"<!doctype html>\n{element('html', _head(title, bool(found)), body, lang='en')}\n"


def _head(title: str, with_axes: bool) -> Markup:
    style = Markup(_own("page.css") + (_own("axes.css") if with_axes else ""))
    script = Markup(_own("page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · sadp-bench"),
        element("link", rel="icon", href="data:,"),
        element("style", style),
        element("script", script, type="module"),
    )


def _own(name: str) -> str:
    return (files(__name__) / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _lead(specs: Sequence[Spec], runs_done: int) -> Markup:
    methods = {spec.method for spec in specs} - {"full"}
    text = (
        f"{many(runs_done, 'training run')} of spiking networks: full data against {many(len(methods), 'method')} of saving "
        "example visits. Runs are paired by seed; all seconds were measured."
    )
    return element("p", text, class_="lead")


def _section(name: str, title: str, *parts: Markup) -> Markup:
    return element("section", element("h2", title), *parts, id=name)


def _group(number: int, rows: list[Row], figures: Figures) -> Markup:
    plots = figures.of(rows[0]["group"])
    shown = [element("div", *plots, class_="plots")] if plots else []
    return _section(f"group-{number}", rows[0]["group"], group_table(rows), _list(notes(rows)), *shown)


def _list(lines: Iterable[str]) -> Markup:
    return element("ul", *(element("li", with_code(line)) for line in lines), class_="notes")


def _ranks(table: Sequence[Row]) -> list[Markup]:
    sheet = rank_sheet(list(table))
    if sheet is None:
        return [_list([line]) if (line := why_no_ranks(list(table))) else Markup()]
    return [
        *(grid_table(caption or sheet.title, grid) for caption, grid in sheet.grids),
        _list([sheet.title, *sheet.notes]),
    ]


def _again(specs: Sequence[Spec], records: Sequence[Record]) -> list[Markup]:
    page = "sadp-bench report runs --format html --to report.html"
    commits = sorted({str(record.environment.get("commit", "unknown")) for record in records})
    made = f"The runs were made at commit {listed(commits)}. Each command trains one run, with every choice named."
    return [
        element("p", made),
        runs.commands(specs),
        element("p", joined(["Then this page: ", element("code", page)])),
    ]
