"""Helpers for the tests of the data sets: a network with given answers, and the sets' files."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets import base
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples

URL = "https://example.org/file.bin"


class Response(io.BytesIO):
    def __init__(self, content: bytes, url: str = URL) -> None:
        super().__init__(content)
        self.url = url

    def geturl(self) -> str:
        return self.url


def serve(monkeypatch: pytest.MonkeyPatch, response: Any) -> None:
    monkeypatch.setattr(base, "urlopen", lambda url, timeout: response)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def refusal(call: Any, *arguments: Any) -> str:
    """Returns the one line of the BadInput that the call raises."""
    with pytest.raises(BadInput) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def real(real_data: Path, cls: type[Dataset]) -> Path:
    if cls.locate(real_data) is None:
        pytest.skip(f"SADP_BENCH_DATA has no files of {cls.__name__}")
    return real_data


def channel_statistics(examples: Examples, scale: float) -> tuple[np.ndarray, np.ndarray]:
    values = examples.input_N.numpy()
    mean = values.mean((0, 2, 3), dtype=np.float64) / scale
    square = np.stack([(values[:, c].astype(np.float32) ** 2).mean(dtype=np.float64) for c in range(values.shape[1])])
    return mean, np.sqrt(square / scale**2 - mean**2)
