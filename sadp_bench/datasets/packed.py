"""A pack of images, made by `sadp-bench pack`, as a data set."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples
from sadp_bench.datasets.own_files import own_place
from sadp_bench.datasets.pack_file import Pack
from sadp_bench.datasets.pack_reader import PackReader


class PackedImages(Dataset):
    """Your images in a file of `sadp-bench pack`; an epoch decodes only the images that it keeps; at least 2 classes.

    Source: you; the images are JPEG files, https://www.w3.org/Graphics/JPEG/itu-t81.pdf

    `sadp-bench pack FOLDER --to FILE` makes the file from a folder of images. It is mapped into memory and read by index.
    The pack has the split, the classes, the mean and the standard deviation.

    Args:
        root: The folder of all data sets.
        timesteps: Not used.
        file: The path of the file. Where it does not exist, it is taken below the folder of all data sets.
        sha256: Hash of the pack's index, which the run's key has in place of the path. It is filled in when the run is
            resolved. With another pack the run is refused.
        split: The name of the pack's split; filled in likewise.
        test_list: Hash of the list of test images; filled in likewise.
    """

    augment = "crop-flip"

    def __init__(
        self,
        root: Path,
        timesteps: int,
        *,
        file: str = "images.pack",
        sha256: str = "",
        split: str = "",
        test_list: str = "",
    ) -> None:
        place = own_place(file, root)
        if not os.path.exists(place):
            raise BadInput(
                f"{place} is not there; make it: sadp-bench pack FOLDER --to FILE, and name it: --set dataset.file=FILE"
            )
        pack = Pack(place)
        facts = pack.facts
        self.found = {"sha256": pack.sha256, "split": facts.split, "test_list": facts.test_list}
        for name, given in (("sha256", sha256), ("split", split), ("test_list", test_list)):
            if given not in ("", self.found[name]):
                raise BadInput(f"{place} has other images: its {name} is {self.found[name]}, and the run's is {given}")
        number = facts.num_train
        if number == len(pack):
            raise BadInput(f"{place} has no test images; pack a folder of several images a class, or with val/")
        self.class_names, self.mean, self.std = facts.class_names, facts.mean, facts.std
        input_N = torch.empty(len(pack), 3, facts.side, facts.side, dtype=torch.uint8, device="meta")
        row_N, reader = torch.arange(len(pack)), PackReader(pack)
        self.train = Examples(input_N, pack.label_N[:number], row_N[:number], reader)
        self.test = Examples(input_N, pack.label_N[number:], row_N[number:], reader)

    @classmethod
    def locate(
        cls, root: Path, *, file: str = "images.pack", sha256: str = "", split: str = "", test_list: str = ""
    ) -> Path | None:
        """Returns the file; None where it is absent."""
        place = own_place(file, root)
        return place if os.path.isfile(place) else None
