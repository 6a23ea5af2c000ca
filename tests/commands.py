"""The command line, called in process (quick) or as a process of its own (true)."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from sadp_bench.cli import app

SCRIPT = str(Path(sysconfig.get_path("scripts")) / "sadp-bench")
TINY = ["--epochs", "2", "--train-examples", "256", "--threads", "1", "--set", "backbone.width=4"]
RANDOM = [
    "run",
    "--method",
    "random",
    "--ratio",
    "0.5",
    *TINY,
    "--out",
    "runs",
    "--quiet",
]  # The last of repeated options counts.


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def command(*words: Any) -> Answer:
    """Runs `sadp-bench words...` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with patch.dict(os.environ, COLUMNS="160"), redirect_stdout(out), redirect_stderr(err):
        try:
            app.main([str(word) for word in words])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Answer(code, out.getvalue(), err.getvalue())


def tiny_run(method: str, ratio: float, out: Path, *words: Any) -> Answer:
    """Runs a command that trains for about a tenth of a second."""
    return command("run", "--method", method, "--ratio", ratio, "--out", out, *TINY, *words)


def complaint(answer: Answer, *expected: str) -> str:
    """Returns the fault of an answer that should refuse in one line with these words, stdout empty; '' if none."""
    one_line = answer.err.count("\n") == 1 and answer.err.startswith("sadp-bench: ")
    if answer.code == 2 and answer.out == "" and one_line and all(part in answer.err for part in expected):
        return ""
    return f"{answer} is no refusal in one line that contains {expected}"


def refused(answer: Answer, *expected: str) -> None:
    """Asserts that an answer refuses in one line."""
    assert not complaint(answer, *expected)


def the_record(folder: Path, method: str) -> tuple[Path, Any]:
    [path] = folder.glob(f"*-{method}-*.json")
    return path, json.loads(path.read_text())


def charged(record: Any) -> float:
    return record["seconds"]["prepare"] + record["seconds"]["select"] + record["seconds"]["train"]


@contextmanager
def started(words: list[Any], **how: Any) -> Iterator[subprocess.Popen[str]]:
    """Yields a process that does not outlive the block."""
    with subprocess.Popen([str(word) for word in words], text=True, **how) as process:
        try:
            yield process
        finally:
            process.kill()


def comes(condition: Callable[[], Any], seconds: float = 60.0) -> bool:
    """Returns whether the condition becomes true within so many seconds."""
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)
    return bool(condition())


def ends(pid: int) -> bool:
    """Returns whether a process that is no child of this one ends."""

    def over() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state in "ZX"

    return comes(over, 20)
