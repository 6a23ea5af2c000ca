"""`sadp-bench pack`: a folder of images into one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sadp_bench.cli.help import OUTPUT
from sadp_bench.cli.options import COUNT, FILE, AsJson, option
from sadp_bench.cli.output import Result
from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import count, printable

IMAGES = "Images"


def pack(
    folder: Annotated[
        Path, typer.Argument(help="Folder of class folders, or of train/ and val/ with class folders.", metavar="DIR")
    ],
    to: Annotated[Path, option(OUTPUT, "The file to write; it must not exist.", FILE)],
    side: Annotated[
        int, option(IMAGES, "Pixels of a side. The central square of each image is resized to it.", COUNT)
    ] = 256,
    quality: Annotated[int, option(IMAGES, "Quality of the JPEGs, from 1 to 100.", COUNT)] = 90,
    split: Annotated[
        str,
        option(
            IMAGES,
            "Where the test images come from: train/val, train/test, or sha1-9:1 (a tenth, by a hash of the name).",
            "SPLIT",
            "the first that fits",
        ),
    ] = "",
    as_json: AsJson = False,
) -> Result:
    """Pack a folder of images into one file, to train from it.

    `sadp-bench run --dataset pack --set dataset.file=FILE` trains from it.

    Examples:
      sadp-bench pack photos --to photos.pack --side 64
    """
    from sadp_bench.core.termination import terminable
    from sadp_bench.datasets.pack_file import Pack
    from sadp_bench.datasets.packing import pack_folder
    from sadp_bench.records.store import atomic

    if os.path.lexists(to):
        raise BadInput(f"{to} exists already; remove it, or choose another name")
    with terminable(), atomic(to) as sink:
        packed = pack_folder(folder, sink, side, quality, split)
    sha256 = Pack(to).sha256
    if as_json:
        found = {"file": str(to), "bytes": to.stat().st_size, "train": packed.num_train, "test": packed.num_test}
        return Result(found | {"side": side, "classes": len(packed.facts.class_names), "sha256": sha256})
    images = count(packed.num_train + packed.num_test, "image")
    text = (
        f"packed {images} ({packed.num_train:,} to train, {packed.num_test:,} to test, "
        f"{len(packed.facts.class_names):,} classes) into {to}: {to.stat().st_size / 1e6:,.1f} MB\n"
        f"train on it: sadp-bench run --method random --ratio 0.5 --dataset pack --set dataset.file={to}"
    )
    return Result(lambda: print("\n".join(map(printable, text.splitlines()))))
