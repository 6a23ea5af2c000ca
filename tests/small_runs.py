"""Small runs on digits that the tests of the loop and its parts share."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sadp_bench.core import registry
from sadp_bench.core.losses import WeightedLoss, step_loss
from sadp_bench.core.progress import Progress
from sadp_bench.pruners.base import Pruner
from sadp_bench.pruners.exchange import Observation, Selection
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.runs.material import Material
from sadp_bench.runs.resolve import resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer
from sadp_bench.training.backprop import make_backprop

SMALL: dict[str, Any] = {
    "method": "full",
    "ratio": 0.0,
    "dataset": "digits",
    "epochs": 2,
    "batch_size": 50,
    "timesteps": 2,
    "train_examples": 130,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
}


def resolved(**requested: Any) -> tuple[Spec, Material]:
    requested = {**SMALL, **requested}
    # A 1x1 convolution of stride 2 on 4 channels corrupts memory in oneDNN on processors without AVX-512.
    width = 8 if "resnet" in requested.get("backbone", "cnn") else 4
    needed = needed_options(requested["method"], requested["train_examples"])
    requested["set"] = {"backbone.width": width, **needed, **requested.get("set", {})}
    return resolve(requested)


FILES = tempfile.TemporaryDirectory()  # is removed when Python ends


def needed_options(method: str, num_examples: int) -> dict[str, Any]:
    """Returns the settings without which a method refuses to run: a file of scores for `subset`."""
    if method != "subset":
        return {}
    path = Path(FILES.name) / f"{num_examples}.txt"
    path.write_text("".join(f"{score % 1:.3f}\n" for score in torch.arange(num_examples) * 0.618))
    return {"file": str(path)}


def short_scoring(method: str) -> dict[str, Any]:
    """Returns the settings by which a method's scoring network trains as few epochs as its score allows."""
    cls = registry.resolve("method", method)
    return {"score_epochs": max(1, cls.least_epochs)} if "score_epochs" in registry.options(cls) else {}


def make_trainer(spec: Spec, material: Material, progress: Progress | None = None, **how: Any) -> RunTrainer:
    return RunTrainer(spec, Resources(spec, material), progress or Progress(), **how)


def small_bench(pruner: Pruner | None = None, **requested: Any) -> RunTrainer:
    """Returns a prepared run; `pruner` takes the place of the method's own."""
    bench = make_trainer(*resolved(**requested))
    if pruner is not None:
        bench.state.pruner = pruner
    bench.pruner.prepare(bench.context)
    return bench


def gradients_of_batch(model: torch.nn.Module, backprop: str, input: Tensor, label_B: Tensor) -> Tensor:
    """Returns the logits of a batch of the per-step loss; its gradients are in the model."""
    step = make_backprop(backprop, 0, model, "fp32", torch.device("cpu"))
    loss = WeightedLoss(step_loss, label_B, torch.ones(len(label_B)), float(len(label_B)))
    return step(input, loss, torch.Generator())[0]


class Chosen(Pruner):
    """Keeps the given examples with the given weights in every epoch, and stores its observations."""

    def __init__(self, index_K: Tensor, weight_K: Tensor | None = None, watch: frozenset[str] = frozenset()) -> None:
        super().__init__(0.0)
        self.chosen = Selection(index_K, torch.ones(len(index_K)) if weight_K is None else weight_K)
        self.watched = watch
        self.seen: list[Observation] = []
        self.when_seen: Callable[[Observation], None] = lambda seen: None

    def select(self, epoch: int) -> Selection:
        return self.chosen

    def watch(self, epoch: int) -> frozenset[Any]:
        return self.watched

    def observe(self, seen: Observation) -> None:
        self.seen.append(seen)
        self.when_seen(seen)


def numbers(record: Record) -> dict[str, Any]:
    """Returns a record without the fields that may differ between a whole run and one in two parts: times, memory,
    environment and the count of interruptions."""
    data = copy.deepcopy(record.to_json())
    for name in (
        "seconds",
        "cpu_seconds",
        "finished",
        "peak_memory_bytes",
        "train_memory_bytes",
        "environment",
        "interruptions",
        "scores_from",
    ):
        del data[name]
    for name in ("seconds", "from"):
        data["ticket"].pop(name, None)
    for row in data["epochs"]:
        for name in [name for name in row if name.endswith("seconds")]:
            del row[name]
    return data


def hooks_of(model: torch.nn.Module) -> int:
    return sum(
        len(hooks)
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    )


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class EvenTime:
    """A clock for `core.clock` by which every stretch of work takes a second, on one core, or on a share of it.

    Args:
        cpu_share: CPU seconds in a second.
    """

    def __init__(self, cpu_share: float = 1.0) -> None:
        self.cpu_share, self.wall, self.cpu = cpu_share, 0.0, 0.0

    def perf_counter(self) -> float:
        self.wall += 1.0
        return self.wall

    def process_time(self) -> float:
        self.cpu += self.cpu_share
        return self.cpu
