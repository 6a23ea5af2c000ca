"""Reads the files that a run kept beside its record, and exports them. docs/exports.md has the layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from sadp_bench.core.arrays import Array, unpacked
from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import STATE_BYTES, read_bytes
from sadp_bench.pruners.base import Pruner
from sadp_bench.records.naming import run_name
from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store, atomic
from sadp_bench.records.visit_counts import unpack
from sadp_bench.runs.building import make_sparsity
from sadp_bench.runs.reopening import read_weights, reopened
from sadp_bench.sparsity.base import Sparsity
from sadp_bench.sparsity.cutting import Cutting
from sadp_bench.sparsity.fixed import MASK, START
from sadp_bench.training.checkpoint import read_state
from sadp_bench.training.state_checks import SCORE_RULE, check_scores, contents, score_fault

SCORES = ".scores.npz"  # what `--save-scores` keeps beside the record, in the layout of the export
MASKS = ".masks.npz"  # masks of connections, which `--save-model` keeps
Write = Callable[[IO[bytes]], object]


def check_scores_kept(spec: Spec, pruner: Pruner) -> None:
    """Raises BadInput where `--save-scores` would find no scores at the end of a run."""
    if type(pruner).final_scores is Pruner.final_scores:
        raise BadInput(f"{spec.method} has no scores for --save-scores to keep; leave it out")
    if pruner.score_columns:
        raise BadInput(
            f"{spec.method} with these settings has {pruner.score_columns} numbers of each example, and --save-scores keeps "
            "one; leave it out"
        )


def final_scores(spec: Spec, pruner: Pruner) -> Array:
    """Returns the scores of a run's pruner at its end, float64, [N]. Raises BadInput where they are not N real numbers."""
    found: Any = pruner.final_scores()
    if fault := score_fault(found, pruner.num_examples):
        raise BadInput(
            f"{spec.method}'s final_scores returns {fault}, and must return {pruner.num_examples} {SCORE_RULE}"
        )
    score_N: Array = found.detach().cpu().double().numpy()
    return score_N


def has_scores(spec: Spec, store: Store) -> bool:
    """Returns whether a run's scores exist on disk."""
    return store.path(spec, SCORES).exists() or store.scores_path(spec).exists()


def keep_shared(spec: Spec, store: Store) -> None:
    """Copies the shared scores of a finished run to a file beside its record, unless scores are there already."""
    path, record = store.path(spec), store.find(spec)
    if record is not None and not path.with_suffix(SCORES).exists():
        write_scores(path.with_suffix(SCORES), shared_scores(path, record), record.data_sha256)


def write_scores(path: Path, score_N: Array, data_sha256: str) -> None:
    """Writes scores as `subset` reads them: float64, with the hash of their data."""
    with atomic(path) as file:
        _scores_writer(score_N, data_sha256)(file)


def write_masks(path: Path, masks: Mapping[str, Tensor]) -> None:
    """Writes the masks of connections, by their weights' names."""
    with atomic(path) as file:
        _arrays_writer({MASK + name: mask.cpu().numpy() for name, mask in masks.items()})(file)


def scores(path: Path, record: Record) -> Array:
    """Returns the scores that a run kept, float64, [N]: its final scores, or those that it made before training.

    Args:
        path: The record's file; the scores lie beside it, or in the folder `scores` there.
        record: The record.

    Raises:
        BadInput: There are no scores, or they are not the run's.
    """
    kept = path.with_suffix(SCORES)
    if kept.exists():
        return _kept_scores(kept, record)
    if not Store(path.parent).scores_path(record.spec).exists():
        raise BadInput(
            f"{path} kept no scores; `run --again --save-scores` trains it anew and keeps them, where {record.spec.method} "
            "has any"
        )
    return shared_scores(path, record)


def _kept_scores(kept: Path, record: Record) -> Array:
    arrays = _read_arrays(kept)
    found, data = arrays.get("scores"), arrays.get("data_sha256")
    is_right = found is not None and found.shape == (record.num_examples,) and found.dtype == np.float64
    if found is None or not is_right or np.isnan(found).any() or str(data) != record.data_sha256:
        raise BadInput(
            f"{kept}: not the scores of the run's {record.num_examples:,} examples; train it anew with --again"
        )
    return found


def shared_scores(path: Path, record: Record) -> Array:
    """Returns the scores that a method made before training, from the folder `scores`. See the function `scores`."""
    where = Store(path.parent).scores_path(record.spec)
    try:
        state = read_state(where, torch.device("cpu"))
        with contents():
            check_scores(state, record.num_examples)
            if state["made_in"]["data_sha256"] != record.data_sha256:
                raise BadInput("of other data than the record")
    except BadInput as error:
        raise BadInput(f"{where}: the file is {error}; make it anew") from None
    found: Array = state["score_N"].detach().double().numpy()
    return found


def visits(record: Record) -> Array:
    """Returns how often training showed each example, int64, [N]. Raises BadInput for a record without visits."""
    if record.visits is None:
        raise BadInput("the record contains no visits; train the run again")
    return np.asarray(unpack(record.visits, record.num_examples), dtype=np.int64)


def masks(path: Path, record: Record) -> dict[str, Array]:
    """Returns the masks of a run: `mask`, true for each example that training showed, and the masks of connections.

    Args:
        path: The record's file.
        record: The record.

    Returns:
        `mask`, bool [N]; `data_sha256`; and a bool array `connections/NAME` for each masked weight. Where a search found
        the masks, also the network from which the run started, as `start/NAME`.

    Raises:
        BadInput: The run did not keep its connections.
    """
    of_data = {"mask": visits(record) > 0, "data_sha256": np.asarray(record.data_sha256)}
    sparsity = make_sparsity(record.spec)
    if type(sparsity) is Sparsity or isinstance(sparsity, Cutting):  # no masks: all weights of the network exist
        return of_data
    return of_data | (_searched(path, record) if sparsity.searches else _kept_masks(path, record))


def _kept_masks(path: Path, record: Record) -> dict[str, Array]:
    kept = path.with_suffix(MASKS)
    if not kept.exists():
        raise BadInput(
            f"{path} kept no masks of its connections; `run --again --save-model` trains it anew and keeps them"
        )
    found = _read_arrays(kept)
    if not found or not all(name.startswith(MASK) and value.dtype == np.bool_ for name, value in found.items()):
        raise BadInput(f"{kept}: no masks of connections; train the run anew with --again")
    return found


def _searched(path: Path, record: Record) -> dict[str, Array]:
    """Returns the masks and the starting network of a run whose connections a search found, from the shared file."""
    where = Store(path.parent).search_path(record.spec)
    try:
        state = read_state(where, torch.device("cpu"))
        with contents():
            if state["made_in"]["data_sha256"] != record.data_sha256:
                raise BadInput("of other data than the record")
            found = {MASK + name: mask.numpy() for name, mask in state["sparsity"]["masks"].items()}
            return found | {START + name: value.numpy() for name, value in state["model"].items()}
    except BadInput as error:
        raise BadInput(
            f"{where}, the search of {run_name(record.spec)}, is {error}; `run --again` makes it anew"
        ) from None


def weights(path: Path, record: Record, data: Path | None = None) -> dict[str, Any]:
    """Returns the trained network of a run as plain values: its state dict, and the constants that make its input.

    Args:
        path: The record's file; the weights lie beside it.
        record: The record.
        data: Folder of the data sets, for classes and normalisation.

    Raises:
        BadInput: The run did not keep its weights, or the data are not there.
    """
    state = read_weights(path.with_suffix(".pt"))
    kind = reopened(record.spec, data).dataset
    return {
        "state_dict": state,
        "backbone": record.spec.backbone,
        "backbone_options": dict(record.spec.backbone_options),
        "timesteps": record.spec.timesteps,
        "class_names": list(kind.class_names),
        "scale": float(kind.scale),
        "mean": [float(value) for value in kind.mean],
        "std": [float(value) for value in kind.std],
    }


def _read_arrays(path: Path) -> dict[str, Array]:
    content = read_bytes(path, STATE_BYTES)
    try:
        return unpacked(content)
    except Exception as error:  # Damaged files raise errors of many kinds.
        raise BadInput(f"{path} is no .npz file of arrays ({type(error).__name__})") from None


def export(path: Path, record: Record, wanted: Mapping[str, Path], data: Path | None = None) -> None:
    """Writes parts of a run, each to its file: all of them, or none.

    Args:
        path: The record's file.
        record: The record.
        wanted: Part -> its file: "scores" and "masks" (.npz), "visits" (.csv), "weights" (.pt).
        data: Folder of the data sets, for the weights.

    Raises:
        BadInput: The run did not keep a part, or a file can't be written.
    """
    makers: dict[str, Callable[[], Write]] = {
        "scores": lambda: _scores_writer(scores(path, record), record.data_sha256),
        "visits": lambda: _visits_writer(visits(record)),
        "masks": lambda: _arrays_writer(masks(path, record)),
        "weights": lambda: _weights_writer(weights(path, record, data)),
    }
    for name, to in wanted.items():
        if to.exists():
            raise BadInput(f"{to} is there already; remove it, or give --{name} another name")
    if len({to.absolute() for to in wanted.values()}) < len(wanted):
        raise BadInput("two parts of an export have the same file; give each its own")
    writers = [(to, makers[name]()) for name, to in wanted.items()]
    with ExitStack() as unnamed:  # The files get their names together, once all are written.
        for to, write in writers:
            file = unnamed.enter_context(atomic(to))
            write(file)
            file.flush()


def _scores_writer(score_N: Array, data_sha256: str) -> Write:
    return _arrays_writer({"scores": score_N, "data_sha256": np.asarray(data_sha256)})


def _arrays_writer(arrays: Mapping[str, Array]) -> Write:
    return lambda file: np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _visits_writer(count_N: Array) -> Write:
    text = "index,visits\n" + "".join(f"{index},{count}\n" for index, count in enumerate(count_N.tolist()))
    return lambda file: file.write(text.encode())


def _weights_writer(content: Mapping[str, Any]) -> Write:
    return lambda file: torch.save(dict(content), file)
