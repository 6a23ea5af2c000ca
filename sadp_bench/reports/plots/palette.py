"""The color and the marker of each method: fixed for registered methods, by the name for all others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

# Okabe and Ito's palette without its black, which is full's, and its yellow, too pale on white.
BLUE, ORANGE, GREEN, PINK, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
# Two of Tol's scheme "muted", and a violet that stays apart from all of these for color-blind readers too.
INDIGO, WINE, VIOLET = "#332288", "#882255", "#7C3AED"
BROWN, GRAY, SLATE = "#7A4B00", "#707070", "#333333"
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, INDIGO, WINE, VIOLET)  # of methods without a color of their own
MARKERS = "osD^vPX<>ph"
# Vermilion is SADP's alone, gray random sampling's, brown and slate those of the controls without a selection. Methods that
# are often compared differ in color; all differ in color or marker.
REGISTERED = {
    "sadp": (VERMILION, "o"),
    "random": (GRAY, "s"),
    "balanced-random": (GRAY, "D"),
    "subset": (GRAY, "^"),
    "fewer-epochs": (BROWN, "X"),
    "ceiling": (SLATE, "P"),
    "infobatch": (BLUE, "D"),
    "el2n": (ORANGE, "^"),
    "grand": (GREEN, "v"),
    "forgetting": (PINK, "P"),
    "hwbs": (SKY, ">"),
    "moderate": (INDIGO, "<"),
    "ccs": (WINE, "p"),
    "drop": (VIOLET, "h"),
    "entropy": (BLUE, "^"),
    "least-confidence": (ORANGE, "v"),
    "margin": (GREEN, "P"),
    "craig": (PINK, ">"),
    "gradmatch": (SKY, "<"),
    "glister": (INDIGO, "p"),
    "herding": (WINE, "h"),
    "k-center": (VIOLET, "o"),
    "tdds": (BLUE, "v"),
    "dual": (ORANGE, "P"),
    "dyn-unc": (GREEN, ">"),
    "d2": (PINK, "<"),
    "rcap": (SKY, "p"),
    "importance-sampling": (INDIGO, "h"),
    "selective-backprop": (WINE, "o"),
    "divbs": (VIOLET, "s"),
    "ucb": (BLUE, "P"),
    "eps-greedy": (ORANGE, ">"),
    "dyn-unc-dynamic": (GREEN, "<"),
    "kakurenbo": (PINK, "p"),
    "repb": (SKY, "h"),
    "seta": (INDIGO, "o"),
    "ies": (WINE, "s"),
    "orderdp": (VIOLET, "D"),
}
# Of the choices of a run's time axis.
TIMES = {
    "bptt": ("#000000", "*"),
    "sltt": (BLUE, "o"),
    "sltt-k": (ORANGE, "s"),
    "local": (GREEN, "^"),
}
# Of variants of a method. Their numbers are coprime, so twenty variants differ.
FILLS = ("full", "none", "left", "top", "right")
LINES = ("-", "--", ":", "-.")


def looks(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Returns the color and the marker of each method.

    A method that is not registered here has one of the pairs that registered methods leave. Its name's hash chooses the pair.
    Where two names choose alike, the later in the alphabet takes the next free pair.
    """
    rest = [(color, marker) for marker in MARKERS for color in COLORS if (color, marker) not in REGISTERED.values()]
    found, taken = {}, set()
    for method in sorted(set(methods)):
        if method in REGISTERED:
            found[method] = REGISTERED[method]
            continue
        first = int.from_bytes(hashlib.sha256(method.encode()).digest()) % len(rest)
        free = [(first + step) % len(rest) for step in range(len(rest)) if (first + step) % len(rest) not in taken]
        place = free[0] if free else first
        taken.add(place)
        found[method] = rest[place]
    return found


def variant(number: int) -> dict[str, Any]:
    """Returns the fill of the marker and the line of a method's variant; the first is filled and solid."""
    return {
        "fillstyle": FILLS[number % len(FILLS)],
        "linestyle": LINES[number % len(LINES)],
        "markerfacecoloralt": "white",
    }


def method_styles(methods: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns the style of each label, given its method: the method's color and marker, fill and line by variant.

    A label without options is the first variant. A report calls this once, so that a variant looks the same in all plots.
    """
    pairs = looks(method for method in methods.values() if method != "full")
    count: dict[str, int] = {method: 1 for label, method in methods.items() if label == method}
    styles = {}
    for label, method in methods.items():
        if method == "full":
            continue
        number = 0 if label == method else count.get(method, 0)
        if label != method:
            count[method] = number + 1
        color, marker = pairs[method]
        styles[label] = {"color": color, "marker": marker, **variant(number)}
    return styles
