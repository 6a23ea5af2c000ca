"""Fixtures and settings that all tests share."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from hypothesis import settings

from sadp_bench.core.cores import available_threads
from sadp_bench.records.store import Store
from tests.example_records import make_record, make_spec

# Hypothesis draws the same examples every time: a suite that gates changes must not fail by chance.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


MAX_WORKERS = 4  # each takes a gigabyte


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Returns a worker for each core and one more for the whole suite, and none for a few files.

    A worker takes seconds to start. A fifth of the time a worker waits for other processes; the one more works then.
    """
    whole = all(Path(word).is_dir() for word in config.args)
    return min(available_threads() + 1, MAX_WORKERS) if whole else 0


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Returns the folder of the real data sets, from the environment."""
    if not os.environ.get("SADP_BENCH_DATA"):
        pytest.skip("SADP_BENCH_DATA is not set: real data tests are skipped")
    return Path(os.environ["SADP_BENCH_DATA"])


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sets one thread: small networks are slower on two threads, and many times slower on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def unpacks() -> None:
    """Skips tests that unpack archives where Python cannot do so safely; the package refuses there."""
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("unpacking safely needs Python 3.11.4")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces `urlopen` by a failed name resolution."""

    def refuse(url: str, timeout: float) -> None:
        raise URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr("sadp_bench.datasets.base.urlopen", refuse)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Changes to a folder with a file, a pipe, an empty folder, and a folder of two records; returns it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for spec in (make_spec(), make_spec("random", 0.5)):
        Store(tmp_path / "records").write(make_record(spec))
    return tmp_path
