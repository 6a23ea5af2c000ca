"""Made-up candidates for the tests of methods that choose within the batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sadp_bench.pruners.exchange import Candidates
from tests.helpers import seen


def candidates(index_C: Tensor, num_trained: int, epoch: int = 0, **shown: Any) -> Candidates:
    """Returns candidates whose forward pass shows the given values; see `helpers.seen`."""
    return Candidates(epoch, index_C, num_trained, lambda watch: seen(index_C, epoch=epoch, **shown))
