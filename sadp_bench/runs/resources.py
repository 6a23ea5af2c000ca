"""What the runs of one command share: the data on the device, an untrained network, and the environment."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sadp_bench.records.spec import Spec
from sadp_bench.runs import environment
from sadp_bench.runs.resolve import Material, build_model, check_logits, make_loader, placed
from sadp_bench.runs.step_memory import check_step_fits


class Resources:
    """One copy of the data, one untrained network and one description of the environment, for any number of runs.

    The runs may differ in method, ratio, protocol, schedule and connections, not in data, network, precision, device,
    threads and seed.

    Args:
        spec: Any of the runs.
        material: The data.
        jobs: Runs that share this machine at the same time.

    Raises:
        BadInput: A training step can't fit into memory.

    Attributes:
        train: The examples to train on.
        held: The examples to evaluate on.
        environment: See `environment.describe`.
        untrained: The network as it is built, on the CPU; it is never trained.
    """

    def __init__(self, spec: Spec, material: Material, jobs: int = 1) -> None:
        self.material = material
        self.device = torch.device(spec.device)
        self.train = make_loader(spec, material, material.train)
        self.held = make_loader(spec, material, material.held)
        self.environment = environment.describe(self.device, spec.threads, jobs)
        self._spec = spec
        self.untrained = build_model(spec, material, spec.seed)
        check_step_fits(spec, material, self.untrained)
        check_logits(self.untrained, spec, self.train, len(material.dataset.class_names))

    def model(self, seed: int | None = None, timesteps: int | None = None) -> nn.Module:
        """Returns an untrained network on the device, always the same for a seed.

        Args:
            seed: Of the initial weights; None: the runs' own.
            timesteps: None: the runs' own.
        """
        spec = self._spec
        if seed in (None, spec.seed) and timesteps in (None, spec.timesteps):
            model = copy.deepcopy(self.untrained)
        else:
            model = build_model(spec, self.material, spec.seed if seed is None else seed, timesteps)
        return placed(model, spec)
