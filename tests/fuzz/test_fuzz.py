"""A fixed, small part of the fuzzing: `python tests/fuzz/run.py` is the long run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tests.fuzz.run import QUIET, checked
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.quick])
def test_no_input_breaks_an_oracle(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = TARGETS[name]

    @settings(QUIET, max_examples=target.quick, derandomize=True)
    @given(target.inputs)
    def fuzz(given: Any) -> None:
        checked(target, given)

    fuzz()
