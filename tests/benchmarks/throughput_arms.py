"""The arms of tests/benchmarks/throughput.py: each trains, on call, for one epoch.

Peers train on ready-made float tensors without augmentation. Ours run as `sadp-bench run` trains: uint8 images, crop and
mirror, checks for NaN. So all differences beside the network are to the peers' advantage.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples
from sadp_bench.measure import speed
from sadp_bench.native import spike_conv
from sadp_bench.records.spec import Spec
from sadp_bench.runs.resolve import resolve
from sadp_bench.runs.resources import Resources
from sadp_bench.runs.trainer import RunTrainer
from tests.benchmarks.peers import AFTER_NORM, BEFORE_NORM, Kit, Peer, Shape, SnnTorch, SpikingJelly

MOST_EXAMPLES = 4096
PLAIN, PLAIN_KEPT, PLAIN_DEFAULT = "plain", "plain-kept", "plain-after-norm"
OURS, OURS_PYTHON, OURS_SADP = "ours", "ours-python", "ours-sadp"
CONVOLUTIONS, CONVOLUTIONS_PYTHON = "convolutions", "convolutions-python"
ARMS = {  # the order of a round: arms that keep freed memory are neighbours, with ours in their midst
    PLAIN: "SpikingJelly as its tutorials show: float32, contiguous, the image repeated over time",
    PLAIN_DEFAULT: "plain in the order pool_at=after-norm, beside a network of pool_at=before-norm",
    "plain-compiled": "plain under torch.compile",
    "by-hand": "SpikingJelly: channels last, first convolution once, bf16 autocast where the processor has it",
    "by-hand-compiled": "by-hand under torch.compile",
    "snntorch": "snnTorch as its tutorials show: float32, step by step",
    "snntorch-by-hand": "snnTorch: channels last, first convolution once, bf16 autocast where the processor has it",
    PLAIN_KEPT: "plain, and the C library keeps freed memory, as for ours",
    OURS: "full data as `sadp-bench run` trains it",
    OURS_PYTHON: "ours with `--kernel python`, only where another kernel computes ours",
    OURS_SADP: "SADP at 0.5, in images of the full data",
    CONVOLUTIONS: "nothing but the convolutions and the readout of ours, forward and backward, on ready inputs",
    CONVOLUTIONS_PYTHON: "the same of ours-python: torch's convolutions",
}
COMPILED = tuple(name for name in ARMS if name.endswith("-compiled"))
OF_SPIKES = ("output", "weight_gradient")  # of native/spike_conv.py
PRODUCTS = {f"aten::{name}" for name in ("convolution", "convolution_backward", "addmm", "mm")}
Epoch = Callable[[], None]


class Images(Dataset):
    """Random images of CIFAR's shape."""

    augment, mean, std = "crop-flip", (0.5,) * 3, (0.25,) * 3
    class_names = tuple(map(str, range(10)))

    def __init__(self, root: Path, timesteps: int) -> None:
        self.train = labelled(torch.randint(0, 256, (MOST_EXAMPLES, 3, 32, 32), dtype=torch.uint8, generator=draws()))
        self.test = self.train.take(torch.arange(256))

    @classmethod
    def locate(cls, root: Path) -> None:
        return None


class Events(Dataset):
    """Random frames of N-MNIST's shape and mean number of events (about 4,200 a recording)."""

    events, batch_size, scale, mean, std = True, 64, 1.0, (0.0, 0.0), (1.0, 1.0)
    class_names = tuple(map(str, range(10)))

    def __init__(self, root: Path, timesteps: int) -> None:
        mean = torch.full((MOST_EXAMPLES, timesteps, 2, 34, 34), 1.8 / timesteps)
        self.train = labelled(torch.poisson(mean, draws()).to(torch.uint8))
        self.test = self.train.take(torch.arange(256))

    @classmethod
    def locate(cls, root: Path) -> None:
        return None


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def labelled(input_N: Tensor) -> Examples:
    return Examples(input_N, torch.arange(len(input_N)) % 10)


DATA = {"images": f"{__name__}:{Images.__name__}", "events": f"{__name__}:{Events.__name__}"}


@dataclass(frozen=True)
class Arm:
    """An arm that is ready to train.

    Args:
        epoch: Trains on every example once, or, under SADP, on its selection.
        precision: "fp32" or "bf16".
        keeps_memory: Whether the C library keeps freed memory.
    """

    epoch: Epoch
    precision: str
    keeps_memory: bool


class Workshop:
    """Makes the arms of one request, on the same data.

    Args:
        request: As `resolve` takes it, without method, ratio and epochs.
        epochs: Number of epochs of each arm.
        keep_memory: Whether the C library keeps freed memory for every arm.

    Attributes:
        spec: The run of full data.
        resources: Its data.
    """

    def __init__(self, request: Mapping[str, Any], epochs: int, keep_memory: bool) -> None:
        self.request, self.keep_memory = {**request, "epochs": epochs}, keep_memory
        self.opened: dict[Any, Any] = {}
        self.spec, material = self._resolved("full", 0.0)
        self.resources = Resources(self.spec, material)
        options = self.spec.backbone_options
        if options.get("norm", "batch") != "batch":
            raise BadInput(f"the peers have batch norm: leave out backbone.norm={options['norm']}")
        if options.get("pool", "avg") != "avg":
            raise BadInput(f"the peers have average pools: leave out backbone.pool={options['pool']}")
        dataset = material.dataset
        sizes = material.train.input_shape, len(dataset.class_names), self.spec.timesteps
        self.shape = Shape(self.spec.backbone, options["width"], options.get("pool_at", AFTER_NORM), *sizes)

    def makes(self, name: str) -> bool:
        """Returns whether an arm differs from the others in this request."""
        if name == PLAIN_DEFAULT:
            return self.shape.pool == BEFORE_NORM
        if name in (OURS_PYTHON, CONVOLUTIONS_PYTHON):
            return getattr(self.spec, "kernel", "python") != "python"
        return name != PLAIN_KEPT or not self.keep_memory

    def make(self, name: str) -> Arm:
        """Returns the arm of that name.

        Raises:
            BadInput: snnTorch or the compiler is absent.
        """
        if name == OURS:
            return Arm(self._ours("full", 0.0), self.spec.precision, True)
        if name == OURS_PYTHON:
            return Arm(self._ours("full", 0.0, kernel="python"), self.spec.precision, True)
        if name == OURS_SADP:
            return Arm(self._ours("sadp", 0.5), self.spec.precision, True)
        if name == CONVOLUTIONS:
            return Arm(self._convolutions(), self.spec.precision, True)
        if name == CONVOLUTIONS_PYTHON:
            return Arm(self._convolutions(kernel="python"), self.spec.precision, True)
        return self._peer(name)

    def _peer(self, name: str) -> Arm:
        by_hand = "by-hand" in name
        kit: Kit = (SnnTorch if name.startswith("snntorch") else SpikingJelly)(by_hand=by_hand)
        pool = AFTER_NORM if name == PLAIN_DEFAULT else self.shape.pool
        shape = Shape(**{**vars(self.shape), "pool": pool})
        torch.manual_seed(0)
        try:
            model: nn.Module = Peer(kit, shape).to(self.spec.device).train()
        except ImportError as error:
            raise BadInput(f"{error}; pip install '.[test]'") from None
        if by_hand:
            model = model.to(memory_format=torch.channels_last)
        precision = self.spec.precision if by_hand else "fp32"
        forward: Any = model
        if name in COMPILED:
            check_compiler(torch.device(self.spec.device))
            forward = torch.compile(model)
        epochs = peer_epochs(model, kit, forward, self.resources.material.train, self.spec, precision, by_hand)
        return Arm(lambda: next(epochs), precision, self.keep_memory or name == PLAIN_KEPT)

    def _ours(self, method: str, ratio: float, **other: Any) -> Epoch:
        spec, material = self._resolved(method, ratio, **other)
        resources = Resources(spec, material) if other else self.resources
        arm = speed.Arm(RunTrainer(spec, resources, Progress()))
        return lambda: void(arm.step())

    def _convolutions(self, **other: Any) -> Epoch:
        """Returns an epoch of nothing but the matrix products of one training step of ours, once for each batch."""
        spec, material = self._resolved("full", 0.0, train_examples=self.spec.batch_size, epochs=1, **other)
        arm = speed.Arm(RunTrainer(spec, Resources(spec, material), Progress()))
        with Products() as recorded:
            arm.step()
        del arm
        return lambda: recorded.again(self.spec.train_examples // self.spec.batch_size)

    def _resolved(self, method: str, ratio: float, **other: Any) -> tuple[Spec, Any]:
        return resolve({**self.request, "method": method, "ratio": ratio, **other}, opened=self.opened)


class Products(TorchDispatchMode):
    """Records the convolutions and matrix products of a step, forward and backward, with all that they are given.

    They are seen below autograd and autocast, so types, memory formats and merged kernels are the step's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self.patches = [patch.object(spike_conv, name, self._recorded(name)) for name in OF_SPIKES]

    def __enter__(self) -> Products:
        for each in self.patches:
            each.start()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for each in self.patches:
            each.stop()

    def _recorded(self, name: str) -> Callable[..., Tensor]:
        function = getattr(spike_conv, name)

        def recorded(*args: Any) -> Tensor:
            self.calls.append((function, args, {}))
            return function(*args)

        return recorded

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in PRODUCTS:
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    @torch.no_grad()
    def again(self, times: int) -> None:
        """Computes the recorded products so many times."""
        for _ in range(times):
            for func, args, kwargs in self.calls:
                func(*args, **kwargs)


def peer_epochs(
    model: nn.Module, kit: Kit, forward: Callable[[Tensor], Tensor], examples: Examples, spec: Spec, precision: str,
    channels_last: bool,
) -> Iterator[None]:  # fmt: skip
    """Trains a peer with SGD as ours, epoch by epoch."""
    device = torch.device(spec.device)
    events = examples.input_N.dim() == 5
    input_N = examples.input_N.float().div(1 if events else 255)
    if channels_last:
        input_N = input_N.movedim(-3, -1).contiguous()
    input_N, label_N = input_N.to(device), examples.label_N.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.learning_rate, momentum=0.9, weight_decay=5e-4)
    while True:
        for index_B in torch.randperm(len(label_N)).to(device).split(spec.batch_size):
            input = input_N[index_B]
            if events:
                input = input.transpose(0, 1).contiguous()
            if channels_last:
                input = input.movedim(-1, -3)
            with torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext():
                logits_TBC = forward(input)
            loss = cross_entropy(logits_TBC.float().mean(0), label_N[index_B])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            kit.reset(model)
        yield


def check_compiler(device: torch.device) -> None:
    """Raises BadInput where torch.compile finds no compiler."""
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise BadInput(f"torch.compile needs a C++ compiler ({' or '.join(compilers)})")


def void(_: object) -> None:
    """Returns nothing."""
