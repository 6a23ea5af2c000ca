"""Small drawings beside numbers: an interval on a strip, a run's loss and accuracy by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sadp_bench.records.record import MAX_VALUE, is_number
from sadp_bench.report.page.markup import Markup, element
from sadp_bench.report.page.wording import plain

Point = tuple[float, float]

STRIP_WIDTH, STRIP_HEIGHT = 96, 12
WIDTH, HEIGHT = 380, 130
LEFT, RIGHT, TOP, BOTTOM = 40, 340, 16, 108  # of the curve's frame
MAX_POINTS = 300


def strip(mean: float, low: float | None, high: float | None, scale: Point, margin: float | None) -> Markup:
    """A difference on a line between the two ends of the scale; what reaches further is cut off. Dashed: the margin."""

    def x(value: float) -> float:
        share = (value - scale[0]) / (scale[1] - scale[0])
        return round(3 + (STRIP_WIDTH - 6) * max(0.0, min(1.0, share)), 1)

    middle = STRIP_HEIGHT / 2
    marks = [element("line", x1=x(0), x2=x(0), y1=0, y2=STRIP_HEIGHT, class_="zero")]
    if margin is not None:
        marks.append(element("line", x1=x(-margin), x2=x(-margin), y1=0, y2=STRIP_HEIGHT, class_="margin"))
    if low is not None and high is not None:
        marks.append(element("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="reach"))
    marks.append(element("circle", cx=x(mean), cy=middle, r=3, class_="mean"))
    return element("svg", *marks, viewBox=f"0 0 {STRIP_WIDTH} {STRIP_HEIGHT}", class_="strip", aria_hidden="true")


def curve(epochs: Sequence[Mapping[str, Any]], label: str) -> Markup | None:
    """Training loss and evaluated accuracy by epoch, each on a scale of its own. None where neither is recorded."""
    losses, accuracies = _points(epochs, "train_loss"), _points(epochs, "test_accuracy")
    lines = [
        *_line(losses, len(epochs), "loss", LEFT - 6, "end", 1, 2),
        *_line(accuracies, len(epochs), "accuracy", RIGHT + 6, "start", 100, 1),
    ]
    if not lines:
        return None
    frame = element("path", d=f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}", class_="frame")
    titles = [
        *_title(losses, "loss", LEFT - 6, "start", "training loss"),
        *_title(accuracies, "accuracy", RIGHT + 6, "end", "accuracy (%)"),
        element("text", "1", x=LEFT, y=BOTTOM + 14, text_anchor="middle"),
        element("text", "epoch", x=(LEFT + RIGHT) / 2, y=BOTTOM + 14, text_anchor="middle"),
        element("text", len(epochs), x=RIGHT, y=BOTTOM + 14, text_anchor="middle"),
    ]
    box = f"0 0 {WIDTH} {HEIGHT}"
    return element("svg", frame, *lines, *titles, viewBox=box, class_="curve", role="img", aria_label=label)


def _points(epochs: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """(number of the epoch, value); every so-manieth where there are more than a drawing can show, and the last."""
    values = [(float(number), row.get(name)) for number, row in enumerate(epochs)]
    points = [(number, float(value)) for number, value in values if _drawable(value) and value is not None]
    step = -(-len(points) // MAX_POINTS) or 1
    return points[:-1][::step] + points[-1:]


def _drawable(value: Any) -> bool:
    return is_number(value) and abs(value) <= MAX_VALUE


def _title(points: Sequence[Point], kind: str, x: float, anchor: str, text: str) -> list[Markup]:
    return [element("text", text, x=x, y=TOP - 6, text_anchor=anchor, class_=kind)] if points else []


def _line(
    points: Sequence[Point], num_epochs: int, kind: str, x_label: float, anchor: str, scale: float, digits: int
) -> list[Markup]:
    """The line, a dot where a value stands alone or few do, and the ends of its scale."""
    if not points:
        return []
    values = [value for _, value in points]
    low, high = min(values), max(values)

    def place(point: Point) -> str:
        x = LEFT + (RIGHT - LEFT) * point[0] / max(1, num_epochs - 1)
        y = BOTTOM - (BOTTOM - TOP) * ((point[1] - low) / (high - low) if high > low else 0.5)
        return f"{x:.1f} {y:.1f}"

    places = [place(point) for point in points]
    marks = [element("path", d="M" + "L".join(places), class_=f"line {kind}")]
    if len(points) <= 20:
        dots = [dict(zip(("cx", "cy"), at.split(), strict=True)) for at in places]
        marks += [element("circle", **dot, r=2.2, class_=f"dot {kind}") for dot in dots]
    ends = [(BOTTOM, low), (TOP + 8, high)] if high > low else [((TOP + BOTTOM) / 2 + 4, low)]
    labels = [(y, plain(scale * value, digits)) for y, value in ends]
    return marks + [element("text", text, x=x_label, y=y, text_anchor=anchor, class_=kind) for y, text in labels]
