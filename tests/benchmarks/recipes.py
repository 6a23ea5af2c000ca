"""Two epochs of each recipe, on few examples: the loss, the accuracy and the CPU minutes.

    python tests/benchmarks/recipes.py [--recipe sltt-cifar10 ...] [--examples 64] [--batch-size 16] [--set backbone.width=8]

The networks, time steps and settings are the recipes', but for --set. Batches and data are small: images of CIFAR-10 as
arrays (of 100 labels for CIFAR-100) or as a folder, and recordings that the tests make in the publishers' formats. So the
figures show that a recipe runs, not what it reaches. The records go to --out. A script, not a test: it asserts nothing. It
reads the folder SADP_BENCH_DATA.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torchvision.utils import save_image

from sadp_bench.claims.recipe import find_recipe, recipes
from sadp_bench.datasets.cifar import CIFAR10
from sadp_bench.records.store import read_all
from tests.datasets import event_files

TEST = 32  # images that a network is tested on


def make_data(root: Path, number: int) -> dict[str, list[str]]:
    """Writes small data sets; returns the words that replace each of the recipes' data sets."""
    cifar = CIFAR10(Path(os.environ["SADP_BENCH_DATA"]), 1)
    images = {
        part: examples.input_N[:rows].numpy()
        for part, examples, rows in (("train", cifar.train, 2 * number), ("test", cifar.test, TEST))
    }
    for name, classes in (("ten", 10), ("hundred", 100)):
        arrays = {f"x_{part}": image_N for part, image_N in images.items()}
        arrays |= {f"y_{part}": np.arange(len(image_N)) % classes for part, image_N in images.items()}
        if classes == 10:
            arrays |= {f"y_{part}": getattr(cifar, part).label_N[: len(images[part])].numpy() for part in images}
            arrays["x_train"], arrays["y_train"] = arrays["x_train"][:number], arrays["y_train"][:number]
        np.savez(root / f"{name}.npz", **arrays)
    for part, folder in (("train", "train"), ("test", "val")):
        for row, image in enumerate(images[part]):
            place = root / "images" / folder / str(row % 10)
            place.mkdir(parents=True, exist_ok=True)
            save_image(torch.from_numpy(image) / 255, place / f"{row}.png")
    event_files.make_gesture(root, 2)
    for file in event_files.make_cifar10_dvs(root, 20).rglob(
        "*_1[6-9].aedat"
    ):  # of the test in TET's split, from 700 on
        file.rename(file.with_name(file.name.replace("_1", "_71")))
    return {
        "cifar10": ["--dataset", "npz", "--set", f"dataset.file={root / 'ten.npz'}"],
        "cifar100": ["--dataset", "npz", "--set", f"dataset.file={root / 'hundred.npz'}"],
        "cifar10-dvs": ["--train-examples", str(number)],
        "imagefolder": ["--set", f"dataset.folder={root / 'images'}"],
    }


def row_of(name: str, words: list[str], root: Path, out: Path) -> list[str]:
    """Trains a recipe for two epochs by the command; returns a row of the table."""
    command = [sys.executable, "-m", "sadp_bench", "run", "--recipe", name, "--epochs", "2", "--device", "cpu"]
    command += ["--threads", "1", "--no-reference", "--quiet", "--data", str(root), "--out", str(out), *words]
    before, begun = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    after = os.times()
    minutes = sum(after[2:4]) / 60 - sum(before[2:4]) / 60
    if done.returncode:
        return [f"`{name}`", f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}"]
    print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    record = max((record for _, record in read_all([out]).records), key=lambda record: record.finished)
    losses = " to ".join(f"{epoch['weighted_loss']:.2f}" for epoch in record.epochs)
    return [f"`{name}`", f"{record.examples_seen:,}", losses, f"{record.test_accuracy:.3f}", f"{minutes:.1f}"]


def main() -> None:
    """Prints the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", default=list(recipes()), help="names of recipes")
    parser.add_argument("--examples", type=int, default=64, help="images to train on; twice as many for 100 classes")
    parser.add_argument("--batch-size", default="16")
    parser.add_argument("--set", default=[], nargs="*", help="settings that replace the recipes', such as a width")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    given = parser.parse_args()
    print("| recipe | visits | loss by epoch | accuracy | CPU minutes |\n| --- | ---: | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        words = make_data(Path(folder), given.examples)
        for name in given.recipe:
            dataset = find_recipe(name).fields["dataset"]
            row = row_of(
                name,
                [
                    *words.get(dataset, []),
                    "--batch-size",
                    given.batch_size,
                    *(word for text in given.set for word in ("--set", text)),
                ],
                Path(folder),
                given.out / name,
            )
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
