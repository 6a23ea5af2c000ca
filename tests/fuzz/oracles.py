"""Checks that every answer of a command and every record must pass, whatever the input."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

from sadp_bench.records.record import Record
from tests.commands import Answer

CODES = (0, 1, 2, 75, 130)  # 75: the time of --minutes is over
SECONDS = 30.0  # seconds for one command
ACTIVE_TAGS = {
    "script",
    "iframe",
    "object",
    "embed",
    "form",
    "base",
    "applet",
    "link",
    "meta",
    "foreignobject",
    "audio",
}
FORMULA = re.compile(r"[=+\-@\t\r]")
SHARES = re.compile(r"accuracy(_low|_high)?$")
FACTORS = re.compile(r"(speedup|efficiency|ceiling|nominal_maximum|seconds)(_low|_high)?$")


def check_answer(answer: Answer, *, as_json: bool = False) -> None:
    """Checks exit code and streams of any command. A traceback is an exception already, as commands run in process."""
    assert answer.code in CODES, f"exit code {answer.code}"
    for name, text in (("stdout", answer.out), ("stderr", answer.err)):
        bad = [line for line in text.split("\n") if not line.isprintable()]
        assert not bad, f"control characters on {name}: {bad[0][:200]!r}"
    assert "Traceback" not in answer.err, "a traceback"
    if answer.code == 2:
        assert answer.out == "", f"stdout of a refusal: {answer.out[:200]!r}"
        last = answer.err.splitlines()[-1:]
        assert last and last[0].startswith("sadp-bench"), f"a refusal without a line: {answer.err[-200:]!r}"
    if as_json and answer.code in (2, 75, 130):
        assert answer.out == "", f"stdout of a failure under --json: {answer.out[:200]!r}"
    elif as_json:
        assert answer.out.count("\n") == 1, f"more than an object under --json: {answer.out[:200]!r}"
        check_numbers(strict_json(answer.out))


def strict_json(text: str) -> Any:
    """Returns the content of JSON that has no NaN and no infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"JSON with {word}")

    return json.loads(text, parse_constant=refuse)


def check_numbers(value: Any, name: str = "") -> None:
    """Checks that all numbers are finite, shares are in [0, 1], and factors and seconds are at least 0."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in ("spec", "environment"):  # which are shown as they came
                check_numbers(item, key)
    elif isinstance(value, list):
        for item in value:
            check_numbers(item, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        assert math.isfinite(value), f"{name} is {value}"
        assert not SHARES.search(name) or 0 <= value <= 1, f"{name} is {value}"
        assert not FACTORS.search(name) or value >= 0, f"{name} is {value}"


def check_record(record: Record) -> None:
    """Checks the numbers of a record that a run or a reader accepted."""
    data = record.to_json()
    check_numbers(data)
    assert 0 <= record.test_accuracy <= 1 and record.examples_seen >= 1 and record.num_examples >= 1
    assert all(seconds >= 0 for seconds in record.seconds.values()) and record.interruptions >= 0


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ACTIVE_TAGS:
            self.active.append(f"<{tag} {attributes}>"[:100])
        for name, value in attributes:
            scheme = re.sub(r"[\s\x00-\x20]", "", value or "").lower()
            leads = name in ("href", "src", "action", "xlink:href", "formaction", "data", "poster")
            if name.startswith("on") or name == "srcdoc" or leads and not re.match(r"#|https:|data:image/png", scheme):
                self.active.append(f"{tag} {name}={(value or '')[:60]}")


def active_parts(page: str) -> list[str]:
    """Returns all of a page that could run or load something."""
    reader = _Page()
    reader.feed(page)
    return reader.active


def formulas(text: str) -> list[str]:
    """Returns the cells of a CSV file that a spreadsheet would run."""

    def is_number(cell: str) -> bool:
        try:
            float(cell)
        except ValueError:
            return False
        return True

    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    return [cell for cell in cells if FORMULA.match(cell) and not is_number(cell)]


def commands_of_tex(text: str) -> list[str]:
    """Returns commands in a LaTeX table that no table needs, and that read files or run programs."""
    text = "\n".join(line for line in text.split("\n") if not line.startswith("%"))
    return re.findall(r"(?<!\\)\\(?:input|write18|csname|include|openin|immediate)\b.{0,40}", text)
