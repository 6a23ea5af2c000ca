"""Checks of the content of checkpoints and shared files, which may be wrong under a correct checksum.

Each function raises BadInput, whose message completes the line "checkpoint FILE is ...". N: training examples.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sadp_bench.core.errors import BadInput
from sadp_bench.core.phases import PHASES
from sadp_bench.pruners.base import Pruner
from sadp_bench.records.record import is_cosines
from sadp_bench.sparsity.base import prunable

# Optimizer -> the names of the state that it keeps for each weight.
STATE_NAMES = {"SGD": {"momentum_buffer"}, "AdamW": {"step", "exp_avg", "exp_avg_sq"}}
# Settings that a step reads, and settings that only choose its implementation.
STEP_SETTINGS = {"lr", "momentum", "dampening", "nesterov", "betas", "eps", "weight_decay"}
IMPLEMENTATION = {"fused", "foreach", "capturable", "differentiable"}

EPOCH = {"mean_weight", "train_loss", "learning_rate", "seconds"}  # fields of each row, beside epoch and kept
SCORE_RULE = "real numbers, none of them NaN"
Accept = Callable[[dict[str, Any]], None]  # raises BadInput for a content that is not the run's


@contextmanager
def contents() -> Iterator[None]:
    """Turns any error that a content of wrong types raises within the context into BadInput."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"whole, but of another content ({type(error).__name__}: {error})") from error


def require(holds: bool, name: str, value: Any, wanted: str) -> None:
    """Raises BadInput with the value and the requirement where a check fails."""
    if not holds:
        raise BadInput(f"whole, but its {name} is {shown(value)}, and must be {wanted}")


def shown(value: Any) -> str:
    """Returns a value as a short text of one line; a tensor as its type and shape."""
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return " ".join(repr(value).split())[:60]


def is_amount(value: Any) -> bool:
    """Returns whether a value is a finite number of at least 0."""
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def is_count(value: Any) -> bool:
    """Returns whether a value is a whole number of at least 0."""
    return type(value) is int and value >= 0


def check_seconds(seconds: Any) -> None:
    """Refuses seconds that lack a phase or are no durations."""
    holds = isinstance(seconds, dict) and set(PHASES) <= set(seconds) and all(map(is_amount, seconds.values()))
    require(holds, "seconds", seconds, f"a duration for each of {', '.join(PHASES)}")


def check_cpu_seconds(seconds: Any) -> None:
    """Refuses CPU seconds that are no durations. A phase is absent where a part of its seconds is unknown."""
    holds = isinstance(seconds, dict) and seconds.keys() <= set(PHASES) and all(map(is_amount, seconds.values()))
    require(holds, "cpu_seconds", seconds, f"durations of some of {', '.join(PHASES)}")


def check_plain(name: str, value: Any) -> None:
    """Refuses a table that a record could not contain."""
    require(isinstance(value, dict), name, value, "a table")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        require(False, name, value, "a table of plain values and finite numbers")


def check_spent(spent: Any) -> None:
    """Refuses a cost whose seconds are no durations, or whose visits are no count."""
    for name, value in (("seconds", spent["seconds"]), ("cpu_seconds", spent.get("cpu_seconds", 0.0))):
        require(is_amount(value), name, value, "a duration")
    require(is_count(spent["visits"]), "visits", spent["visits"], "a count")


def check_scores(scores: Any, num_examples: int, columns: int = 0) -> None:
    """Refuses scores that are not N real numbers (see `score_fault`), and an invalid cost."""
    require(isinstance(scores, dict), "content", scores, "a table")
    check_spent(scores)
    require(isinstance(scores["by"], str), "key of a run", scores["by"], "a text")
    fault = score_fault(scores["score_N"], num_examples, columns)
    if fault:
        raise BadInput(f"whole, but its scores are {fault}, and must be {num_examples} {SCORE_RULE}")


def check_search(search: Any, model: nn.Module) -> None:
    """Refuses the search of another network than the run's, and an invalid cost."""
    require(isinstance(search, dict), "content", search, "a table")
    check_spent(search)
    require(isinstance(search["by"], str), "key of a run", search["by"], "a text")
    check_plain("ticket", search["ticket"])
    check_network(search["model"], model)
    masks = search["sparsity"]["masks"]
    check_masks(masks, model)
    require(masks.keys() == prunable(model).keys(), "masks", sorted(masks), "those of all the run's weights")


def score_fault(score_N: Any, num_examples: int, columns: int = 0) -> str:
    """Returns why scores are not N real numbers; "" where they are. Infinity is allowed: such an example comes first.

    Args:
        score_N: The scores.
        num_examples: N.
        columns: Numbers of each example, in scores [N, columns]; 0: one number, in scores [N].
    """
    if not isinstance(score_N, Tensor) or score_N.layout is not torch.strided:
        return shown(score_N)
    if score_N.shape != (num_examples, columns)[: 2 if columns else 1]:
        return shown(score_N)
    if score_N.is_complex() or score_N.dtype is torch.bool:
        return shown(score_N)
    num_nan = int(score_N.reshape(num_examples, -1).isnan().any(1).sum())
    return f"NaN for {num_nan} examples" if num_nan else ""


def check_rows(rows: Any, visits_N: Any, num_examples: int) -> None:
    """Refuses rows that are not those of the first epochs, and counts of visits that do not fit them."""
    require(isinstance(rows, list), "list of epochs", rows, "a list")
    for number, row in enumerate(rows):
        require(row["epoch"] == number and type(row["epoch"]) is int, "epoch", row["epoch"], f"{number}, in order")
        kept = row["kept"]
        require(is_count(kept) and kept <= num_examples, "number of kept examples", kept, f"at most {num_examples}")
        for name in row.keys() - {"epoch", "kept"}:
            require(is_amount(row[name]), name, row[name], "a finite number of at least 0")
        require(row.get("test_accuracy", 0) <= 1, "test_accuracy", row.get("test_accuracy"), "a share")
    wanted = f"int32, {num_examples} counts that sum to the examples kept"
    holds = isinstance(visits_N, Tensor) and visits_N.dim() == 1 and visits_N.dtype == torch.int32
    require(holds, "visits", visits_N, wanted)
    total = sum(row["kept"] for row in rows)
    require(
        visits_N.shape == (num_examples,) if total else len(visits_N) in (0, num_examples), "visits", visits_N, wanted
    )
    # A pruner that chooses within the batch may show an example several times in an epoch.
    most = total if any("forward_visits" in row for row in rows) else len(rows)
    holds = int(visits_N.sum()) == total and bool(((visits_N >= 0) & (visits_N <= most)).all())
    require(holds, "visits", f"counts with the sum {int(visits_N.sum())}", wanted)


def check_network(saved: Any, model: nn.Module) -> None:
    """Refuses weights and buffers of other names, shapes or types, and those that are not finite."""
    now = model.state_dict()
    require(isinstance(saved, dict) and saved.keys() == now.keys(), "network", saved, "that of the run")
    for name, value in now.items():
        _check_like(f"network's {name}", saved[name], value)
        if value.is_floating_point() and not bool(value.isinf().any()):
            require(bool(saved[name].isfinite().all()), f"network's {name}", "not finite", "finite")


def check_optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> None:
    """Refuses settings other than the run's, except the learning rate, and state of other shapes or not finite."""
    now = optimizer.state_dict()
    require(isinstance(saved, dict) and isinstance(saved["param_groups"], list), "optimizer", saved, "that of the run")
    for before, group in zip(saved["param_groups"], now["param_groups"], strict=True):
        lacking = sorted((group.keys() & STEP_SETTINGS) - before.keys())
        require(not lacking, "optimizer", f"without {', '.join(lacking)}", "that of the run")
        for name in group.keys() & before.keys() - {"lr", "initial_lr"} - IMPLEMENTATION:
            require(before[name] == group[name], f"optimizer's {name}", before[name], f"{group[name]}")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    wanted = STATE_NAMES[type(optimizer).__name__]
    for number, state in saved["state"].items():
        require(number in range(len(weights)), "optimizer's weight", number, f"one of {len(weights)}")
        require(isinstance(state, dict) and state.keys() == wanted, "optimizer's state", state, ", ".join(wanted))
        for name, value in state.items():
            if name == "step":
                require(
                    isinstance(value, Tensor) and value.dim() == 0, "optimizer's step", value, "a number of updates"
                )
            else:
                _check_like(f"optimizer's {name}", value, weights[number])
            require(bool(value.isfinite().all()), f"optimizer's {name}", "not finite", "finite")


def check_masks(masks: Any, model: nn.Module) -> None:
    """Refuses masks of other weights, shapes or types than those that can be pruned."""
    weights = prunable(model)
    require(isinstance(masks, dict) and masks.keys() <= weights.keys(), "masks", masks, "those of the run's weights")
    for name, mask in masks.items():
        _check_like(f"mask of {name}", mask, torch.empty_like(weights[name], dtype=torch.bool))


def check_pruner(saved: Any, pruner: Pruner, num_examples: int) -> None:
    """Refuses the state of a pruner of another ratio or of other data, and attributes of another type.

    A method with its own `state_dict` checks its state in `load_state_dict`.
    """
    require(isinstance(saved, dict), "pruner", saved, "a table")
    if type(pruner).state_dict is not Pruner.state_dict:
        return
    require(saved.get("num_examples") == num_examples, "num_examples", saved.get("num_examples"), f"{num_examples}")
    ratio = vars(pruner).get("prune_ratio")
    require(saved.get("prune_ratio") == ratio, "prune_ratio", saved.get("prune_ratio"), f"{ratio}")
    for name, value in vars(pruner).items():
        require(name in saved, name, "missing", f"a {type(value).__name__}")
        if isinstance(value, Tensor | bool | str):  # a number may become a tensor, and None anything
            require(type(saved[name]) is type(value), name, saved[name], f"a {type(value).__name__}")
        if isinstance(value, Tensor) and not value.is_floating_point():  # scores may become wider, and indices stay
            require(saved[name].dtype == value.dtype, name, saved[name].dtype, f"of {value.dtype}")
    for name, value in saved.items():
        if name.endswith("_N") and isinstance(value, Tensor) and isinstance(vars(pruner).get(name), Tensor):
            require(len(value) == num_examples, name, value, f"of length {num_examples}")


def check_training(saved: Any, state: Any, num_examples: int) -> None:
    """Refuses a saved training that `state` can't take over, and leaves `state` as it is.

    Args:
        saved: The content of `TrainingState.state_dict`; the optimizer may be absent.
        state: A `TrainingState` of the same run, of any epoch.
        num_examples: N.
    """
    require(isinstance(saved, dict), "training", saved, "a table")
    check_rows(saved["rows"], saved["visits_N"], num_examples)
    require(isinstance(saved["sparsity"], dict), "connections", saved["sparsity"], "a table")
    check_masks(saved["sparsity"]["masks"], state.model)
    model, optimizer, sparsity = copy.deepcopy((state.model, state.optimizer, state.sparsity))
    sparsity.load_state_dict(saved["sparsity"])
    sparsity.shape(model)
    check_network(saved["model"], model)
    if "optimizer" in saved:
        check_optimizer(saved["optimizer"], optimizer)
    check_pruner(saved["pruner"], state.pruner, num_examples)
    if state.average is not None:
        updates, values = saved["average"]["updates"], saved["average"]["values"]
        require(is_count(updates), "average's updates", updates, "a count")
        require(bool(values) == (updates > 0), "average", values, "that of the run's updates")
        if values:
            check_network(values, model)
    try:
        other = copy.deepcopy(state)
    except Exception:  # a pruner that can't be copied: its state is loaded without this test
        return
    other.load_state_dict(saved)


def check_head(state: Any) -> None:
    """Raises BadInput where a part that every checkpoint contains has another type."""
    require(isinstance(state["replaces"], str | None), "replaced record", state["replaces"], "a date")
    check_plain("environment", state["environment"])


def check_run(state: Any, now: Any, num_examples: int, length: int, evaluate_every: int) -> None:
    """Refuses the checkpoint of a prepared run that `now` can't take over, and leaves `now` as it is.

    Args:
        state: The content of `RunTrainer.state_dict`.
        now: The run's `TrainingState`.
        num_examples: N.
        length: Epochs of the run.
        evaluate_every: Epochs between evaluations.
    """
    check_seconds(state["seconds"])
    check_cpu_seconds(state.get("cpu_seconds", {}))
    require(is_count(state["visits"]), "visits", state["visits"], "a count")
    require(isinstance(state["scores_from"], str | None), "scores_from", state["scores_from"], "a run's key")
    check_plain("ticket", state["ticket"])
    cosines = state.get("gradient_cosine", {})
    require(is_cosines(cosines), "gradient_cosine", cosines, "a table of cosines from -1 to 1")
    check_training(state["training"], now, num_examples)
    rows = state["training"]["rows"]
    require(len(rows) <= length, "number of epochs", len(rows), f"at most {length}")
    for row in rows:
        is_due = (row["epoch"] + 1) % evaluate_every == 0 or row["epoch"] + 1 == length
        needed = EPOCH | {"test_accuracy"} if is_due else EPOCH
        require(needed <= row.keys(), "epoch", row, f"a row with {', '.join(sorted(needed - row.keys()))}")


def _check_like(name: str, value: Any, like: Tensor) -> None:
    wanted = shown(like)
    holds = isinstance(value, Tensor) and value.layout is torch.strided
    require(holds and value.shape == like.shape and value.dtype == like.dtype, name, value, wanted)
