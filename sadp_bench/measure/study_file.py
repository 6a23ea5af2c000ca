"""The file of a study: JSON, written atomically. This module declares its names and types."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import check_leaves
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import STUDY, atomic, read_json

STUDY_SCHEMA = 3
STUDY_BYTES = 1 << 30  # bytes of a file; 60,000 examples take about a fifth of it
KEEPS = (0.7, 0.5, 0.3)
AGES = (0, 1, 2, 5)
SOURCES = ("frozen", "training", *(f"age {age}" for age in AGES))
LABELS = {
    "uniform": "uniform",
    "loss": "loss",
    "el2n": "EL2N",
    "readout": "readout",
    "spikes": "spikes",
    "plain": "plain bound",
    "errors": "errors",
    "layers": "layers",
    "sadp": "SADP",
    "sadp_own": "SADP's draw",
    "exact": "exact norm",
}
BOUNDS = ("uniform", "exact")  # the worst and the best score
OWN = "sadp_own"  # SADP's score with SADP's own smoothing; its label contains the smoothing (`labels`)
RIVALS = tuple(name for name in LABELS if name not in (*BOUNDS, OWN))
NUMBER, MAYBE = (int, float), (int, float, type(None))


class Each(dict[str, Any]):
    """The shape of a table with any names. All its values have the shape of the entry "of"."""


BY_KEEP = {f"{keep:g}": MAYBE for keep in KEEPS}
CELL = {"spearman": MAYBE, "pearson": MAYBE, "over_uniform": BY_KEEP, "over_optimum": BY_KEEP, "tau": BY_KEEP}
# Names that may be missing: in studies of earlier versions, or in a bias without batch norm ("mean", "variance").
LATER = frozenset({"tau", "optimum_tau", "unseen", "sadp_smoothing", "mean", "variance"})
SPREAD = {"median": NUMBER, "spread": NUMBER}
STOP = {
    "epoch": NUMBER,
    "train_loss": NUMBER,
    "norm_mean": MAYBE,
    "norm_cv": MAYBE,
    "optimum_over_uniform": {"now": BY_KEEP, "coming": BY_KEEP},
    "optimum_tau": {"now": BY_KEEP, "coming": BY_KEEP},
    "unseen": NUMBER,
    "scores": Each(of=Each(of=CELL)),
    "lag": (dict, type(None)),
    "input_squares_cv": [MAYBE],
    "spikes_cv": MAYBE,
    "bound_ratio": {"frozen": [MAYBE]},
    "examples": {"exact": {"frozen": [MAYBE]}} | {name: {"frozen": [MAYBE], "age 0": [MAYBE]} for name in RIVALS},
}
COSINE = {
    "whole": MAYBE,
    "least": MAYBE,
    "least_layer": (str, type(None)),
    "layers": Each(of=MAYBE),
    "norms_of_all_steps": MAYBE,
    "batches": NUMBER,
}
BIAS_PART = {"square": MAYBE, "square_error": MAYBE}
BIAS_TABLE = {"whole": BIAS_PART, "parts": Each(of=BIAS_PART)}
BIAS = {
    "keep": NUMBER,
    "rounds": NUMBER,
    "batch_size": NUMBER,
    "rows": [{"draw": (str,), "norm": (str,), "gradient": BIAS_TABLE, "mean": BIAS_TABLE, "variance": BIAS_TABLE}],
}
STUDY_SHAPE = {
    "sadp_bench": (str,),
    "key": (str,),
    "spec": (dict,),
    "environment": {"processor": (str,), "threads": NUMBER},
    "examples": NUMBER,
    "at": [NUMBER],
    "num_examples": NUMBER,
    "smoothing": NUMBER,
    "sadp_smoothing": NUMBER,
    "views": NUMBER,
    "layers": [(str,)],
    "stops": [STOP],
    "cost": {
        "scores": Each(of=SPREAD),
        "noise": SPREAD,
        "calibration": {"first_batch": SPREAD, "share_of_epoch": NUMBER},
        "step_seconds": NUMBER,
        "rounds": NUMBER,
        "batches": NUMBER,
    },
}


def study_key(spec: Spec, at: list[int], examples: int, bias: bool = False) -> str:
    """Returns 12 hex digits of the hash of the run, the epochs of the stops, the number of examples, and `bias`."""
    asked = {"bias": True} if bias else {}  # studies without it keep their keys of earlier versions
    text = json.dumps({"run": spec.key, "at": at, "examples": examples} | asked, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def labels(study: dict[str, Any]) -> dict[str, str]:
    """Returns the labels of a study's scores. The label of SADP's own draw contains its smoothing: 'SADP at 0.2'."""
    return LABELS | ({OWN: f"SADP at {study['sadp_smoothing']:g}"} if "sadp_smoothing" in study else {})


def title(study: dict[str, Any]) -> str:
    """Returns method and ratio of the study's training, such as 'sadp 0.5'; "" for full data."""
    spec = study["spec"]
    return "" if spec["method"] == "full" else f"{spec['method']} {spec['ratio']:g}"


def write(folder: Path, study: dict[str, Any]) -> Path:
    """Writes a study and returns its path. Reports ignore the file.

    Its name is <dataset>-<backbone>-s<seed>-<key>.study.json. With pruning, -<method>-r<ratio> follows the backbone.
    """
    spec = study["spec"]
    pruned = spec["method"] != "full"
    parts = ("dataset", "backbone", "method") if pruned else ("dataset", "backbone")
    names = [re.sub(r"[^\w-]", "_", spec[name].rpartition(":")[2]) for name in parts]
    names += [f"r{spec['ratio']:g}"] * pruned
    path = folder / f"{'-'.join(names)}-s{spec['seed']}-{study['key']}{STUDY}"
    with atomic(path) as file:
        file.write(json.dumps(study, allow_nan=False).encode() + b"\n")
    return path


def read_study(path: Path) -> dict[str, Any]:
    """Returns a study.

    Raises:
        BadInput: The file is not a complete study.
    """
    try:
        study = read_json(path, STUDY_BYTES)
        if not isinstance(study, dict) or study.get("kind") != "study":
            raise BadInput("not a study of sadp-bench")
        study = _migrated(study)
        if study.get("schema") != STUDY_SCHEMA:
            raise BadInput(f"a study of schema {study.get('schema')}; this version reads schema {STUDY_SCHEMA}")
        check_leaves(study)
        _check_shape(study, STUDY_SHAPE, "the study")
        Spec.from_json(study["spec"])
        for stop in study["stops"]:
            if stop["lag"] is not None:
                _check_shape(stop["lag"], CELL, "lag")
            if "gradient_cosine" in stop:  # only where SLTT trains, and not in studies of earlier versions
                _check_shape(stop["gradient_cosine"], COSINE, "gradient_cosine")
            if "bias" in stop:  # only where it was requested
                _check_shape(stop["bias"], BIAS, "bias")
        tables = [sources.values() for stop in study["stops"] for sources in stop["examples"].values()]
        lengths = {len(values) for table in tables for values in table}
        if lengths != {study["examples"]} or not study["at"] or not study["layers"]:
            raise BadInput(f"the study lacks stops, layers or some of its {study['examples']} examples")
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    return study


def _migrated(study: dict[str, Any]) -> dict[str, Any]:
    """Returns a study of schema 2 with the names of schema 3, and any other study unchanged."""
    if study.get("schema") != 2:
        return study
    migrated = {**study, "schema": STUDY_SCHEMA}
    if isinstance(study.get("stops"), list):
        migrated["stops"] = [_renamed(stop) if isinstance(stop, dict) else stop for stop in study["stops"]]
    return migrated


def _renamed(stop: dict[str, Any]) -> dict[str, Any]:
    return {"bound_ratio" if name == "tightness" else name: value for name, value in stop.items()}


def _check_shape(value: Any, shape: Any, where: str) -> None:
    """Raises BadInput where a value lacks a name or has a wrong type, at any depth."""
    types = shape if isinstance(shape, tuple) else (list,) if isinstance(shape, list) else (dict,)
    if not isinstance(value, types) or type(value) is bool:
        raise BadInput(f"{where} is of a wrong type: {type(value).__name__}")
    items: list[tuple[Any, Any, str]] = []
    if isinstance(shape, list):
        items = [(item, shape[0], where) for item in value]
    elif isinstance(shape, Each):
        items = [(item, shape["of"], name) for name, item in value.items()]
    elif isinstance(shape, dict):
        missing = sorted(set(shape) - set(value) - LATER)
        if missing:
            raise BadInput(f"{where} lacks {', '.join(missing)}")
        items = [(value[name], of, name) for name, of in shape.items() if name in value]
    for item in items:
        _check_shape(*item)
