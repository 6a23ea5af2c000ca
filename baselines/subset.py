"""A subset from elsewhere: indices or scores of a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.scored import KEPT, slice_of
from sadp_bench.pruner import (
    Arrays,
    BadInput,
    Pruner,
    ScoringContext,
    Selection,
    hash_fault,
    is_npy,
    is_npz,
    read_bytes,
    single,
    unpacked,
)
from sadp_bench.sampling import ranked

TOLERANCE = 0.005  # largest difference between the ratio and that of a list of indices
CHOICES = ("index", "mask", "scores")  # a file has one of these arrays
ARRAYS = (*CHOICES, "weights", "data_sha256")
Array = np.ndarray[Any, np.dtype[Any]]


class Subset(Pruner):
    """Keeps the examples that a file names, or those of its highest scores, for the whole run. Weight 1, or the file's.

    Source: the author of the file.

    Kind: static.
    Scoring: none.

    A `.npz` file has one of three arrays. `index` has distinct positions in the run's training set, from 0. `mask` is true
    for each kept one of the N examples. `scores` has a number for each example, where infinity comes first. The file may
    also have an array `weights`, with as many numbers above 0. Weights are taken as they are: a mean other than 1 changes
    the effective learning rate. A file with a text `data_sha256`, as `sadp-bench export` writes it, fits the data of this
    hash alone. A `.npy` file has one array, and a text file has a number a line. N numbers are scores, any other count of
    numbers are indices, and N truth values are a mask.

    Indices and masks are the same in every epoch, so their number must fit the ratio to within 0.5 points. The K highest
    scores are kept, ties broken by the seed. The cost of making the file is not charged: allow for it in comparisons.

    Args:
        prune_ratio: The share of visits to save.
        file: The path of the file.
        sha256: The hash of the file's content, a part of the run's key; "": that of the present content, filled in when
            the run is resolved. With another content the run is refused.
        keep: Which scores are kept. "hardest": the highest. "easiest": the lowest. "middle": as many are dropped above
            as below.
    """

    display_name = "Subset"

    def __init__(self, prune_ratio: float, *, file: str = "", sha256: str = "", keep: str = "hardest") -> None:
        super().__init__(prune_ratio)
        if keep not in KEPT:
            raise BadInput(f"subset's keep is one of {', '.join(KEPT)}, not '{keep}'")
        self.file = file
        self.sha256 = sha256
        self.keep = keep
        self.is_scored = False
        self.order = torch.empty(0, dtype=torch.int64)
        self.weight = torch.empty(0)

    def check(self, num_epochs: int) -> None:
        """Raises BadInput where the file can't be read, is another file, or has no indices, mask or scores."""
        self._arrays()

    def prepare(self, context: ScoringContext) -> None:
        """Reads the file. Raises BadInput where its numbers don't fit the training set or the ratio."""
        super().prepare(context)
        arrays = self._arrays()
        if "data_sha256" in arrays:
            self._check_data(str(arrays["data_sha256"]), context.data_sha256)
        name = next(name for name in arrays if name in (*CHOICES, "lines"))
        values = arrays[name]
        is_mask = values.dtype.kind == "b"
        weights = arrays.get("weights", np.ones(len(values)))
        if len(weights) != len(values):
            raise self._fault(f"has {len(weights):,} weights for {len(values):,} {name}")
        self.is_scored = name == "scores" or name == "lines" and not is_mask and len(values) == self.num_examples
        if is_mask:
            values, weights = self._masked(values), weights[values]
        self.order = self._ranked(values) if self.is_scored else self._indices(values)
        with np.errstate(over="ignore"):  # the check below finds infinite weights
            self.weight = torch.from_numpy(weights.astype(np.float32))  # of the native byte order
        if not bool(((self.weight > 0) & self.weight.isfinite()).all()):
            raise self._fault("has weights that are no numbers above 0 of float32")

    def select(self, epoch: int) -> Selection:
        """Returns the file's examples, or as many of the ranked examples as the ratio keeps."""
        if not self.is_scored:
            return Selection(self.order, self.weight)
        index_K = slice_of(self.order, self.num_kept(epoch), self.keep)
        return Selection(index_K, self.weight[index_K])

    def _arrays(self) -> Arrays:
        """Returns the file's arrays: `lines` of a text or of a single array, or those of a `.npz` file."""
        if not self.file:
            raise BadInput("subset needs a file of indices or scores: --set file=subset.npz (or .txt, a number a line)")
        content = read_bytes(Path(self.file))
        if fault := hash_fault(content, self.sha256):
            raise self._fault(fault)
        try:
            arrays = _parsed(content)
        except Exception as error:  # Damaged archives raise errors of many kinds.
            reason = " ".join(str(error).split())[:120]
            raise self._fault(
                f"is no .npz or .npy file of numbers, and no text of a number a line: {ascii(reason)}"
            ) from None
        if sum(name in (*CHOICES, "lines") for name in arrays) != 1:
            raise self._fault("has the array index, mask or scores, one of the three, and perhaps weights")
        for name, values in arrays.items():
            self._check_array(name, values)
        return arrays

    def _check_array(self, name: str, values: Array) -> None:
        """Raises BadInput for an array of the wrong type or shape, or with a value that is not allowed."""
        kinds = {"data_sha256": "U", "mask": "b", "lines": "biuf"}.get(name, "iuf")
        wanted = {"data_sha256": "a text", "mask": "a list of truth values"}.get(name, "a list of numbers")
        is_right = values.ndim == (0 if name == "data_sha256" else 1) and values.dtype.kind in kinds
        if not is_right or not values.size:
            raise self._fault(f"has {name} as {values.dtype} {list(values.shape)}; it is {wanted}")
        if values.dtype.kind != "f":
            return
        with np.errstate(over="ignore"):  # a number beyond float64 becomes infinite
            in_float64 = values.astype(np.float64)
        allowed = np.isfinite(in_float64) if name != "scores" else np.isfinite(in_float64) | np.isinf(values)
        if not allowed.all():
            raise self._fault(f"has {name} that are not finite")

    def _check_data(self, of_file: str, of_run: str) -> None:
        """Raises BadInput where the file is of other data than the run's, if both are known."""
        if of_run and of_file != of_run:
            raise self._fault(
                f"is of other data: its data_sha256 is {ascii(of_file[:12])}, and the run's '{of_run[:12]}'; take the data "
                "of the run that made it, or leave out the array data_sha256 where all positions are the same"
            )

    def _ranked(self, values: Array) -> Tensor:
        if len(values) != self.num_examples:
            raise self._fault(f"has {len(values):,} scores, and the run {self.num_examples:,} training examples")
        return ranked(torch.from_numpy(values.astype(np.float64)), self.generator())

    def _masked(self, values: Array) -> Array:
        """Returns the positions of a mask's kept examples."""
        if len(values) != self.num_examples:
            raise self._fault(
                f"has a mask of {len(values):,} examples, and the run {self.num_examples:,} training examples"
            )
        return np.flatnonzero(values)

    def _indices(self, values: Array) -> Tensor:
        if not len(values):
            raise self._fault("has a mask that keeps no example")
        rule = f"they are distinct whole numbers from 0 to {self.num_examples - 1:,}"
        wrong = values[(values != np.floor(values)) | (values < 0) | (values >= self.num_examples)]
        if len(wrong):
            raise self._fault(f"has {len(values):,} indices, among them {wrong[0]:.10g}; {rule}")
        index = values.astype(np.int64)
        if len(np.unique(index)) < len(index):
            raise self._fault(f"has an index twice; {rule}")
        ratio = 1 - len(index) / self.num_examples
        if abs(ratio - self.prune_ratio) > TOLERANCE:
            raise self._fault(
                f"has {len(index):,} of {self.num_examples:,} indices, which is --ratio {ratio:.4g}, not {self.prune_ratio:g}"
            )
        if self.keep != "hardest":
            raise self._fault(f"has indices, and keep={self.keep} chooses among scores: leave it out")
        return torch.from_numpy(index)

    def _fault(self, text: str) -> BadInput:
        return BadInput(f"subset's file {ascii(self.file)} {text}")


def _parsed(content: bytes) -> Arrays:
    """Returns the arrays of a file. No Python object is built; damaged and huge files raise an error."""
    if is_npz(content):
        return unpacked(content, ARRAYS.__contains__)
    return {"lines": single(content)} if is_npy(content) else _lines(content)


def _lines(content: bytes) -> Arrays:
    """Returns the numbers of a text, one a line; empty lines and comments after # are left out."""
    return {"lines": np.loadtxt(io.StringIO(content.decode("utf-8-sig")), ndmin=1)} if content.strip() else {}
