"""The decoded images of a folder in one file of the user's cache folder. It is built once, then read whole or by rows."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import opened
from sadp_bench.core.memory import GIB, machine_bytes
from sadp_bench.core.text import count
from sadp_bench.datasets.base import cache_folder, cause
from sadp_bench.datasets.decoding import decode_file
from sadp_bench.datasets.image_pool import made_of_each
from sadp_bench.datasets.progress import alone, say

MEMORY_SHARE = 0.25  # share of the machine's memory; larger files stay on the disk
KEY_DIGITS = 16  # digits of the state's hash, in the name of the cache's file


def cached_pixels(folder: Path, names: Sequence[str], side: int, state: str) -> tuple[Tensor, bool]:
    """Returns the pixels of images, uint8 [N, side, side, 3], and whether they are a mapped file that stays on the disk.

    The first call decodes the images and writes the cache's file. After an interruption the next call goes on.

    Args:
        folder: Folder of the images.
        names: Paths of the files below the folder.
        side: Pixels of each side; see `decoding.decode`.
        state: A hash of all that the pixels depend on; the name of the cache's file has its first digits.

    Raises:
        BadInput: Images can't be decoded, or the cache can't be written. Then no file of it is left.
    """
    title = re.sub(r"[^\w-]", "_", folder.resolve().name)[:40]
    try:
        file = cache_folder() / "images" / f"{title}-{side}-{state[:KEY_DIGITS]}.u8"
    except RuntimeError as error:
        raise BadInput(f"there is no place to keep decoded images: {cause(error)}; set XDG_CACHE_HOME") from None
    shape = (len(names), side, side, 3)
    num_bytes = len(names) * side * side * 3
    if not os.path.exists(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with alone(file, "is decoding these images"):
                if not os.path.exists(file):
                    _build(file, folder, names, side)
        except OSError as error:
            raise BadInput(
                f"the cache of decoded images, {file}, can't be written: {cause(error)}; set XDG_CACHE_HOME to another folder"
            ) from None
    found = file.stat().st_size
    if found != num_bytes:
        raise BadInput(f"{file} is broken: {found:,} bytes instead of {num_bytes:,}; delete it to build it anew")
    stays = num_bytes > MEMORY_SHARE * (machine_bytes() or 0)
    if not stays:
        with opened(file) as source:
            return torch.from_numpy(np.fromfile(source, np.uint8)).reshape(shape), False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of a read-only tensor, and nothing writes inputs
        return torch.from_numpy(np.memmap(file, np.uint8, "r", shape=shape)), True


def _build(file: Path, folder: Path, names: Sequence[str], side: int) -> None:
    """Decodes all images into a file beside the cache's, then renames that file."""
    part = file.with_name(f"{file.name}.part")
    row_bytes = side * side * 3
    done = part.stat().st_size // row_bytes if part.exists() else 0
    needed, free = (len(names) - done) * row_bytes, shutil.disk_usage(file.parent).free
    if needed > free:
        raise BadInput(
            f"the cache of {folder} needs {needed / GIB:,.2f} GiB in {file.parent}, and {free / GIB:,.2f} are free; lower "
            "dataset.side, or set XDG_CACHE_HOME to another folder"
        )
    what = f"{count(len(names), 'image')} of {folder} to {side}x{side} pixels"
    say(f"decoding {what}, once, into {file}" + (f"; {done:,} are there" if done else ""))
    try:
        with part.open("ab") as sink:
            sink.truncate(done * row_bytes)
            for rows in made_of_each(folder, names, lambda file: decode_file(file, side), done):
                sink.write(torch.stack(rows).numpy().data)
            sink.flush()
            os.fsync(sink.fileno())
    except BadInput:
        part.unlink()
        raise
    os.replace(part, file)
