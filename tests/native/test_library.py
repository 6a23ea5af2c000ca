"""The place of the C core's library, and runs without it."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.native import library
from sadp_bench.native.library import Unavailable
from sadp_bench.runs.resolve import RunRequest
from tests.commands import command


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts an empty folder in the place of the package's, for a library, and undoes this after the test."""
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    library.core.cache_clear()
    yield tmp_path
    library.core.cache_clear()


def test_without_a_library_runs_take_python_and_doctor_names_the_reason(empty: Path) -> None:
    assert "was not built" in str(library.absence())
    assert RunRequest.of({"method": "full", "ratio": 0.0}).fields["kernel"] == "python"
    with pytest.raises(BadInput, match="--kernel native: the C core was not built.*take --kernel python"):
        RunRequest.of({"method": "full", "ratio": 0.0, "kernel": "native"})
    shown = command("doctor").out
    assert re.search("✗ +C core +the C core was not built", shown) and "sadp-bench-native" not in shown


def test_a_library_that_does_not_load_or_is_of_another_version_is_absent(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty / "libcore.so").write_bytes(b"no library")
    assert "does not load" in str(library.absence())

    class Older:
        class norm_pool_lif_size:
            restype = None

            def __new__(cls) -> int:  # type: ignore[misc]
                return ctypes.sizeof(library.Block) - 8

        spike_conv_size = norm_pool_lif_size

    monkeypatch.setattr(library.ctypes, "CDLL", lambda _: Older)
    with pytest.raises(Unavailable, match="another version"):
        library.core()


@pytest.mark.skipif(library.absence() is not None, reason=f"{library.absence()}")
def test_the_core_is_taken_where_it_can_compute_the_run() -> None:
    run = {"method": "full", "ratio": 0.0, "device": "cpu", "precision": "fp32"}
    assert RunRequest.of(run).fields["kernel"] == "native"
    assert RunRequest.of({**run, "kernel": "python"}).fields["kernel"] == "python"
    for changed, reason in (
        ({"precision": "fp64"}, "fp32 and bf16, not fp64"),
        ({"set": {"backbone.detach_reset": "false"}}, "no gradient flows through the reset"),
        ({"backbone": "tests.runs.networks:WithoutNeurons"}, "no subclass of"),
    ):
        assert RunRequest.of({**run, **changed}).fields["kernel"] == "python"
        with pytest.raises(BadInput, match=reason):
            RunRequest.of({**run, **changed, "kernel": "native"})
    with pytest.raises(BadInput, match="--kernel is one of"):
        RunRequest.of({**run, "kernel": "cuda"})
