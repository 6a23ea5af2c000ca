"""Draws which examples each method shows: the share shown in each epoch, by tenths of the examples' difficulty.

    python tests/benchmarks/method_visits.py                      # all registered methods, into docs/methods/visits.png
    python tests/benchmarks/method_visits.py --methods sadp el2n --examples 1000

An example's difficulty is its mean loss over the epochs of a full-data run of the next seed. Each method trains once, at
its default settings. OUT/visits.json contains the shares; a method that is there is not trained again (--again: it is).
A method that can't run so, such as one that reads a file, is named and left out. Needs SADP_BENCH_DATA.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sadp_bench.cli.listing import GROUPS, group_of
from sadp_bench.core import registry
from sadp_bench.core.errors import BadInput, Stopped
from sadp_bench.core.progress import Progress
from sadp_bench.pruners.base import KeepAll
from sadp_bench.pruners.exchange import Observation, ScoringContext
from sadp_bench.records.metrics import UNPRUNED
from sadp_bench.records.store import atomic
from sadp_bench.reports.plots.legends import note
from sadp_bench.reports.plots.saving import save_all
from sadp_bench.reports.plots.style import drawing, outer_labels, panels
from sadp_bench.runs.resolve import resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer, threads

ROOT = Path(__file__).resolve().parent.parent.parent
TENTHS = 10
COLUMNS = 5  # panels in a row
DIGITS = 3  # of a share in the file

Shares = list[list[float]]  # by tenth, the easiest first, and by epoch


class MeanLoss(KeepAll):
    """Keeps every example, and sums the losses of its presentations."""

    def prepare(self, context: ScoringContext) -> None:
        """Begins with sums of 0."""
        super().prepare(context)
        self.sum_N = torch.zeros(context.num_examples, device=context.device)

    def observe(self, seen: Observation) -> None:
        """Adds the losses of a batch, which are those before the update."""
        self.sum_N[seen.index_B] += seen.loss_B.float()


def tenths(score_N: Tensor) -> Tensor:
    """Returns the tenth of each example by its score, from 0, the lowest, to 9. Sizes differ by one at most; [N]."""
    tenth_N = torch.empty(len(score_N), dtype=torch.int64)
    tenth_N[score_N.argsort(stable=True)] = torch.arange(len(score_N)) * TENTHS // len(score_N)
    return tenth_N


def trained(requested: Mapping[str, Any], data: Path | None = None, pruner: KeepAll | None = None) -> RunTrainer:
    """Returns a prepared run; a pruner takes the place of the method's."""
    spec, material = resolve(requested, data)
    bench = RunTrainer(spec, Resources(spec, material), Progress())
    if pruner is not None:
        bench.state.pruner = pruner
    bench.prepare()
    return bench


def difficulty_of(requested: Mapping[str, Any], data: Path | None = None) -> Tensor:
    """Returns each example's mean loss over the epochs of a full-data run, [N]."""
    counter = MeanLoss()
    for _ in trained({**requested, "method": "full", "ratio": 0.0}, data, counter).rows():
        pass
    return counter.sum_N.cpu() / requested["epochs"]


def shares_of(requested: Mapping[str, Any], tenth_N: Tensor, data: Path | None = None) -> Shares:
    """Returns the share of each tenth that a run shows in each epoch. An epoch that a run leaves out shows nothing."""
    bench = trained(requested, data)
    size_T = torch.bincount(tenth_N, minlength=TENTHS)
    before_N = torch.zeros(len(tenth_N), dtype=torch.int32)
    columns = []
    for _ in bench.rows():
        shown_N = bench.state.visits_N - before_N
        before_N = bench.state.visits_N.clone()
        columns.append(torch.bincount(tenth_N, shown_N.double(), minlength=TENTHS) / size_T)
    columns += [torch.zeros(TENTHS)] * (requested["epochs"] - len(columns))
    return [[round(float(share), DIGITS) for share in row] for row in torch.stack(columns, 1)]


def in_order(methods: Iterable[str]) -> list[str]:
    """Returns methods in the order of `sadp-bench list methods`."""
    entries = {entry.name: entry for entry in registry.entries("method")}
    groups = list(GROUPS)
    return sorted(methods, key=lambda name: groups.index(group_of(entries[name])) if name in entries else len(groups))


@drawing()
def picture(shares: Mapping[str, Shares], settings: Mapping[str, Any]) -> Any:
    """Returns a figure with a panel for each method."""
    names = in_order(shares)
    title = (
        f"Share of the examples shown in each epoch, by difficulty: {settings['dataset']}, {settings['train_examples']:,} "
        f"examples, {settings['epochs']} epochs, ratio {settings['ratio']:g}"
    )
    lines = -(-len(names) // COLUMNS)
    figure, axes = panels(title, len(names), COLUMNS, 1.0 + 0.8 / lines, grid="", sharex=True, sharey=True)
    for name, panel in zip(names, axes, strict=True):
        epochs = len(shares[name][0])
        image = panel.imshow(
            shares[name], origin="lower", aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest",
            extent=(0.5, epochs + 0.5, 0, 1),
        )  # fmt: skip
        panel.set_title(registry.display_name("method", name), fontsize=8)
        panel.set_yticks([0, 1], ["easy", "hard"])
    outer_labels(axes, COLUMNS, "epoch", "")
    figure.colorbar(image, ax=axes, label="share shown", fraction=0.03, aspect=40)
    note(
        figure,
        "Difficulty: mean loss over a full-data run of another seed, in tenths of the examples. Order: reference, static, "
        "dynamic, within the batch.",
    )
    return figure


def made(
    methods: Sequence[str], requested: Mapping[str, Any], out: Path, data: Path | None = None, again: bool = False
) -> dict[str, Any]:
    """Trains the methods that the file lacks, writes file and picture, and returns the file's content."""
    path = out / "visits.json"
    settings = {name: requested[name] for name in requested if name != "method"}
    known = json.loads(path.read_text()) if path.exists() else {}
    there = known.get("shares", {}) if known.get("settings") == settings else {}
    missing = [name for name in methods if again or name not in there]
    with threads(int(requested["threads"])):
        if missing:
            tenth_N = tenths(difficulty_of({**requested, "seed": requested["seed"] + 1}, data))
        for name in missing:
            begun = time.perf_counter()
            try:
                there[name] = shares_of({**requested, "method": name}, tenth_N, data)
            except (BadInput, Stopped) as error:
                print(f"{name}: left out: {error}", flush=True)
                continue
            print(f"{name}: {time.perf_counter() - begun:.1f} s", flush=True)
            _write(path, settings, there)
    there = {name: there[name] for name in in_order(there)}
    _write(path, settings, there)
    save_all(picture(there, settings), out, "visits", ("png",))
    return {"settings": settings, "shares": there}


def _write(path: Path, settings: Mapping[str, Any], shares: Mapping[str, Shares]) -> None:
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(rows)}" for name, rows in shares.items())
    with atomic(path) as file:
        file.write(f'{{"settings": {json.dumps(settings)},\n"shares": {{\n{lines}\n}}}}\n'.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", help="default: all that are registered, but full and ceiling")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "methods")
    parser.add_argument("--again", action="store_true", help="train also the methods that are in the file")
    given = parser.parse_args()
    requested = {
        "dataset": given.dataset, "train_examples": given.examples, "epochs": given.epochs, "ratio": given.ratio,
        "batch_size": 64, "learning_rate": 0.1, "threads": given.threads, "seed": 0, "device": "cpu", "precision": "fp32",
        "set": {"backbone.width": given.width},
    }  # fmt: skip
    methods = given.methods or [name for name in registry.table("method") if name not in UNPRUNED]
    made(methods, requested, given.out, given.data, given.again)


if __name__ == "__main__":
    main()
