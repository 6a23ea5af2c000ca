"""What the tests share."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from hypothesis import settings

from sadp_bench.records.store import Store
from sadp_bench.runs.environment import available_threads
from tests.example_records import make_record, make_spec

# The same examples every time: a suite that gates changes must not fail by luck.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


MAX_WORKERS = 4  # a gigabyte each


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker a core for the whole suite. A few files or tests are sooner done without: a worker starts for seconds."""
    whole = all(Path(word).is_dir() for word in config.args)
    return min(available_threads(), MAX_WORKERS) if whole else 0


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


@pytest.fixture
def unpacks() -> None:
    """For what unpacks archives, which older Pythons cannot do safely, and the package then refuses."""
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("unpacking safely needs Python 3.11.4")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr("sadp_bench.datasets.base.urlopen", refuse)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a command is called in: a file, a pipe, an empty folder, and one with two records."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for spec in (make_spec(), make_spec("random", 0.5)):
        Store(tmp_path / "records").write(make_record(spec))
    return tmp_path
