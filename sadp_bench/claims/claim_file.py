"""Claim files: a claim in plain English, its metrics with their pass bands, and the runs as in a sweep file.

The table `[claim]` has the text and its source. Each block `[[metric]]` has a kind in `metrics.KINDS`, the runs that it reads
and its band. The tables of a sweep file, `[common]` and `[[sweep]]`, name the runs. `sadp-bench sweep` reads the file too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sadp_bench.claims.metrics import KINDS, Kind
from sadp_bench.claims.verdict import Band
from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import nearest
from sadp_bench.records.record import is_number
from sadp_bench.sweeps.search import shown
from sadp_bench.sweeps.sweep_file import flat_table, read_tables

FOLDER = Path(__file__).parent  # folder of the claims that the package contains
SUFFIX = ".toml"
NOT_MEASURED = "not measured"
MOST = 1e9  # largest end of a band, and largest number of core-minutes
FULL = "full"  # value of `against` for the full-data references of the runs
CLAIM_KEYS = ("text", "source", "core_minutes", "untestable")
METRIC_KEYS = ("name", "kind", "of", "against", "at_least", "at_most", "premise", "untestable")

Selector = Mapping[str, list[Any]]  # selects runs: field, or "set.KEY" -> the values that it allows


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One measurement of a claim.

    Attributes:
        name: Its name in plain English.
        kind: A key of `KINDS`; "" where the metric is not testable here.
        of: Selects the runs.
        against: Selects the runs to compare them with; `FULL`: their references; None: a kind without comparison.
        band: The values with which the claim holds; None where the metric is not testable here.
        premise: Whether the metric is a premise: no part of the claim, but a test that the setting is the claim's.
        untestable: The reason why it is not testable here; "" where it is testable.
    """

    name: str
    kind: str
    of: Selector
    against: Selector | str | None
    band: Band | None
    premise: bool = False
    untestable: str = ""

    @property
    def of_kind(self) -> Kind:
        """The metric's kind; only for a testable metric."""
        return KINDS[self.kind]


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a paper.

    Attributes:
        name: The file's name without its suffix.
        path: The file.
        text: The claim in plain English.
        source: Authors, title or venue, year, and the place of the number.
        core_minutes: Measured cost of all runs; None: not measured.
        metrics: Its measurements; empty where the claim is not testable here.
        untestable: The reason why it is not testable here; "" where it is testable.
    """

    name: str
    path: Path
    text: str
    source: str
    core_minutes: float | None
    metrics: tuple[Metric, ...]
    untestable: str = ""

    @property
    def testable(self) -> tuple[Metric, ...]:
        """The metrics that are testable here."""
        return () if self.untestable else tuple(metric for metric in self.metrics if not metric.untestable)

    def to_json(self) -> dict[str, Any]:
        """Returns the claim as a table, without its metrics."""
        found = {"name": self.name, "text": self.text, "source": self.source, "core_minutes": self.core_minutes}
        return found | {"untestable": self.untestable or None, "file": str(self.path)}


def catalog() -> dict[str, Path]:
    """Returns the files of the claims that the package contains, by the claims' names."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def find(name: str) -> Claim:
    """Returns a claim of the package by its name, or of a file by its path. Raises BadInput with the nearest name."""
    if name.endswith(SUFFIX):
        return read_claim(Path(name))
    claims = catalog()
    if name not in claims:
        raise BadInput(f"unknown claim '{name}'{nearest(name, claims)} (or the path of a {SUFFIX} file)")
    return read_claim(claims[name])


def read_claim(path: Path) -> Claim:
    """Returns the claim in a file, without its runs, which `sweep_file.read_sweep` reads. Raises BadInput with the place."""
    tables = read_tables(path)
    head = tables.get("claim")
    if not isinstance(head, dict):
        raise BadInput(f"{path} has no [claim]: such a table has the claim's text and source")
    where = f"{path}, [claim]"
    _check_keys(where, head, CLAIM_KEYS)
    text, source = (_text(where, head, key) for key in ("text", "source"))
    untestable = _text(where, head, "untestable", needed=False)
    blocks = tables.get("metric", [])
    if not isinstance(blocks, list) or not blocks and not untestable:
        raise BadInput(f"{path} has no [[metric]]: each such block, double brackets, has a kind and a pass band")
    metrics = tuple(_metric(f"{path}, [[metric]] {number}", block) for number, block in enumerate(blocks, 1))
    return Claim(path.stem, path, text, source, _minutes(where, head), metrics, untestable)


def _metric(where: str, block: Any) -> Metric:
    if not isinstance(block, dict):
        raise BadInput(f"{where} is not a table")
    _check_keys(where, block, METRIC_KEYS)
    name, untestable = _text(where, block, "name"), _text(where, block, "untestable", needed=False)
    premise = block.get("premise", False)
    if not isinstance(premise, bool):
        raise BadInput(f"{where}: premise is true or false, not {shown(premise)}")
    if untestable:
        if others := [key for key in block if key not in ("name", "untestable")]:
            raise BadInput(f"{where} is untestable, and so measures nothing: leave {', '.join(others)} out")
        return Metric(name, "", {}, None, None, premise, untestable)
    kind = _text(where, block, "kind")
    if kind not in KINDS:
        raise BadInput(f"{where}: unknown kind '{kind}'{nearest(kind, KINDS)}")
    against = _against(where, kind, block.get("against"))
    return Metric(name, kind, _selector(where, "of", block.get("of")), against, _band(where, block), premise)


def _against(where: str, kind: str, given: Any) -> Selector | str | None:
    if not KINDS[kind].of_pairs:
        if given is not None:
            raise BadInput(f"{where}: {kind} compares no runs; leave against out")
        return None
    return FULL if given == FULL else _selector(where, "against", given, f", or '{FULL}' for the full-data references")


def _selector(where: str, key: str, given: Any, more: str = "") -> Selector:
    if not isinstance(given, dict) or not given:
        raise BadInput(f"{where}: {key} selects runs by their keys in the file, such as {{ method = 'random' }}{more}")
    return flat_table(f"{where}, {key}", given)


def _band(where: str, block: Mapping[str, Any]) -> Band:
    ends = {key: block[key] for key in ("at_least", "at_most") if key in block}
    for key, end in ends.items():
        if not is_number(end) or not abs(end) <= MOST:
            raise BadInput(f"{where}: {key} is a number of at most {MOST:g}, not {shown(end)}")
    if not ends or len(ends) == 2 and ends["at_least"] > ends["at_most"]:
        what = f"not from {ends['at_least']:g} to {ends['at_most']:g}" if ends else "and it has none"
        raise BadInput(f"{where}: the pass band is at_least, at_most, or both in that order, {what}")
    return Band(ends.get("at_least"), ends.get("at_most"))


def _minutes(where: str, head: Mapping[str, Any]) -> float | None:
    given = head.get("core_minutes", NOT_MEASURED)
    if given == NOT_MEASURED:
        return None
    if not is_number(given) or not 0 < given <= MOST:
        raise BadInput(f"{where}: core_minutes is a number above 0, or '{NOT_MEASURED}', not {shown(given)}")
    return float(given)


def _check_keys(where: str, table: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in table:
        if key not in allowed:
            raise BadInput(f"{where}: unknown key '{key}'{nearest(key, allowed)}")


def _text(where: str, table: Mapping[str, Any], key: str, needed: bool = True) -> str:
    """Returns a text on one line."""
    given = table.get(key, "")
    if not isinstance(given, str):
        raise BadInput(f"{where}: {key} is a text, not {shown(given)}")
    text = " ".join(given.split())
    if not text and (needed or key in table):
        raise BadInput(f"{where} lacks {key}: write it as a text")
    return text
