"""The resources that the runs of one command share: data on the device, an untrained network, and the environment."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sadp_bench.capture.synaptic_ops import Products
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import isolated
from sadp_bench.core.strangers import is_ours
from sadp_bench.records.spec import Spec
from sadp_bench.runs import environment
from sadp_bench.runs.building import build_model, enough_memory, make_loader, placed
from sadp_bench.runs.material import Material
from sadp_bench.runs.step_memory import check_step_fits
from sadp_bench.training.backprop import at_precision
from sadp_bench.training.data import Loader


class Resources:
    """One copy of the data, one untrained network and one description of the environment, for any number of runs.

    The runs may differ in method, ratio, protocol, schedule and connections. They have the same data, network, precision,
    kernel, device, threads and seed.

    Args:
        spec: Any one of the runs.
        material: The data.
        jobs: Runs that share this machine at the same time.

    Raises:
        BadInput: A training step can't fit into memory.

    Attributes:
        train: The examples to train on.
        held: The examples to evaluate on.
        environment: See `environment.describe`.
        untrained: The network as it is built, on the CPU. Only copies of it are trained.
    """

    def __init__(self, spec: Spec, material: Material, jobs: int = 1) -> None:
        self.material = material
        self.device = torch.device(spec.device)
        self.train = make_loader(spec, material, material.train)
        self.held = make_loader(spec, material, material.held)
        self.environment = environment.describe(self.device, spec.threads, jobs, spec.kernel)
        self._spec = spec
        self.untrained = build_model(spec, material, spec.seed)
        check_step_fits(spec, material, self.untrained)
        check_logits(self.untrained, spec, self.train, len(material.dataset.class_names))

    def model(
        self,
        seed: int | None = None,
        timesteps: int | None = None,
        change: Callable[[nn.Module], None] = lambda model: None,
    ) -> nn.Module:
        """Returns an untrained network on the device, always the same for a seed.

        Args:
            seed: Seed of the initial weights; None: the runs' seed.
            timesteps: Number of time steps; None: the runs' number.
            change: Called with the network as its class builds it, on the CPU, before it goes to the device.
        """
        spec = self._spec
        if seed in (None, spec.seed) and timesteps in (None, spec.timesteps):
            model = copy.deepcopy(self.untrained)
        else:
            model = build_model(spec, self.material, spec.seed if seed is None else seed, timesteps)
        change(model)
        return placed(model, spec)

    def products(self) -> dict[str, float]:
        """Returns the products of an inference with all connections, by the weights' names; see `Products`."""
        counted = Products(copy.deepcopy(self.untrained), self.train.input(torch.arange(1)).cpu())
        return {f"{name}.weight" if name else "weight": number for name, number in counted.by_layer().items()}


def check_logits(model: nn.Module, spec: Spec, data: Loader, num_classes: int) -> None:
    """Raises BadInput where a network of another package returns no logits of the contract's shape. Runs a copy of it."""
    if is_ours(type(model).__module__):
        return
    input = data.input(torch.arange(min(2, len(data))))
    model = placed(copy.deepcopy(model), spec).eval()
    with isolated(spec.seed, "check", data.device), enough_memory(spec), torch.no_grad():
        logits_TBC: Any = at_precision(model, spec.precision, data.device)(input)
    batch = input.shape[1 if input.dim() == 5 else 0]
    wanted = f"[T, {batch}, {num_classes}], a time step first, then the {batch} examples and {num_classes} classes"
    if logits_TBC.dim() != 3 or logits_TBC.shape[1:] != (batch, num_classes):
        raise BadInput(
            f"backbone '{spec.backbone}' returns logits of shape {list(logits_TBC.shape)}, and must return {wanted}"
        )
