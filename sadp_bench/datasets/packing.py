"""Makes a pack from a folder of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import count
from sadp_bench.datasets.decoding import decode_file
from sadp_bench.datasets.image_files import find_images
from sadp_bench.datasets.image_pool import made_of_each
from sadp_bench.datasets.imagefolder import SIDES
from sadp_bench.datasets.own_files import MOST_VALUES, statistics_of, value_counts
from sadp_bench.datasets.pack_file import Facts, PackWriter
from sadp_bench.datasets.progress import say


@dataclass(frozen=True, slots=True)
class Packed:
    """The content of a pack that was made.

    Attributes:
        num_train: Training images.
        num_test: Test images.
        facts: See `Facts`.
    """

    num_train: int
    num_test: int
    facts: Facts


def pack_folder(folder: Path, sink: IO[bytes], side: int, quality: int, split: str) -> Packed:
    """Writes the pack of a folder into an open file.

    Each image becomes the JPEG of its largest central square, resized; see `decoding.decode`. The training images come
    first. Mean and standard deviation are those of evenly spaced training images, before their encoding as JPEG.

    Args:
        folder: The folder of class folders; see `image_files.find_images`.
        sink: The pack's file.
        side: Pixels of each side.
        quality: Quality of the JPEGs, from 1 to 100.
        split: See `image_files.find_images`.

    Raises:
        BadInput: Images can't be decoded, the folder has no class folders, or a setting is out of range.
    """
    least, most = SIDES
    if not least <= side <= most:
        raise BadInput(f"--side is from {least} to {most} pixels, not {side}")
    if not 1 <= quality <= 100:
        raise BadInput(f"--quality is from 1 to 100, not {quality}")
    listing = find_images(folder, split)
    files = [*listing.train, *listing.test]
    if len(listing.class_names) < 2:
        raise BadInput(f"{folder} has one class; it needs two at least")
    num_train = len(listing.train)
    every = max(1, num_train * side * side * 3 // MOST_VALUES)
    counted = {file.name for file in listing.train[::every]}
    say(f"packing {count(len(files), 'image')} of {folder}, {side}x{side} pixels")

    def make(file: Path) -> tuple[bytes, Tensor | None]:
        pixels = decode_file(file, side).permute(2, 0, 1).contiguous()
        counts = value_counts(pixels[None]) if file.relative_to(folder).as_posix() in counted else None
        return jpeg_of(pixels, quality), counts

    writer, count_CV = PackWriter(sink), torch.zeros(3, 256, dtype=torch.int64)
    for chunk in made_of_each(folder, [file.name for file in files], make):
        for content, counts in chunk:
            writer.add(content)
            if counts is not None:
                count_CV += counts
    mean, std = statistics_of(count_CV)
    facts = Facts(
        side, num_train, listing.class_names, listing.split, listing.test_list, quality, mean, std, writer.images_sha256
    )
    writer.finish([file.label for file in files], facts)
    return Packed(num_train, len(listing.test), facts)


def jpeg_of(pixels: Tensor, quality: int) -> bytes:
    """Returns the JPEG file of an image, uint8 [3, H, W]."""
    from torchvision.io import encode_jpeg

    content: bytes = encode_jpeg(pixels, quality).numpy().tobytes()
    return content
