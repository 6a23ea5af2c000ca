"""A context without a run: a tiny network that trains on random images, one process, one thread, deterministic."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sadp_bench.core.rng import isolated, stream
from sadp_bench.sparsity.base import Sparsity

CPU = torch.device("cpu")


class Tiny(nn.Module):
    """Maps [B, 2, 5, 5] to [T, B, 3]: two convolutions, one with a norm behind it, and a readout with a bias."""

    def __init__(self, timesteps: int, seed: int = 0) -> None:
        super().__init__()
        self.timesteps = timesteps
        with isolated(seed, "tiny", CPU):
            self.first = nn.Conv2d(2, 4, 3, bias=False)
            self.norm = nn.BatchNorm2d(4)
            self.second = nn.Conv2d(4, 6, 3, padding=1)
            self.readout = nn.Linear(6, 3)

    def forward(self, image: Tensor) -> Tensor:
        steps = []
        for step in range(1, self.timesteps + 1):
            hidden = self.second(self.norm(self.first(image * step)).relu()).relu()
            steps.append(self.readout(hidden.mean((2, 3))))
        return torch.stack(steps)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-3)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def stored(state: Any) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def restored(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


class Killed(Exception):
    """Stands for a kill of the process after an epoch was saved and before its network was yielded."""


@dataclass
class TinyContext:
    """Trains `Tiny` networks.

    Attributes:
        disk: The state that outlives a kill.
        calls: Settings of each training.
        trained: (training, epoch) in the order in which they were made.
    """

    num_epochs: int = 6
    timesteps: int = 2
    seed: int = 0
    device: torch.device = CPU
    disk: dict[Any, bytes] = field(default_factory=dict)
    kill_after: int | None = None
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd
    calls: list[dict[str, Any]] = field(default_factory=list)
    trained: list[tuple[int, int]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)
    skipped: int = 0

    def __post_init__(self) -> None:
        if "kept" in self.disk:
            self.kept, self.skipped = restored(self.disk["kept"])

    def keep(self, **state: Any) -> None:
        self.kept |= state
        self.disk["kept"] = stored((self.kept, self.skipped + len(self.calls)))

    def initial_weights(self) -> dict[str, Tensor]:
        return Tiny(self.timesteps, self.seed).state_dict()

    def train(
        self,
        sparsity: Sparsity,
        *,
        timesteps: int,
        weights: Mapping[str, Tensor] | None = None,
        first_epoch: int = 0,
        epochs: int | None = None,
        ratio: float = 0.0,
    ) -> Iterator[nn.Module]:
        number = self.skipped + len(self.calls)
        kept = None if weights is None else {name: value.clone() for name, value in weights.items()}
        self.calls.append(
            {"timesteps": timesteps, "weights": kept, "first_epoch": first_epoch, "masks": dict(sparsity.masks)}
            | {"ratio": ratio}
        )
        model = Tiny(timesteps, self.seed)
        if weights is not None:
            model.load_state_dict(weights)
        optimizer, done = self.make_optimizer(model), first_epoch
        sparsity.attach(model, optimizer)
        if number in self.disk:
            state = restored(self.disk[number])
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            sparsity.load_state_dict(state["sparsity"])
            sparsity.attach(model, optimizer)
            done = state["done"]
            yield model
        until = self.num_epochs if epochs is None else epochs
        for epoch in range(done, until):
            self._one_epoch(model, optimizer, epoch)
            sparsity.after_epoch(epoch, until)
            parts = {"model": model, "optimizer": optimizer, "sparsity": sparsity}
            self.disk[number] = stored({name: part.state_dict() for name, part in parts.items()} | {"done": epoch + 1})
            self.trained.append((number, epoch))
            if len(self.trained) == self.kill_after:
                raise Killed
            yield model

    def _one_epoch(self, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * epoch / self.num_epochs))
        for image, label in batches(epoch):
            optimizer.zero_grad()
            cross_entropy(model.train()(image).mean(0), label).backward()
            optimizer.step()

    def logits(self, model: nn.Module, num_examples: int) -> Tensor:
        image_N = torch.cat([image for image, _ in batches(0)])
        with torch.no_grad():
            return model.eval()(image_N[:num_examples])

    def message(self, text: str) -> None:
        self.messages.append(text)


def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Returns 32 images in four batches, in the epoch's order."""
    image_N, label_N = torch.randn(32, 2, 5, 5, generator=stream(0, "images")), torch.arange(32) % 3
    order_N = torch.randperm(32, generator=stream(0, "order", epoch))
    return iter([(image_N[index_B], label_N[index_B]) for index_B in order_N.split(8)])
