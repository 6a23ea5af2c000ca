"""A folder of a user's images, with a folder for each class, as a data set."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples
from sadp_bench.datasets.image_files import find_images
from sadp_bench.datasets.own_files import channel_statistics, own_place
from sadp_bench.datasets.pixel_cache import cached_pixels

SIDES = (4, 1024)  # pixels, the smallest and the largest side
DECODING = 1  # the version of `decoding.decode`; another version makes other caches


class ImageFolder(Dataset):
    """Your folder of JPEG, PNG or WebP images, a folder for each class, resized to squares; at least 2 classes.

    Source: you; the layout is https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html

    The folder has train/ and val/ (or test/), each with class folders. Or it has class folders itself; then the test set is
    a fixed, stratified tenth (`splits.hashed_split`). Mean and standard deviation are those of the training images. The
    decoded images are kept in the user's cache folder, under a hash of the files' names, sizes and times.

    Args:
        root: The folder of all data sets.
        timesteps: Not used.
        folder: The path of the folder. Where it does not exist, it is taken below the folder of all data sets.
        side: Pixels of each side: the central square is resized.
        split: train/val, train/test or sha1-9:1; "": the first that fits the folder.
        sha256: Hash of the files' names and sizes, which the run's key has in place of the path. It is filled in when the
            run is resolved. With other files the run is refused.
        test_list: Hash of the list of test images; filled in likewise.
    """

    augment = "crop-flip"

    def __init__(
        self,
        root: Path,
        timesteps: int,
        *,
        folder: str = "imagefolder",
        side: int = 64,
        split: str = "",
        sha256: str = "",
        test_list: str = "",
    ) -> None:
        least, most = SIDES
        if not least <= side <= most:
            raise BadInput(f"dataset.side is from {least} to {most} pixels, not {side}")
        place = own_place(folder, root)
        listing = find_images(place, split)
        self.found = {"split": listing.split, "sha256": listing.sha256, "test_list": listing.test_list}
        for name, given in (("sha256", sha256), ("test_list", test_list)):
            if given not in ("", self.found[name]):
                raise BadInput(f"{place} has other images: its {name} is {self.found[name]}, and the run's is {given}")
        if len(listing.class_names) < 2 or not listing.test:
            raise BadInput(
                f"{place} has {len(listing.train):,} training and {len(listing.test):,} test images of "
                f"{len(listing.class_names)} classes; it needs both, and two classes at least"
            )
        self.class_names = listing.class_names
        self.file_names = {
            "train": [file.name for file in listing.train],
            "test": [file.name for file in listing.test],
        }
        names = [file.name for file in (*listing.train, *listing.test)]
        pixel_N, stays = cached_pixels(place, names, side, listing.state(DECODING, side))
        input_N = pixel_N.permute(0, 3, 1, 2)
        label_N = torch.tensor([file.label for file in (*listing.train, *listing.test)])
        number = len(listing.train)
        if stays:
            row_N = torch.arange(len(names))
            self.train = Examples(input_N, label_N[:number], row_N[:number])
            self.test = Examples(input_N, label_N[number:], row_N[number:])
        else:
            self.train = Examples(input_N[:number], label_N[:number])
            self.test = Examples(input_N[number:], label_N[number:])
        self.mean, self.std = channel_statistics(input_N[:number])

    @classmethod
    def locate(
        cls,
        root: Path,
        *,
        folder: str = "imagefolder",
        side: int = 64,
        split: str = "",
        sha256: str = "",
        test_list: str = "",
    ) -> Path | None:
        """Returns the folder; None where it is absent."""
        place = own_place(folder, root)
        return place if os.path.isdir(place) else None
