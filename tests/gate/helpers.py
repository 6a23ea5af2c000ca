"""Records for the gate, trained or made by hand, and its answer on them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sadp_bench.core.progress import Progress
from sadp_bench.records.record import Record
from sadp_bench.records.store import Store, read_all
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer
from tests.commands import Answer, command
from tests.example_records import make_record, make_spec
from tests.small_runs import resolved

METHODS = {"full": 0.0, "random": 0.5, "infobatch": 0.5, "sadp": 0.5}


def train(out: Path, methods: Iterable[str], seeds: Iterable[int], **requested: Any) -> Path:
    for seed in seeds:
        for method in methods:
            # A few hundred updates suffice to see wrong scores in this order of pool and norm.
            order = {"backbone.pool_at": "after-norm"}
            budget = "falling" if method == "sadp" else "constant"  # so that a lost budget shows in counts
            requested |= {"ratio": METHODS.get(method, 0.5), "seed": seed, "set": order, "budget": budget}
            spec, material = resolved(method=method, **requested)
            Store(out).write(RunTrainer(spec, Resources(spec, material), Progress()).run())
    return out


def altered(folder: Path, out: Path, change: Callable[[Record], Record]) -> Path:
    for _, record in read_all([folder]).records:
        Store(out).write(change(record))
    return out


def elsewhere(folder: Path, out: Path) -> Path:
    """Returns the same records with the name of another processor."""
    return altered(folder, out, lambda r: dataclasses.replace(r, environment={**r.environment, "processor": "Other"}))


def check(*words: Any) -> tuple[Answer, dict[str, str], Any]:
    """Returns the answer, the failures by "run: name", and the object that `--json` prints."""
    answer = command("check", *words, "--json")
    output = json.loads(answer.out)
    failed = {f"{c['run']}: {c['name']}": c["text"] for c in output["comparisons"] if c["outcome"] == "failed"}
    return answer, failed, output


def by_hand(folder: Path, accuracies: dict[tuple[str, float], list[float]], **changed: Any) -> Path:
    for (method, ratio), values in accuracies.items():
        for seed, accuracy in enumerate(values):
            Store(folder).write(make_record(make_spec(method, ratio, seed), accuracy, **changed))
    return folder
