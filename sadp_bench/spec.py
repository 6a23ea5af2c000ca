"""What a run is: every choice that can change its numbers, resolved, and the key made of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from sadp_bench.errors import BadInput
from sadp_bench.registry import nearest

CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "constant"),
    "augment": ("none", "crop", "crop-flip"),
    "loss": ("mean", "step"),
    "precision": ("fp32", "bf16", "fp64"),
    "protocol": ("epochs", "updates"),
    "evaluate_on": ("test", "validation"),
}


@dataclass(frozen=True, slots=True)
class Spec:
    """One run, fully resolved: no field says "auto". Fields are named as the options of `sadp-bench run`.

    ratio is the pruning ratio as a budget: the share of example visits saved over the run.
    method_options and backbone_options are the `--set` tables, defaults filled in.
    """

    method: str
    ratio: float
    dataset: str
    backbone: str
    epochs: int
    batch_size: int
    timesteps: int
    optimizer: str
    learning_rate: float
    schedule: str
    weight_decay: float
    augment: str
    loss: str
    precision: str
    threads: int
    device: str
    seed: int
    train_examples: int
    protocol: str
    evaluate_on: str
    evaluate_every: int
    method_options: dict[str, Any] = field(default_factory=dict)
    backbone_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise BadInput(f"--{name.replace('_', '-')} is one of {', '.join(allowed)}, not '{value}'")
        if not (isinstance(self.ratio, int | float) and 0 <= self.ratio < 1):
            raise BadInput(f"--ratio is at least 0 and below 1 (the share of visits to save), not {self.ratio}")
        for name in ("epochs", "batch_size", "timesteps", "threads", "train_examples", "evaluate_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"--{name.replace('_', '-')} is at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise BadInput(f"--{name.replace('_', '-')} is a number of at least 0, not {value}")
        for name in ("ratio", "learning_rate", "weight_decay"):
            # 0 and 0.0 are one run and must have one key.
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.seed < 0:
            raise BadInput(f"--seed is a whole number of at least 0, not {self.seed}")

    @property
    def key(self) -> str:
        """12 hex digits of the hash of all fields."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def reference(self) -> Spec:
        """The paired full-data run: same everything, but `full`, and the method's settings dropped."""
        return dataclasses.replace(self, method="full", ratio=0.0, protocol="epochs", method_options={})

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Spec:
        """Raises BadInput where a field is unknown or missing."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in data:
            if name not in known:
                raise BadInput(f"unknown field '{name}'{nearest(name, known)}")
        missing = sorted(known - set(data))
        if missing:
            raise BadInput(f"the spec lacks {', '.join(missing)}")
        return cls(**data)
