"""The format of a pack: small JPEGs one after the other in one file, and then an index.

    header     magic, version, number of images, place of the index, bytes of its facts, SHA-256 of the index
    images     JPEG files, without gaps
    index      offsets [N + 1], CRC-32 sums [N], labels [N], facts as JSON

Numbers are little-endian. The index is checked when a pack is opened, and each image when it is read. So a run reads only
the images that it uses.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import opened

MAGIC, VERSION = b"SADPPACK", 1
HEADER = struct.Struct("<8sQQQQ32s")
FACT_BYTES = 64 << 20  # most bytes of the facts; 1,000 names of classes have about 20,000
ALIGNED = 8  # bytes; the index begins at a multiple of them
REMEDY = "pack the images anew: sadp-bench pack"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts in a pack about its images.

    Attributes:
        side: Pixels of each side of an image.
        num_train: Number of training images, which come first; the others are test images.
        class_names: Names of the classes, by label.
        split: The name of the split; see `image_files.find_images`.
        test_list: The hash of the names of the test images.
        quality: Quality of the JPEGs, from 1 to 100.
        mean: Mean of each channel over the training images, from 0 to 1.
        std: Standard deviation of each channel, likewise.
        images_sha256: SHA-256 of the JPEGs, one after the other.
    """

    side: int
    num_train: int
    class_names: tuple[str, ...]
    split: str
    test_list: str
    quality: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images_sha256: str

    @classmethod
    def read(cls, text: bytes) -> Facts:
        """Returns the facts in a JSON text. Raises ValueError, KeyError or TypeError where it has no facts."""
        found = json.loads(text)
        names, mean, std = (tuple(found.pop(name)) for name in ("class_names", "mean", "std"))
        facts = cls(class_names=names, mean=mean, std=std, **found)
        if not (isinstance(facts.side, int) and 0 < facts.side < 1 << 16 and isinstance(facts.num_train, int)):
            raise ValueError("its side or its number of training images is none")
        return facts


class PackWriter:
    """Writes a pack into an open file.

    Args:
        sink: The file, at its beginning; it can seek.
    """

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._offsets, self._sums, self._digest = array("q", [HEADER.size]), array("I"), hashlib.sha256()
        sink.write(bytes(HEADER.size))

    def add(self, jpeg: bytes) -> None:
        """Adds an image."""
        self._sink.write(jpeg)
        self._digest.update(jpeg)
        self._sums.append(zlib.crc32(jpeg))
        self._offsets.append(self._offsets[-1] + len(jpeg))

    @property
    def images_sha256(self) -> str:
        """The hash of the images so far."""
        return self._digest.hexdigest()

    def finish(self, labels: list[int], facts: Facts) -> None:
        """Writes the index and the header."""
        begin = -(-self._offsets[-1] // ALIGNED) * ALIGNED
        text = json.dumps(asdict(facts)).encode()
        arrays = (np.array(self._offsets, "<i8"), np.array(self._sums, "<u4"), np.array(labels, "<i4"))
        index = b"".join([*(part.tobytes() for part in arrays), text])
        self._sink.write(bytes(begin - self._offsets[-1]) + index)
        self._sink.seek(0)
        self._sink.write(HEADER.pack(MAGIC, VERSION, len(labels), begin, len(text), hashlib.sha256(index).digest()))


class Pack:
    """A pack that is open for reading. Offsets and sums stay in the mapped file, and use no memory.

    Args:
        file: The pack.

    Raises:
        BadInput: The file is no pack, has another version, or is cut short or damaged.

    Attributes:
        facts: See `Facts`.
        label_N: The label of each image, int64.
        sha256: The hash of the index. As the index has the sums of all images, it depends on them too.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        with opened(file) as source:
            head = source.read(HEADER.size)
            size = os.fstat(source.fileno()).st_size
        if head[: len(MAGIC)] != MAGIC:
            what = f"begins with {head[: len(MAGIC)]!r}" if head else "is empty"
            raise BadInput(f"{file} is no pack: it {what}; make one: sadp-bench pack")
        if len(head) < HEADER.size:
            raise self._broken("it ends within its header")
        _, version, number, begin, text_bytes, digest = HEADER.unpack(head)
        if version != VERSION:
            raise BadInput(f"{file} is a pack of version {version}, and this sadp-bench reads {VERSION}; {REMEDY}")
        wanted = begin + 8 * (number + 1) + 8 * number + text_bytes
        if size != wanted or not number or begin % ALIGNED or text_bytes > FACT_BYTES:
            raise self._broken(f"it has {size:,} bytes, and its header gives {wanted:,}")
        self._map = np.memmap(file, np.uint8, "r")
        if hashlib.sha256(self._map[begin:].data).digest() != digest:
            raise self._broken("its index has another SHA-256 than its header")
        self.sha256 = digest.hex()
        self._offset_N = self._part("<i8", begin, number + 1)
        self._sum_N = self._part("<u4", begin + 8 * (number + 1), number)
        label_N = self._part("<i4", begin + 8 * (number + 1) + 4 * number, number)
        self.label_N = torch.from_numpy(label_N.astype(np.int64))
        try:
            self.facts = Facts.read(self._map[size - text_bytes :].tobytes())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._broken(f"its facts can't be read ({' '.join(str(error).split())[:80]})") from None
        ends = self._offset_N[0] == HEADER.size and HEADER.size <= self._offset_N[-1] <= begin
        if not ends or bool((np.diff(self._offset_N) <= 0).any()) or not 0 < self.facts.num_train <= number:
            raise self._broken("its offsets do not ascend")

    def __len__(self) -> int:
        return len(self.label_N)

    def jpeg(self, row: int) -> bytes:
        """Returns the content of an image. Raises BadInput where it is damaged."""
        content = self._map[self._offset_N[row] : self._offset_N[row + 1]].tobytes()
        if zlib.crc32(content) != self._sum_N[row]:
            raise self._broken(f"image {row:,} has a wrong checksum")
        return content

    def pixels(self, row: int) -> Tensor:
        """Returns the pixels of an image, uint8 [side, side, 3]. Raises BadInput where it is damaged."""
        from torchvision.io import ImageReadMode, decode_jpeg  # takes 2 s to import

        content = torch.frombuffer(bytearray(self.jpeg(row)), dtype=torch.uint8)
        try:
            pixels: Tensor = decode_jpeg(content, ImageReadMode.RGB).permute(1, 2, 0)
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rpartition(", ")[2]
            raise self._broken(f"image {row:,} can't be decoded: {reason[:80]}") from None
        if tuple(pixels.shape) != (self.facts.side, self.facts.side, 3):
            raise self._broken(f"image {row:,} has {pixels.shape[0]} x {pixels.shape[1]} pixels")
        return pixels

    def _part(self, kind: str, begin: int, number: int) -> NDArray[Any]:
        return np.frombuffer(self._map, kind, number, begin)

    def _broken(self, why: str) -> BadInput:
        return BadInput(f"{self.file} is broken: {why}; {REMEDY}")
