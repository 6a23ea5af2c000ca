"""docs/reliability.md: its table of kills is that of the committed rows, and its tests exist."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import pytest

from tests.paths import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_table_of_kills_is_that_of_the_committed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "tests" / "faults" / "kill.py"
    found = importlib.util.spec_from_file_location("kill", path)
    assert found is not None and found.loader is not None
    kill = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "kill", kill)  # where dataclasses looks for its module
    found.loader.exec_module(kill)
    rows = [json.loads(line) for line in (ROOT / "results" / "reliability" / "kills.jsonl").read_text().splitlines()]
    assert rows and kill.table(rows) in PAGE
    assert not any(row["different"] for row in rows)


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.(?:py|toml))`", PAGE)
    assert named and [path for path in named if not (ROOT / path).is_file()] == []
