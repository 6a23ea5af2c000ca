"""The resolution of a sweep file's runs to specs. It finds errors of all runs before the first one trains."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.records.spec import Spec
from sadp_bench.runs import building, resolve, run
from sadp_bench.runs.material import Material
from sadp_bench.sweeps.sweep_file import RequestedRun


class Resolver:
    """Resolves the runs of a sweep file to specs.

    Each distinct network is built once on the CPU, because only this finds some wrong settings.

    Args:
        data: The folder of the data sets.
        threads: The number of threads of a run that sets none.

    Attributes:
        checkpoint_bytes: Bytes on disk of the largest checkpoints among the runs.
        rehearsed: Seconds per visit, by shape, for shapes whose first steps were rehearsed.
    """

    def __init__(self, data: Path | None, threads: int) -> None:
        self.checkpoint_bytes = 0
        self.rehearsed: dict[str, float] = {}
        self._data, self._threads = data, threads
        self._opened: dict[Any, Any] = {}
        self._specs: dict[str, Spec] = {}
        self._materials: dict[tuple[Any, ...], Material] = {}
        self._weight_bytes: dict[str, int] = {}  # of each distinct network

    def spec(self, request: RequestedRun) -> Spec:
        """Returns the spec of one run. Raises BadInput with the place in the file."""
        fields = {"threads": self._threads} | request.fields
        seed = fields.pop("seed", 0)
        # Runs that differ only in the seed are resolved once, because resolving copies the data.
        memory = json.dumps(fields, sort_keys=True)
        try:
            if memory not in self._specs:
                spec, material = resolve.resolve(fields, self._data, self._opened)
                self._materials.setdefault(_data_of(spec), material)
                self._build(spec)
                self._specs[memory] = spec
            return dataclasses.replace(self._specs[memory], seed=seed)
        except BadInput as error:
            raise BadInput(f"{request.where}: {error}") from None

    def material(self, spec: Spec) -> Material:
        """Returns the data of a spec that was resolved here."""
        return self._materials[_data_of(spec)]

    def search_bytes(self, spec: Spec) -> int:
        """Returns the bytes on disk of the search of a run that was resolved here; see `run.search_bytes`."""
        return run.search_bytes(spec, self._weight_bytes[_network_of(spec)])

    def _build(self, spec: Spec) -> None:
        network = _network_of(spec)
        if network not in self._weight_bytes:
            model = building.build_model(dataclasses.replace(spec, device="cpu"), self.material(spec), 0)
            self._weight_bytes[network] = building.weight_bytes(model)
        needed = run.checkpoint_bytes(spec, self._weight_bytes[network])
        self.checkpoint_bytes = max(self.checkpoint_bytes, needed)


def _data_of(spec: Spec) -> tuple[Any, ...]:
    options = json.dumps(spec.dataset_options, sort_keys=True)
    return spec.dataset, options, spec.timesteps, spec.train_examples, spec.evaluate_on


def _network_of(spec: Spec) -> str:
    data = (spec.dataset, spec.dataset_options, spec.timesteps)
    of = (*data, spec.backbone, spec.backbone_options, spec.precision, spec.kernel)
    return json.dumps(of, sort_keys=True)
