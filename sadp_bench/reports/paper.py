"""An author's choices for tables and figures of a paper: the methods, their names, the cells, caption and label."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import nearest
from sadp_bench.reports.rows import RatioRow

CELLS = ("both", "accuracy", "speedup")
SPREADS = ("ci", "std")
LABEL = "tab:results"
ALLOWED_LABEL = re.compile(r"[\w:.+/-]+")  # other letters could end a label in LaTeX


@dataclass(frozen=True)
class Paper:
    """An author's choices.

    Attributes:
        caption: The table's caption, LaTeX source; "" for a generated one that explains the numbers.
        label: The table's label. The label of the second group ends in -2, that of paired differences in -differences.
        names: Printed names, by method or by the label that a table shows.
        methods: The methods or labels to show, in their order; () for all. Full data is always shown.
        cells: One of CELLS.
        spread: "ci", the 95 % interval, or "std", the standard deviation over the seeds.
    """

    caption: str = ""
    label: str = LABEL
    names: Mapping[str, str] = field(default_factory=dict)
    methods: Sequence[str] = ()
    cells: str = "both"
    spread: str = "ci"

    def __post_init__(self) -> None:
        """Raises BadInput where a choice is not allowed."""
        if self.cells not in CELLS:
            raise BadInput(f"--cells is one of {', '.join(CELLS)}, not '{self.cells}'")
        if self.spread not in SPREADS:
            raise BadInput(f"--spread is one of {', '.join(SPREADS)}, not '{self.spread}'")
        if not ALLOWED_LABEL.fullmatch(self.label):
            raise BadInput(f"--label is made of letters, digits and :.+/-_, such as {LABEL}, not '{self.label}'")

    def shown(self, rows: Sequence[RatioRow]) -> list[RatioRow]:
        """Returns the rows of the chosen methods in their order, full first."""
        if not self.methods:
            return list(rows)
        full = [row for row in rows if row.is_full and not _among(row, self.methods)]
        return full + [row for name in self.methods for row in rows if _is(row, name)]

    def name(self, row: RatioRow) -> str:
        """Returns the printed name of a row's method."""
        if row.label in self.names:
            return self.names[row.label]
        known = next((name for name in (row.display_label, row.method) if name in self.names), None)
        if known is None:
            return row.display_label
        return self.names[known] + (row.label.removeprefix(row.method) if known == row.method else "")

    def named(self, row: RatioRow) -> RatioRow:
        """Returns the row with its printed name."""
        name = self.name(row)
        return row if name == row.display_label else dataclasses.replace(row, print_label=name)

    def check(self, rows: Iterable[RatioRow]) -> None:
        """Raises BadInput where a named method is in no row."""
        rows = list(rows)
        known = sorted({name for row in rows for name in (row.label, row.method)})
        for option, names in (("--names", self.names), ("--methods", self.methods)):
            for name in names:
                if not any(_is(row, name) for row in rows):
                    raise BadInput(f"{option}: no method '{name}' in these records{nearest(name, known)}")


def _is(row: RatioRow, name: str) -> bool:
    return name in (row.label, row.method, row.display_label)


def _among(row: RatioRow, names: Iterable[str]) -> bool:
    return any(_is(row, name) for name in names)


def words(text: str) -> list[str]:
    """Returns the parts of a text between commas outside of brackets: 'sadp (a=1, b=2), random' has two."""
    return [part.strip() for part in _split(text, ",") if part.strip()]


def names_of(texts: Iterable[str]) -> dict[str, str]:
    """Returns names by method, given texts such as 'sadp=Ours' and 'sadp (a=1)=Ours, random=Uniform'."""
    found = {}
    for part in (part for text in texts for part in words(text)):
        method, *rest = _split(part, "=")
        if not rest or not method.strip() or not "=".join(rest).strip():
            raise BadInput(f"--names is METHOD=NAME, such as 'sadp=Ours', not '{part}'")
        found[method.strip()] = "=".join(rest).strip()
    return found


def _split(text: str, separator: str) -> list[str]:
    """Returns the parts of a text between separators outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == separator and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
