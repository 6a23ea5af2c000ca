"""Loads a data set: calls its class, and checks the loaded examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.contract import first_breach


def load(
    kind: type[Dataset], name: str, root: Path, timesteps: int, settings: Mapping[str, Any] | None = None
) -> Dataset:
    """Returns the loaded data set, which keeps the contract.

    Args:
        kind: The class of the data set.
        name: The name in `--dataset`, for messages.
        root: The folder of all data sets.
        timesteps: Frames into which a recording of events is cut.
        settings: The keyword-only arguments of the class.

    Raises:
        BadInput: Files are absent or broken, or the data break the contract.
    """
    try:
        dataset = kind(root, timesteps, **(settings or {}))
    except MemoryError:
        raise BadInput(
            f"data set '{name}' in {timesteps:,} time steps needs more memory than there is; lower --timesteps"
        ) from None
    breach = first_breach(dataset, timesteps, settings)
    if breach is not None:
        raise BadInput(f"data set '{name}' breaks the contract of docs/data.md: {breach}")
    return dataset
