"""Image files for tests, plain and odd, as bytes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 16  # pixels


def picture(height: int = SIDE, width: int = SIDE, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Returns smooth colours with an edge, uint8 [H, W, C]: JPEG keeps them nearly, and no two corners are alike."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(40 * (c + 1) + 90 * y / height + 60 * x / width + 13 * seed) % 256 for c in range(channels)]
    found = np.stack(planes, -1)
    found[: height // 2, : width // 2] += 40
    return np.clip(found, 0, 255).astype(np.uint8)


def encoded(image: Any, form: str = "PNG", **options: Any) -> bytes:
    """Returns an image (an array or PIL's) as a file's content."""
    sink = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(sink, form, **options)
    return sink.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def classes(*counts: int, prefix: str = "") -> dict[str, bytes]:
    """Returns PNG files of so many different images in the classes a, b, c, .."""
    return {
        f"{prefix}{chr(97 + label)}/{number:03}.png": encoded(picture(seed=31 * label + number))
        for label, count in enumerate(counts)
        for number in range(count)
    }


def png(width: int, height: int, depth: int, colour: int, rows: bytes, more: bytes = b"") -> bytes:
    """Returns a PNG file of raw rows, each with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + more + end


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(value: np.ndarray) -> bytes:
    """Returns a PNG file of 16 bits: grey [H, W] or colour [H, W, 3]."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in value)
    return png(value.shape[1], value.shape[0], 16, 2 if value.ndim == 3 else 0, rows)
