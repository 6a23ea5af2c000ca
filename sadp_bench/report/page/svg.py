"""Another's SVG as part of the page: it can do nothing but draw, and gets in no other drawing's way."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from sadp_bench.report.page.markup import Markup, element

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
ELEMENTS = frozenset(
    "g path use defs clipPath rect text tspan image pattern circle ellipse line polyline polygon".split()
)
ATTRIBUTES = frozenset(
    "id d x y x1 x2 y1 y2 cx cy r rx ry width height viewBox points transform clip-path clip-rule fill fill-opacity "
    "fill-rule stroke stroke-width stroke-opacity stroke-linejoin stroke-linecap stroke-dasharray stroke-dashoffset "
    "stroke-miterlimit opacity font-size font-weight font-style text-anchor patternUnits patternTransform "
    "preserveAspectRatio".split()
)
PICTURE = "data:image/png;base64,"
FONT_SIZE = re.compile(r"(?<![\w.])[\d.]+px")


def cleaned(svg: str, prefix: str, label: str) -> Markup:
    """The drawing anew, of known elements and attributes only. prefix: of all its ids. label: what it shows, in words."""
    root = ElementTree.fromstring(svg)
    return element("svg", *_children(root, prefix), viewBox=root.get("viewBox"), role="img", aria_label=label)


def _children(node: ElementTree.Element, prefix: str) -> list[str]:
    parts = [_text(node.text)]
    for child in node:
        name = child.tag.removeprefix(SVG) if isinstance(child.tag, str) else ""
        if name in ELEMENTS:
            parts.append(element(name, *_children(child, prefix), **_attributes(child, prefix)))
        parts.append(_text(child.tail))
    return parts


def _text(text: str | None) -> str:
    return text if text and text.strip() else ""


def _attributes(node: ElementTree.Element, prefix: str) -> dict[str, str]:
    given = {**node.attrib, **_declarations(node.get("style", ""))}
    kept = {name: value for name, value in given.items() if name in ATTRIBUTES}
    for name, value in kept.items():
        kept[name] = prefix + value if name == "id" else value.replace("url(#", f"url(#{prefix}")
    link = node.get(LINK, node.get("href", ""))
    if link.startswith("#"):
        kept["href"] = f"#{prefix}{link[1:]}"
    elif link.startswith(PICTURE):
        kept["href"] = link
    return kept


def _declarations(style: str) -> dict[str, str]:
    """A style attribute's as attributes of their own, which the page's security policy lets pass."""
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            size = FONT_SIZE.search(value)
            found |= {"font-size": size.group()} if size else {}
            found |= {"font-weight": "bold"} if {"bold", "700"} & set(value.split()) else {}
        elif name:
            found[name] = value
    return found
