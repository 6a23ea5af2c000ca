"""Decodes a JPEG, PNG or WebP file to the pixels of its central square, resized, in red, green and blue."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sadp_bench.core.files import Unreadable, read_bytes

MOST_BYTES = 1 << 28  # bytes of a file
MOST_PIXELS = 1 << 26  # pixels of an image; a file of few bytes may unpack to more than the memory
PNG = b"\x89PNG\r\n\x1a\n"
CHUNK_BYTES = 12  # bytes of a PNG file's chunk without its content: length, kind and checksum
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of JPEG that precede height and width
ALONE = {0x01, *range(0xD0, 0xD9)}  # markers of JPEG without a length


def decode_file(file: Path, side: int) -> Tensor:
    """Returns the pixels of an image file; see `decode`. Raises ValueError also where the file can't be read."""
    try:
        content = read_bytes(file, MOST_BYTES)
    except Unreadable as error:
        raise ValueError(f"can't be read: {error.reason}") from None
    return decode(content, side)


def decode(content: bytes, side: int) -> Tensor:
    """Returns the pixels of an image, uint8 [side, side, 3].

    The camera's orientation tag is applied. The largest central square is cut out and resized, with anti-aliasing. A grey
    image gets three equal channels. Transparency is dropped. Values of 16 bits keep their upper 8. An animated PNG file
    gives its still image.

    Args:
        content: The bytes of a JPEG, PNG or WebP file.
        side: Pixels of the result's sides.

    Raises:
        ValueError: The content is no such image, is damaged, too large or animated. The message has one line.
    """
    height, width = image_size(content)
    if height * width > MOST_PIXELS:
        raise ValueError(f"{height:,} x {width:,} pixels are more than {MOST_PIXELS:,}")
    pixels = _png_pixels(content) if content.startswith(PNG) else _other_pixels(content)
    return central_square(pixels, side).permute(1, 2, 0).contiguous()


def _other_pixels(content: bytes) -> Tensor:
    """Returns the pixels of a JPEG or WebP file, [3, H, W]."""
    from torchvision.io import ImageReadMode, decode_image  # takes 2 s to import, and a cache does not need it

    try:
        return decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB, True)
    except RuntimeError as error:  # "function, file:line, reason", and perhaps a trace
        reason = str(error).splitlines()[0].rpartition(", ")[2]
        raise ValueError(f"cannot be decoded: {reason[:120]}") from None


def _png_pixels(content: bytes) -> Tensor:
    """Returns the pixels of a PNG file, [3, H, W]. It uses Pillow, because torchvision 0.29 crashes at damaged files."""
    from PIL import Image, ImageOps

    _check_chunks(content)
    try:
        with Image.open(io.BytesIO(content)) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits of grey
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except Image.UnidentifiedImageError:  # its message has the address of an object
        raise ValueError("cannot be decoded: its header is damaged") from None
    except Exception as error:  # Damaged files raise errors of many kinds.
        raise ValueError(f"cannot be decoded: {' '.join(str(error).split())[:120]}") from None


def _check_chunks(content: bytes) -> None:
    """Raises ValueError where a chunk of a PNG file is cut, has a wrong checksum, or the last chunk is missing."""
    place, kind = len(PNG), b""
    while kind != b"IEND":
        kind = content[place + 4 : place + 8]
        end = place + CHUNK_BYTES + int.from_bytes(content[place : place + 4], "big")
        if end > len(content):
            raise ValueError(f"cannot be decoded: it ends within the chunk at byte {place:,}")
        if zlib.crc32(content[place + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            raise ValueError(f"cannot be decoded: the chunk at byte {place:,} has a wrong checksum")
        place = end


def central_square(pixels: Tensor, side: int) -> Tensor:
    """Returns the largest central square of an image [C, H, W], resized with anti-aliasing."""
    from torchvision.transforms.v2.functional import resize

    height, width = pixels.shape[-2:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = pixels[..., top : top + short, left : left + short]
    return square if short == side else resize(square, [side, side], antialias=True)


def image_size(content: bytes) -> tuple[int, int]:
    """Returns the height and width in the header of a JPEG or PNG file; (0, 0) for a WebP file.

    A WebP file has at most 2^28 pixels, because its format has 14 bits for each side.

    Raises:
        ValueError: The content has the header of none of the three, or ends within it.
    """
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(content)
    if content.startswith(PNG):
        if len(content) < 24:
            raise ValueError("ends within its header")
        return int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big")
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return 0, 0
    what = f"begins with {content[:8]!r}" if content else "is empty"
    raise ValueError(f"is no JPEG, PNG or WebP file: it {what}")


def _jpeg_size(content: bytes) -> tuple[int, int]:
    place = 2
    while place + 9 <= len(content):
        if content[place] != 0xFF:
            raise ValueError(f"is a damaged JPEG file: no marker at byte {place:,}")
        marker = content[place + 1]
        if marker == 0xFF:  # fill
            place += 1
        elif marker in ALONE:
            place += 2
        elif marker in START_OF_FRAME:
            height, width = content[place + 5 : place + 7], content[place + 7 : place + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    raise ValueError("ends within its header")
