"""What the tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets, from the environment."""
    if not os.environ.get("SADP_BENCH_DATA"):
        pytest.skip("SADP_BENCH_DATA is not set: real data tests are skipped")
    return Path(os.environ["SADP_BENCH_DATA"])


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks this small are slower on two threads than on one, and many times so on a busy machine."""
    torch.set_num_threads(1)
