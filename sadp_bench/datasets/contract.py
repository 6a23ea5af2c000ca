"""The contract of a data set: the properties that a run needs, checked once when the data are loaded.

docs/data.md describes the contract. `first_breach` returns the first rule that a data set breaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sadp_bench.core.storable import not_storable
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples

PARTS = ("train", "test")
CHUNK_BYTES = 64 << 20  # bytes of pixels that are checked together; nothing is copied
MIN_SPREAD = 1e-6  # share of a mean; a smaller standard deviation is float32's rounding of a constant channel
FLOAT32_MAX = torch.finfo(torch.float32).max
MAX_GAIN = 1e30  # factor of a stored value; float32 leaves eight powers of ten for the value itself


def first_breach(dataset: Dataset, timesteps: int, settings: Mapping[str, Any] | None = None) -> str | None:
    """Returns the first rule of the contract that a data set breaks, in one line; None where it keeps all rules.

    Args:
        dataset: The loaded data set.
        timesteps: The frames into which its recordings had to be cut.
        settings: The keyword-only arguments with which it was built.
    """
    for part in PARTS:
        if not isinstance(getattr(dataset, part, None), Examples):
            return f"`__init__` must set `{part}` to sadp_bench.datasets.examples.Examples"
    train, test = dataset.train, dataset.test
    return (
        _found_breach(dataset.found, settings or {})
        or _shapes_breach(train, test, bool(dataset.events), timesteps)
        or _names_breach(getattr(dataset, "class_names", None))
        or _statistics_breach(dataset, train.input_shape[0])
        or _labels_breach("train", train.label_N, len(dataset.class_names))
        or _labels_breach("test", test.label_N, len(dataset.class_names))
        or _pixels_breach("train", train.input_N, largest_value(dataset))
        or _pixels_breach("test", test.input_N, largest_value(dataset))
    )


def _found_breach(found: Any, settings: Mapping[str, Any]) -> str | None:
    if not isinstance(found, Mapping):
        return f"`found` is a table of settings, not {_short(found)}"
    for name, value in found.items():
        if name not in settings:
            return f"`found` has settings of `__init__`, and '{_short(name)}' is none of its keyword-only arguments"
        if not isinstance(value, bool | int | float | str | None):
            return f"`found` has numbers, texts, True, False or None, and '{name}' is {_short(value)}"
    return None


def _shapes_breach(train: Examples, test: Examples, events: bool, timesteps: int) -> str | None:
    shape = list(train.input_N.shape[1:])
    for part, examples in zip(PARTS, (train, test), strict=True):
        if len(examples) == 0:
            return f"`{part}` is empty; it needs one example at least"
        if 0 in examples.input_N.shape:
            return f"`{part}.input_N` has a side of length 0: {list(examples.input_N.shape)}"
        if list(examples.input_N.shape[1:]) != shape or examples.input_N.dtype != train.input_N.dtype:
            return (
                f"inputs of both parts have one shape and type: those of `train` are {shape} in {train.input_N.dtype}, those "
                f"of `{part}` {list(examples.input_N.shape[1:])} in {examples.input_N.dtype}"
            )
    if events != (len(shape) == 4):
        wanted = "[N, T, C, H, W]" if events else "[N, C, H, W]"
        return f"`events` is {events}, so inputs are {wanted}, not {list(train.input_N.shape)}"
    if events and shape[0] != timesteps:
        return (
            f"recordings are cut into the `timesteps` frames that `__init__` receives, {timesteps}, not into {shape[0]}"
        )
    return None


def _names_breach(names: Any) -> str | None:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return "`class_names` is a tuple of texts, such as tuple(map(str, names))"
    if len(names) < 2:
        return f"`class_names` names two classes at least, not {len(names)}"
    for label, name in enumerate(names):
        if wrong := not_storable(name):
            return f"`class_names` has {wrong} in {ascii(name)[:80]} (label {label}), which no record may contain"
        if not name.strip():
            return f"`class_names` has no name for label {label}"
        if (first := names.index(name)) < label:
            return (
                f"`class_names` are distinct, and '{name[:80]}' stands for labels {first} and {label}; add what differs"
            )
    return None


def _statistics_breach(dataset: Dataset, channels: int) -> str | None:
    scale = _numbers([dataset.scale])
    if scale is None or not scale[0] > 0:
        return f"`scale` is a finite number above 0, not {_short(dataset.scale)}"
    found = {}
    for name in ("mean", "std"):
        given = getattr(dataset, name, None)
        numbers = _numbers(given)
        if numbers is None or len(numbers) != channels:
            wanted = f"`{name}` has a finite number for each channel, and the inputs have {channels}"
            return f"{wanted}: not {_short(given)}"
        found[name] = numbers
    for channel, (mean, std) in enumerate(zip(found["mean"], found["std"], strict=True)):
        if not (std > MIN_SPREAD * abs(mean) and 1 / (scale[0] * std) < MAX_GAIN):
            why = "" if std <= 0 else f", which is rounding beside its mean, {mean:g}"
            return f"`std` is above 0, and that of channel {channel} is {std:g}{why}; take 1 for a constant channel"
    return None


def _numbers(given: Any) -> list[float] | None:
    """Returns a sequence's numbers; None where it is no sequence of finite numbers."""
    if isinstance(given, str) or not hasattr(given, "__len__"):
        return None
    try:
        numbers = [float(value) for value in given]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _labels_breach(part: str, label_N: Tensor, classes: int) -> str | None:
    wrong = first_where((label_N < 0) | (label_N >= classes))
    if wrong is None:
        return None
    return (
        f"labels are 0 to {classes - 1}, as `class_names` has {classes}, and that of example {wrong} of `{part}` is "
        f"{int(label_N[wrong])}"
    )


def largest_value(dataset: Dataset) -> float:
    """Returns the largest stored value that stays finite in float32 after the scaling of every channel."""
    gain = 1 / (float(dataset.scale) * min(map(float, dataset.std)))
    return FLOAT32_MAX / max(1.0, gain)


def _pixels_breach(part: str, input_N: Tensor, largest: float) -> str | None:
    """Returns the rule that is broken where an input is not finite, or overflows. Integers are small enough."""
    if not input_N.is_floating_point():
        return None
    rows = max(1, CHUNK_BYTES // (input_N[0].numel() * input_N.element_size()))
    for start in range(0, len(input_N), rows):
        chunk = input_N[start : start + rows]
        if not all(abs(float(bound)) <= largest for bound in chunk.aminmax()):  # NaN makes both bounds NaN
            wrong = first_where((~(chunk.flatten(1).abs() <= largest)).any(1))
            example = start + (wrong or 0)
            value = next(v for v in input_N[example].flatten().tolist() if not abs(v) <= largest)
            return (
                f"inputs are finite, also divided by `scale` and `std`, and example {example} of `{part}` has {value:g}"
            )
    return None


def first_where(mask_N: Tensor) -> int | None:
    """Returns the first place where a mask is true; None where it is false everywhere."""
    return int(mask_N.int().argmax()) if bool(mask_N.any()) else None


def _short(value: Any) -> str:
    return " ".join(str(value).split())[:80]
