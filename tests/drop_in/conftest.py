"""Fixtures of the tests of `drop_in`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Seeds the global random state during a test."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield
