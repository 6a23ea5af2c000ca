"""sadp-bench: a comparison of data-pruning methods for training spiking neural networks.

The names below are public and stable. They load on first use, so importing the package does not import torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "SADP": "sadp_bench.pruners.sadp",
    "PrunedSampler": "sadp_bench.drop_in.sampler",
    "with_index": "sadp_bench.drop_in.indexed",
    "watch": "sadp_bench.drop_in.watch",
    "weighted_batch_norm": "sadp_bench.backbones.weighted_norm",
    "weighted_statistics": "sadp_bench.backbones.weighted_norm",
    "score_with": "sadp_bench.drop_in.scores",
    "Pruner": "sadp_bench.pruners.base",
    "Selection": "sadp_bench.pruners.exchange",
    "Observation": "sadp_bench.pruners.exchange",
    "Signal": "sadp_bench.capture.signals",
    "LoggedRun": "sadp_bench.training.loggers.base",
    "Logger": "sadp_bench.training.loggers.base",
    "BadInput": "sadp_bench.core.errors",
    "run": "sadp_bench.api.training",
    "sweep": "sadp_bench.api.training",
    "load": "sadp_bench.api.reading",
    "report": "sadp_bench.api.reading",
    "export": "sadp_bench.api.reading",
    "load_model": "sadp_bench.api.reading",
    "scores": "sadp_bench.api.reading",
    "visits": "sadp_bench.api.reading",
}
__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sadp_bench' has no attribute '{name}'")
