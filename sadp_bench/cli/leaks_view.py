"""The output of `sadp-bench doctor --leaks`."""

from __future__ import annotations

from typing import Any

from sadp_bench.core.text import count, listed, percent, printable
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.leaks import NEAR, Leaks, Pair

SHOWN = 20  # largest number of pairs and of files


def leaks_json(name: str, dataset: Dataset, found: Leaks) -> dict[str, Any]:
    """Returns all findings, as values for JSON."""
    return {
        "dataset": name,
        "test_examples": found.num_test,
        "train_examples": found.num_train,
        "near": NEAR,
        "pairs": [_row(dataset, pair) for pair in found.pairs],
        "shared_files": found.shared_files,
    }


def leaks_text(name: str, dataset: Dataset, found: Leaks) -> str:
    """Returns the answer in a sentence, and the pairs as a table."""
    lines = [_answer(name, found), f"Near-equal: a correlation of at least {NEAR:g}, over the pixels of each channel."]
    if found.pairs:
        head = ["test", "class", "train", "class", "correlation", "kind"]
        rows = [_cells(_row(dataset, pair)) for pair in found.pairs[:SHOWN]]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines += ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in [head, *rows])]
    if len(found.pairs) > SHOWN:
        lines.append(f"and {len(found.pairs) - SHOWN:,} more; --json has all")
    if found.shared_files:
        lines += ["", f"In both parts: {listed(found.shared_files[:SHOWN])}"]
    return "\n".join(map(printable, lines))


def _answer(name: str, found: Leaks) -> str:
    tests = {kind: {pair.test for pair in found.pairs if pair.kind == kind} for kind in ("example", "frame")}
    parts = []
    if near := len(tests["example"]):
        parts.append(f"{near:,} of {found.num_test:,} test examples ({percent(near / found.num_test, 1)}) are near-equal to "
                     "training examples")  # fmt: skip
    if frames := len(tests["frame"]):
        parts.append(f"{frames:,} of {found.num_test:,} have a frame of a training recording")
    if files := len(found.shared_files):
        parts.append(f"{count(files, 'file')} {'has' if files == 1 else 'have'} examples in both parts")
    if parts:
        return f"{name}: {listed(parts)}."
    return (
        f"{name}: no leak found; none of {count(found.num_test, 'test example')} is near-equal to one of "
        f"{count(found.num_train, 'training example')}."
    )


def _row(dataset: Dataset, pair: Pair) -> dict[str, Any]:
    labels = int(dataset.test.label_N[pair.test]), int(dataset.train.label_N[pair.train])
    names = [
        files[place] if (files := dataset.file_names.get(part)) else None
        for part, place in (("test", pair.test), ("train", pair.train))
    ]
    return {
        "kind": pair.kind,
        "test": pair.test,
        "test_class": dataset.class_names[labels[0]],
        "test_file": names[0],
        "train": pair.train,
        "train_class": dataset.class_names[labels[1]],
        "train_file": names[1],
        "correlation": pair.correlation,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    sides = [str(row[f"{part}_file"] or row[part]) for part in ("test", "train")]
    return [sides[0], row["test_class"], sides[1], row["train_class"], f"{row['correlation']:.4f}", row["kind"]]
