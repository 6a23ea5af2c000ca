"""The work of runs before training (scores, and the search for connections), and how runs share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sadp_bench.core.errors import BadInput
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.runs.building import make_pruner, make_sparsity
from sadp_bench.training.state_checks import is_amount


class Preparation(NamedTuple):
    """Example visits before training, in epochs.

    Attributes:
        scoring: Epochs for the scores. Runs that differ in the ratio alone share them.
        search: Epochs for a search of connections. Runs that differ in method and ratio alone share it.
    """

    scoring: float
    search: float


def preparation(spec: Spec) -> Preparation:
    """Returns the visits of a run before training, as if no other run had made its files."""
    pruner = make_pruner(spec)
    scoring: Any = pruner.scoring_epochs(spec.epochs)
    updates: Any = pruner.scoring_updates()
    for name, value in (("scoring_epochs", scoring), ("scoring_updates", updates)):
        if not is_amount(value):
            raise BadInput(f"{spec.method}'s {name} returns {value!r}, and must return a number of at least 0")
    scoring += updates / spec.updates_per_epoch
    return Preparation(float(scoring), make_sparsity(spec).estimated_epochs(spec.epochs))


def preparations(specs: Iterable[Spec]) -> dict[str, Preparation]:
    """Returns the visits of each run before training, by key, as if no other run had made its files."""
    found, of_any_seed = {}, dict[str, Preparation]()
    for spec in specs:
        alike = spec.any_seed().key
        if alike not in of_any_seed:
            of_any_seed[alike] = preparation(spec)
        found[spec.key] = of_any_seed[alike]
    return found


def shared_files(spec: Spec, before: Preparation, store: Store) -> dict[Path, float]:
    """Returns the files that a run shares with other runs, each with the epochs that its making takes."""
    return {path: epochs for path, epochs in zip(store.shared_paths(spec), before, strict=True) if epochs}


def epochs_to_make(specs: Iterable[Spec], before: Mapping[str, Preparation], store: Store) -> dict[str, float]:
    """Returns the visits that each run makes itself before training, in epochs, by key.

    The first of the runs that share an absent file makes it.
    """
    makers: dict[Path, str] = {}
    found = {}
    for spec in specs:
        files = shared_files(spec, before[spec.key], store)
        mine = [path for path in files if makers.setdefault(path, spec.key) == spec.key and not path.exists()]
        found[spec.key] = sum(files[path] for path in mine)
    return found
