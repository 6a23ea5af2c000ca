"""The look of figures: for a page or for a paper, and their width."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sadp_bench.core.errors import BadInput

PAGE_WIDTH = 7.2  # inches
PAPER_WIDTH = 5.5  # inches, the width of text in NeurIPS; a column in ICML or IEEE has 3.25
WIDTHS = (2.0, 20.0)  # inches: smallest and largest width of a figure
LOOKS = ("page", "paper")


@dataclass(frozen=True, slots=True)
class Look:
    """The look of figures.

    Attributes:
        kind: "page", with title and notes, or "paper", without them and in letters of 8 pt.
        width: The width in inches; None for the default of the kind.
    """

    kind: str = "page"
    width: float | None = None

    def __post_init__(self) -> None:
        """Raises BadInput for an unknown kind and a width out of range."""
        if self.kind not in LOOKS:
            raise BadInput(f"--style is one of {', '.join(LOOKS)}, not '{self.kind}'")
        if self.width is not None and not WIDTHS[0] <= self.width <= WIDTHS[1]:
            raise BadInput(f"--width is from {WIDTHS[0]:g} to {WIDTHS[1]:g} inches, not {self.width:g}")

    @property
    def paper(self) -> bool:
        """Whether the figure is for a paper, which has its title and notes in a caption."""
        return self.kind == "paper"

    @property
    def inches(self) -> float:
        """The width of a figure, in inches."""
        return self.width or (PAPER_WIDTH if self.paper else PAGE_WIDTH)


PAGE = Look()
_look: ContextVar[Look] = ContextVar("look", default=PAGE)


@contextmanager
def looking(look: Look) -> Iterator[None]:
    """Sets the look of figures that are built within the context."""
    before = _look.set(look)
    try:
        yield
    finally:
        _look.reset(before)


def current_look() -> Look:
    """Returns the look of the figure that is being built."""
    return _look.get()
