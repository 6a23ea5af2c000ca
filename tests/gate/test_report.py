"""The table of a check on a narrow terminal."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from sadp_bench.gate import compare, report
from tests.gate.helpers import by_hand


def test_80_columns_keep_the_name_and_every_number_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = by_hand(tmp_path, {("full", 0.0): [0.9, 0.91], ("importance-sampling", 0.75): [0.8, 0.81]})
    records = compare.read_reference(folder)
    nows, failed = compare.read_now(folder, records, {})
    result = compare.compare_runs(records, nows, failed, margin=0.01, exact=True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    texts = {}
    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        report.print_check(result, Path("reference"), None)
        texts[columns] = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        assert all(len(line) <= columns for line in texts[columns].splitlines()), texts[columns]
        assert "…" not in texts[columns] and re.search(r"^importance-sampling +", texts[columns], re.MULTILINE)
    numbers = [sorted(re.findall(r"\d+\.\d\d", text)) for text in texts.values()]
    assert numbers[0] == numbers[1] and len(numbers[0]) >= 6
