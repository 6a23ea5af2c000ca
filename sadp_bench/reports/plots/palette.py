"""The color and the marker of each method: fixed for registered methods, from a hash of the name for others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

# Okabe and Ito's palette. Its black is the color of full; its yellow is too pale on white.
BLUE, ORANGE, GREEN, PINK, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
# Two colors of Tol's scheme "muted", and a violet that color-blind readers can tell from all others.
INDIGO, WINE, VIOLET = "#332288", "#882255", "#7C3AED"
BROWN, GRAY, SLATE = "#7A4B00", "#707070", "#333333"
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, INDIGO, WINE, VIOLET)  # colors of methods that are not registered
MARKERS = "osD^vPX<>ph"
# Only SADP is vermilion. Random sampling is gray; the controls without a selection are brown and slate. Methods that are
# often compared differ in color. All methods differ in color or marker.
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
# Color and marker of each choice on the time axis.
TIMES = {
    "bptt": ("#000000", "*"),
    "sltt": (BLUE, "o"),
    "sltt-k": (ORANGE, "s"),
    "local": (GREEN, "^"),
}
# Fills and lines of a method's variants. The counts 5 and 4 are coprime, so twenty variants differ.
FILLS = ("full", "none", "left", "top", "right")
LINES = ("-", "--", ":", "-.")


def looks(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Returns the color and the marker of each method.

    A method that is not in `REGISTERED` gets a pair that is not used there, chosen by the hash of its name. Where two names
    have the same pair, the later in the alphabet gets the next free one.
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
    """Returns the style of each label: color and marker of its method, fill and line of its variant.

    A label without options is the first variant. A report calls this once, so that a variant looks the same in all plots.

    Args:
        methods: The method of each label.
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
