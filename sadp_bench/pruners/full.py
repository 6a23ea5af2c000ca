"""The reference: no pruning."""

from __future__ import annotations

from sadp_bench.core.errors import BadInput
from sadp_bench.pruners.base import KeepAll


class Full(KeepAll):
    """Keeps every example in every epoch, weight 1: the reference that every speed-up is measured against.

    Source: Ordinary training.

    Kind: reference.
    Scoring: none.
    """

    display_name = "Full data"

    def __init__(self, prune_ratio: float = 0.0) -> None:
        super().__init__()
        if prune_ratio != 0:
            raise BadInput(f"method full keeps everything: its ratio is 0, not {prune_ratio:g}")
