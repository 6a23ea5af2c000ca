"""Figures as files and as bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sadp_bench.records.store import atomic
from sadp_bench.reports.plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("pdf", "png", "svg")


def slug(title: str) -> str:
    """Returns a readable file name, in any script, that is short enough for every file system."""
    name = re.sub(r"[^\w.]+", "-", title.replace(",", "")).strip("-.")
    return name if len(name.encode()) <= 150 else f"{name[:40]}-{hashlib.sha256(title.encode()).hexdigest()[:12]}"


def save_all(figure: Figure, folder: Path, name: str, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Saves a figure in each format and returns the files."""
    paths = [folder / f"{name}.{format}" for format in formats]
    for path in paths:
        content = as_bytes(figure, path.suffix[1:])
        with atomic(path) as file:
            file.write(content)
    return paths


def as_data_uri(figure: Figure, format: str = "svg") -> str:
    """Returns a figure as a `data:` URI, for the `src` of an image: svg or png."""
    kind = {"svg": "image/svg+xml", "png": "image/png"}[format]
    return f"data:{kind};base64,{base64.b64encode(as_bytes(figure, format)).decode()}"


def as_bytes(figure: Figure, format: str) -> bytes:
    """Returns a figure as pdf, png (200 dpi) or svg. The same figure gives the same bytes.

    The figure is laid out once, before it is first saved, so that all formats agree.
    """
    content = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    with drawing():
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)  # with any engine the figure would be drawn twice
        figure.savefig(content, format=format, dpi=200, metadata=metadata)
    return content.getvalue()
