"""Images/s of one core by torchvision's ImageFolder, a pack and a uint8 cache, in one run; and the memory of a large pack.

    python tests/benchmarks/decoding.py [--folder $SADP_BENCH_DATA/imagenet-jpegs] [--sides 256 128] [--rounds 7]
    python tests/benchmarks/decoding.py --memory [--examples 1281167]

Every arm gives uint8 images of the same side, at random places, by one thread. A round measures all arms one after the
other in CPU seconds, so that other processes hardly change the ratios, which are those of a round. Pack and cache have each
image `--copies` times at places of its own: they do not fit into the processor's caches. Their files are in the page cache.

`--memory` writes a pack of so many tiny images. A new process opens it, and selects two epochs by SADP. It prints the memory
that is no map of a file. A script, not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sadp_bench.datasets.decoding import decode_file
from sadp_bench.datasets.pack_file import Facts, Pack, PackWriter
from sadp_bench.datasets.pack_reader import PackReader
from sadp_bench.datasets.packed import PackedImages
from sadp_bench.datasets.packing import jpeg_of
from sadp_bench.pruners.sadp import SADP
from sadp_bench.training.augmentation import draw_augmentation
from sadp_bench.training.data import Loader

BATCH = 32  # images
Arm = Callable[[Tensor], Any]


def write_pack(file: Path, jpegs: list[bytes], side: int, number: int) -> None:
    """Writes a pack of so many images, the given ones in turn, in two classes."""
    with file.open("wb") as sink:
        writer = PackWriter(sink)
        for row in range(number):
            writer.add(jpegs[row % len(jpegs)])
        half = (0.5, 0.5, 0.5)
        facts = Facts(side, number - 1, ("a", "b"), "none", "", 90, half, half, writer.images_sha256)
        writer.finish([row % 2 for row in range(number)], facts)


def arms(folder: Path, files: list[Path], side: int, copies: int, place: Path) -> dict[str, tuple[Arm, int]]:
    """Returns each arm with its number of images."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    pixel_N = torch.stack([decode_file(file, side) for file in files])
    jpegs = [jpeg_of(pixels.permute(2, 0, 1).contiguous(), 90) for pixels in pixel_N]
    write_pack(place / "pack", jpegs, side, copies * len(files))
    np.concatenate([pixel_N.numpy()] * copies).tofile(place / "cache")
    mapped = torch.from_numpy(np.memmap(place / "cache", np.uint8, "c", shape=(copies * len(files), side, side, 3)))
    folders = ImageFolder(folder, v2.Compose([v2.Resize(side), v2.CenterCrop(side), v2.PILToTensor()]))
    reader = PackReader(Pack(place / "pack"))
    kilobytes = statistics.fmean(len(jpeg) for jpeg in jpegs) / 1000
    print(
        f"side {side}: {len(files)} files, {kilobytes:.1f} kB an image in the pack, {side * side * 3 / 1000:.1f} in the cache"
    )
    return {
        "ImageFolder": (lambda row_B: torch.stack([folders[row][0] for row in row_B.tolist()]), len(files)),
        "pack": (lambda row_B: reader.read(row_B, False), copies * len(files)),
        "uint8 cache": (lambda row_B: mapped[row_B], copies * len(files)),
    }


def rate(arm: Arm, number: int, seconds: float, generator: torch.Generator) -> float:
    """Returns images a CPU second, over at least so many seconds."""
    shown, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        arm(torch.randint(number, (BATCH,), generator=generator))
        shown += BATCH
    return shown / spent


def speeds(options: argparse.Namespace) -> None:
    """Prints the table of one side after the other."""
    files = sorted(path for path in options.folder.glob("*/*") if path.suffix.lower() in (".jpeg", ".jpg"))
    generator = torch.Generator().manual_seed(0)
    for side in options.sides:
        with TemporaryDirectory() as folder:
            measured = arms(options.folder, files, side, options.copies, Path(folder))
            for arm, number in measured.values():
                rate(arm, number, 0.2, generator)
            rounds = [
                {name: rate(arm, number, options.seconds, generator) for name, (arm, number) in measured.items()}
                for _ in range(options.rounds)
            ]
            for name in measured:
                found, ratios = (
                    [of[name] / by(of) for of in rounds] for by in (lambda of: 1, lambda of: of["ImageFolder"])
                )
                print(f"  {name:<12} {_shown(found, 0):>32} images/s {_shown(ratios, 1):>26} x ImageFolder", flush=True)


def _shown(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def own_bytes() -> int:
    """Returns the memory of this process that is no map of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


@contextmanager
def step(name: str) -> Iterator[None]:
    """Prints what a step keeps, and the most that it used."""
    before, most, over = own_bytes(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            most[0] = max(most[0], own_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    over.set()
    thread.join()
    kept, peak = own_bytes() - before, max(most[0], own_bytes()) - before
    print(f"  {name:<44} keeps {kept / 1e6:7.1f} MB, at most {peak / 1e6:7.1f}", flush=True)


def memory(file: Path) -> None:
    """Prints the memory of a pack's index and labels, of SADP's scores, and of two epochs' selections."""
    torch.set_num_threads(1)
    warm = torch.rand(1 << 20).sort().values
    del warm
    begin, began = own_bytes(), time.perf_counter()
    with step("pack: index, labels, rows"):
        data = PackedImages(file.parent, 4, file=file.name)
    print(f"  {'seconds to open it':<44} {time.perf_counter() - began:.2f}")
    with step("loader"):
        loader = Loader(data.train, 255.0, data.mean, data.std, torch.device("cpu"))
    pruner: Any = SADP(0.5)
    context = SimpleNamespace(num_examples=len(loader), num_epochs=2, seed=0, device=torch.device("cpu"))
    with step("scores"):
        pruner.prepare(context)
        pruner.score_sq_N.uniform_(0.1, 4.0, generator=torch.Generator().manual_seed(0))
    print(f"  {'index, labels and scores together':<44} {(own_bytes() - begin) / 1e6:7.1f} MB")
    for epoch in range(2):
        with step(f"epoch {epoch + 1}: selection, order, augmentation"):
            generator = torch.Generator().manual_seed(epoch)
            held = [
                pruner.select(epoch),
                torch.randperm(len(loader), generator=generator),
                draw_augmentation("crop-flip", len(loader), loader.padding, loader.sides, generator),
            ]
        del held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(os.environ.get("SADP_BENCH_DATA", "."))
    parser.add_argument("--folder", type=Path, default=root / "imagenet-jpegs")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 128])
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU seconds of an arm in a round")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--examples", type=int, default=1_281_167)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        memory(options.measure)
    elif options.memory:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "large.pack"
            write_pack(file, [jpeg_of(torch.zeros(3, 4, 4, dtype=torch.uint8), 90)[:1]], 4, options.examples)
            print(
                f"{options.examples:,} images: an index of {file.stat().st_size / 1e6:,.1f} MB in the file", flush=True
            )
            subprocess.run([sys.executable, __file__, "--measure", str(file)], check=True)
    else:
        speeds(options)


if __name__ == "__main__":
    main()
