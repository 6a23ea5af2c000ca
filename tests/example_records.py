"""Records made by hand, for the tests of everything that only reads them."""

from __future__ import annotations

from typing import Any

from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec

ENVIRONMENT = {
    "python": "3.11.9", "torch": "2.6.0", "torchvision": "0.21.0", "spikingjelly": "2.0.0", "sadp_bench": "0.1.0",
    "commit": "0123456789abcdef", "dirty": False, "device": "cpu", "processor": "Example CPU", "threads": 1, "jobs": 1,
    "kernel": "torch", "bf16": True,
}  # fmt: skip


def make_spec(method: str = "full", ratio: float = 0.0, seed: int = 0, **changed: Any) -> Spec:
    settings: dict[str, Any] = {
        "dataset": "digits", "backbone": "cnn", "epochs": 10, "batch_size": 64, "timesteps": 4, "optimizer": "sgd",
        "learning_rate": 0.1, "schedule": "cosine", "weight_decay": 5e-4, "augment": "none", "loss": "mean",
        "precision": "fp32", "threads": 1, "device": "cpu", "train_examples": 1000, "protocol": "epochs",
        "evaluate_on": "test", "evaluate_every": 1, "method_options": {},
        "backbone_options": {"width": 32, "norm": "batch", "tau": 2.0, "detach_reset": True},
    }  # fmt: skip
    return Spec(method=method, ratio=ratio, seed=seed, **(settings | changed))


def make_record(
    spec: Spec,
    accuracy: float = 0.7,
    train: float = 100.0,
    *,
    prepare: float = 0.0,
    examples_seen: int | None = None,
    **changed: Any,
) -> Record:
    """Returns the record of a run that kept (1 - ratio) of its examples in every epoch; `changed` sets other fields."""
    kept = round(spec.train_examples * (1 - spec.ratio))
    row = {"kept": kept, "mean_weight": 1.0, "train_loss": 1.0, "learning_rate": 0.1, "seconds": 1.0}
    fields: dict[str, Any] = {
        "environment": ENVIRONMENT,
        "seconds": {"prepare": prepare, "select": 0.0, "train": train, "evaluate": 1000.0},
        "num_examples": spec.train_examples,
        "examples_seen": kept * spec.epochs if examples_seen is None else examples_seen,
        "prepare_examples": 0,
        "epochs": [{"epoch": epoch, **row} for epoch in range(spec.epochs)],
        "test_accuracy": accuracy,
        "test_examples": 100,
        "firing_rate": [0.1, 0.2],
        "num_parameters": 10,
        "peak_memory_bytes": 1,
        "data_sha256": "0" * 64,
        "finished": "2025-01-01T00:00:00+00:00",
    }
    return Record(spec=spec, **(fields | changed))
