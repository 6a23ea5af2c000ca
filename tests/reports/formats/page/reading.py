"""HTML as a tree, read strictly."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "img"}


class Node:
    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name, self.attributes, self.parts = name, attributes, list[Any]()

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    def all(self, name: str | None = None, **wanted: str) -> list[Node]:
        """Returns the nodes below with this name and these attributes. `class_` is one word of the class."""
        below = [node for part in self.parts if isinstance(part, Node) for node in (part, *part.all())]
        return [node for node in below if name in (None, node.name) and node.has(wanted)]

    def has(self, wanted: dict[str, str]) -> bool:
        result = self.attributes
        return all(
            value in result.get("class", "").split() if key == "class_" else result.get(key) == value
            for key, value in wanted.items()
        )


class Tree(HTMLParser):
    """Reads HTML as a browser does, but an element left open or closed twice is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open = [Node("", {})]
        self.feed(text)
        assert len(self.open) == 1, f"left open: {self.open[-1].name}"
        self.top = self.open[0]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def tree(text: str) -> Node:
    return Tree(text).top
