"""The plots, drawn as for `--plots`, inside the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sadp_bench.records.record import Failure, Record
from sadp_bench.report.page.markup import Markup, element, scrolling
from sadp_bench.report.page.svg import cleaned
from sadp_bench.report.plots.style import as_bytes, slug

Open = Callable[[Record], Any]

# By the kind that ends a file's name, in reading order.
KINDS = {
    "accuracy": "Accuracy against pruning ratio",
    "speedup": "Measured speed-up against the theoretical maximum",
    "time": "Accuracy against charged time",
    "phases": "Where the time goes",
    "progress": "Accuracy as training goes on",
    "kept": "Examples kept, by epoch",
    "visits": "How often each example was trained on",
    "classes": "Visits by class",
    "pictures": "The most and the least chosen images",
    "memory": "Training memory against time steps",
}


class Figures:
    """All figures of the records. left_out: why something was not drawn."""

    def __init__(
        self,
        records: Sequence[Record],
        titles: Iterable[str],
        images: Open | None = None,
        failures: Sequence[Failure] = (),
    ) -> None:
        """titles: of the groups, which figures are sorted to by their files' names. images: as `plots.draw` takes it."""
        self.left_out: list[str] = []
        self._by_title: dict[str, list[Markup]] = {}
        slugs = {slug(title): title for title in titles}
        found = [(_owner(name, slugs), name, svg) for name, svg in self._drawn(records, images, failures)]
        found.sort(key=lambda figure: _place(_kind(figure[0], figure[1])))
        for number, (own, name, svg) in enumerate(found):
            title, kind = slugs.get(own, ""), _kind(own, name)
            caption = _words(kind)
            label = f"{caption}: {title}" if title else caption
            drawing = scrolling(cleaned(svg, f"f{number}-", label), f"Plot, {label}")
            figure = element("figure", element("figcaption", caption), drawing, class_=f"plot {kind.partition('-')[0]}")
            self._by_title.setdefault(title, []).append(figure)

    def of(self, title: str) -> list[Markup]:
        """Of the group of this title; of '', those that belong to none."""
        return self._by_title.get(title, [])

    def _drawn(
        self, records: Sequence[Record], images: Open | None, failures: Sequence[Failure]
    ) -> list[tuple[str, str]]:
        """(name, SVG) of each figure. Text stays text: it can be searched and read aloud, and takes the page's font."""
        import matplotlib

        from sadp_bench.report.plots import plots_of

        plots = plots_of(records, images, self.left_out.append, failures)
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            return sorted((plot.name, as_bytes(plot.figure, "svg").decode()) for plot in plots)


def _owner(name: str, slugs: Iterable[str]) -> str:
    """The longest slug that the file's name begins with; '' of a figure that belongs to no group."""
    return max((own for own in slugs if name.startswith(f"{own}-")), key=len, default="")


def _kind(own: str, name: str) -> str:
    """'visits-r0.5'."""
    return name.removeprefix(f"{own}-")


def _place(kind: str) -> int:
    """Of several of one name, which differ in the ratio, the order of the files stays."""
    name = kind.partition("-r")[0]
    return list(KINDS).index(name) if name in KINDS else len(KINDS)


def _words(kind: str) -> str:
    """'How often each example was trained on, at 50 %'."""
    name, _, ratio = kind.partition("-r")
    if name not in KINDS:
        return kind.replace("-", " ")
    return f"{KINDS[name]}, at {100 * float(ratio):g} %" if ratio else KINDS[name]
