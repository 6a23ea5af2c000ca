"""The contract of a pruner as executable checks, for a method of this suite or of anyone's package.

from sadp_bench.testing import check_pruner
check_pruner("mypkg.mine:Mine")
check_pruner("infobatch", {"delta": 0.75}, ratio=0.3)
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.pruners.base import Selection
from sadp_bench.runs.resolve import Material, make_pruner, resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import BUDGET_TOLERANCE, RunTrainer

# Odd numbers on purpose: budgets and batches must also come out where nothing divides.
SETTING = {
    "dataset": "digits",
    "train_examples": 203,
    "batch_size": 29,
    "epochs": 5,
    "timesteps": 2,
    "precision": "fp32",
    "threads": 1,
    "device": "cpu",
}
WIDTH = {"backbone.width": 4}


class ContractBroken(AssertionError):
    """A pruner does what its contract forbids; the message says what and how to mend it."""


def check_pruner(method: str, options: Mapping[str, Any] | None = None, *, ratio: float = 0.4) -> None:
    """Runs a method on 203 real images of digits for 5 epochs, and holds every epoch against the contract.

    Checked: selections are distinct, in range, of the right types and weights; the budget is realised to within 0.5 points
    of all visits; the same seed gives the same selections; no global random state is touched; a state saved and loaded in
    the middle gives the same rest of the run.

    method: a registered name or `package.module:Class`. options: its settings. Raises ContractBroken, or BadInput where
    the method can't be had.
    """
    spec, material = resolve({**SETTING, "method": method, "ratio": ratio, "set": {**WIDTH, **(options or {})}})
    before = _global_state()
    first = _Watched(spec, material)
    first.run()
    _require(_same_state(before, _global_state()), "touches a global random state; draw from `self.generator(epoch)`")
    _check_budget(first)
    second = _Watched(spec, material)
    second.run(interrupted_after=2)
    for epoch, (a, b) in enumerate(zip(first.selections, second.selections, strict=True)):
        if epoch <= 2:
            why = "selects otherwise with the same seed; draw from `self.generator(epoch)`"
        else:
            why = (
                "selects otherwise after its state was saved and loaded; keep what `select` needs in plain attributes or "
                "tensors, or override `state_dict` and `load_state_dict`"
            )
        _require(_same(a, b), f"{why} (epoch {epoch})")


class _Watched:
    """A run whose selections are checked and kept."""

    def __init__(self, spec: Any, material: Material) -> None:
        self.bench = RunTrainer(spec, Resources(spec, material), Progress())
        self.selections: list[Selection] = []
        self.visits = 0

    def run(self, interrupted_after: int | None = None) -> None:
        """interrupted_after: an epoch behind which the pruner is replaced by one that only got its state."""
        bench = self.bench
        bench.pruner.prepare(bench.context)
        bench.pruner.select = self._kept(bench.pruner.select)  # type: ignore[method-assign]
        for row in bench.rows():
            self.visits += row["kept"]
            if row["epoch"] == interrupted_after:
                self._replace_pruner()

    def _kept(self, select: Any) -> Any:
        def checked(epoch: int) -> Selection:
            selection: Selection = select(epoch)
            check_selection(selection, self.bench.context.num_examples)
            self.selections.append(Selection(selection.index_K.clone(), selection.weight_K.clone()))
            return selection

        return checked

    def _replace_pruner(self) -> None:
        old, new = self.bench.pruner, make_pruner(self.bench.spec)
        del old.select  # the watched one, which is no part of its state
        try:
            state = old.state_dict()
        except BadInput as error:
            raise ContractBroken(str(error)) from None
        _require(isinstance(state, dict), f"state_dict returns a {type(state).__name__}, not a dict")
        new.load_state_dict(state)
        new.select = self._kept(new.select)  # type: ignore[method-assign]
        self.bench.state.pruner = new


def check_selection(selection: Selection, num_examples: int) -> None:
    """Raises ContractBroken where it is not what `pruner.Selection` promises."""
    index, weight = selection.index_K, selection.weight_K
    _require(index.dtype == torch.int64 and index.dim() == 1, f"index_K is int64 [K], not {index.dtype} {index.shape}")
    _require(len(index) > 0, "selects nothing; an epoch trains on one example at least")
    _require(weight.dtype == torch.float32, f"weight_K is float32, not {weight.dtype}")
    _require(weight.shape == index.shape, f"weight_K has {len(weight)} entries for {len(index)} examples")
    _require(int(index.min()) >= 0 and int(index.max()) < num_examples, f"an index lies outside [0, {num_examples})")
    _require(len(index.unique()) == len(index), "selects an example twice in an epoch")
    _require(bool((weight > 0).all() and weight.isfinite().all()), "a weight is not a finite number above 0")


def _check_budget(run: _Watched) -> None:
    spec, pruner = run.bench.spec, run.bench.pruner
    saved = 1 - run.visits / (run.bench.context.num_examples * spec.epochs)
    if not pruner.exempt:
        _require(
            abs(saved - spec.ratio) <= BUDGET_TOLERANCE,
            f"saves {saved:.4f} of the visits for a ratio of {spec.ratio:g}; keep `self.num_kept(epoch)` examples, or make "
            "up for it in other epochs",
        )
    epochs = math.ceil(pruner.run_epochs(spec.epochs))
    _require(len(run.selections) == epochs, f"ran {len(run.selections)} epochs where it announced {epochs}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ContractBroken(f"the pruner {message}")


def _same(a: Selection, b: Selection) -> bool:
    return torch.equal(a.index_K, b.index_K) and torch.equal(a.weight_K, b.weight_K)


def _global_state() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _same_state(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    (_, keys_a, *rest_a), (_, keys_b, *rest_b) = a[1], b[1]
    return a[0] == b[0] and np.array_equal(keys_a, keys_b) and rest_a == rest_b and torch.equal(a[2], b[2])
