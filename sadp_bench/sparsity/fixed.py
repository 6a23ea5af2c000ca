"""Masks from a file, such as a run's masks from `sadp-bench export --masks`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sadp_bench.core.arrays import Arrays, is_npz, unpacked
from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import STATE_BYTES, hash_fault, read_bytes
from sadp_bench.sparsity.base import SearchContext, Sparsity, density, prunable

MASK, START = "connections/", "start/"  # prefixes of an array's name, before the name of the weight
TOLERANCE = 0.005  # largest difference between the density and that of a file


class Fixed(Sparsity):
    """Trains with the fixed masks of a file, and from the network in the file if it has one.

    Source: the author of the file.

    A `.npz` file has a bool array `connections/NAME` for each weight of a convolution or linear layer. It may also have an
    array `start/NAME` for each entry of the network's state. Then the run starts from these, and otherwise from its initial
    weights. So a run of `random`, `imp` or `eb` can be repeated, or its connections used with other data, another seed or
    another method. The cost of making the file is not charged.

    Args:
        density: The share of the weights that exist; that of the file, to within 0.5 points.
        early_time: Refused, because nothing is searched.
        file: The path of the file.
        sha256: The hash of the file's content, a part of the run's key; "": that of the present content, filled in when
            the run is resolved. With another content the run is refused.
    """

    def __init__(self, density: float = 1.0, early_time: bool = False, *, file: str = "", sha256: str = "") -> None:
        super().__init__(density, early_time)
        self.file, self.sha256 = file, sha256

    def check(self, num_epochs: int, timesteps: int) -> None:
        """Raises BadInput where the file can't be read, is another file, has no masks, or has another density."""
        arrays = self._arrays()
        there = density(_tensors(arrays, MASK))
        if abs(there - self.density) > TOLERANCE:
            raise self._fault(f"has a share of {there:.4g} of the connections: give --density {there:.4g}")

    def prepare(self, context: SearchContext, model: nn.Module) -> dict[str, Any]:
        """Takes masks and weights from the file. Returns the density. Raises BadInput where they are of another network."""
        arrays = self._arrays()
        masks, start = _tensors(arrays, MASK), _tensors(arrays, START)
        self._check_like(masks, {name: weight.data for name, weight in prunable(model).items()}, "masks")
        if start:
            state = {name: value for name, value in model.state_dict().items()}
            self._check_like(start, state, "weights")
            if not all(bool(value.isfinite().all()) for value in start.values()):
                raise self._fault("has weights that are not finite")
            model.load_state_dict(start)
        self.masks = masks
        return {"density": density(masks)}

    def _check_like(self, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
        """Raises BadInput where names or shapes are not those of the network."""
        for name in [*wanted, *found]:
            here, there = found.get(name), wanted.get(name)
            if here is None or there is None or here.shape != there.shape:
                shown = ["none" if value is None else str(list(value.shape)) for value in (here, there)]
                raise self._fault(
                    f"has {what} of another network: {ascii(name)} has the shape {shown[0]} in the file and {shown[1]} "
                    "in the network"
                )

    def _arrays(self) -> Arrays:
        if not self.file:
            raise BadInput(
                "--sparsity fixed needs a file of masks: --set sparsity.file=m.npz (`sadp-bench export RUN --masks m.npz`)"
            )
        content = read_bytes(Path(self.file), STATE_BYTES)
        if fault := hash_fault(content, self.sha256):
            raise self._fault(fault)
        try:
            if not is_npz(content):
                raise ValueError("no archive")
            arrays = unpacked(content, lambda name: name.startswith((MASK, START)))
        except Exception as error:  # Damaged archives raise errors of many kinds.
            reason = " ".join(str(error).split())[:120]
            raise self._fault(f"is no .npz file of arrays: {ascii(reason)}") from None
        for name, values in arrays.items():
            if values.dtype.kind not in ("b" if name.startswith(MASK) else "biuf"):
                raise self._fault(f"has {ascii(name)} as {values.dtype}, where masks are bool and weights numbers")
        if not any(name.startswith(MASK) for name in arrays):
            raise self._fault(f"has no masks of connections: bool arrays {MASK}NAME, by the weights' names")
        return arrays

    def _fault(self, text: str) -> BadInput:
        return BadInput(f"the file {ascii(self.file)} of --sparsity fixed {text}")


def _tensors(arrays: Arrays, prefix: str) -> dict[str, Tensor]:
    """Returns the arrays of a prefix as tensors, by their names without it."""
    return {
        name.removeprefix(prefix): torch.from_numpy(np.array(values, values.dtype.newbyteorder("="), order="C"))
        for name, values in arrays.items()
        if name.startswith(prefix)
    }
