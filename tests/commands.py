"""The command line, called in process (quick) or as a process of its own (true)."""

from __future__ import annotations

import io
import os
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from sadp_bench import cli

SCRIPT = str(Path(sysconfig.get_path("scripts")) / "sadp-bench")
TINY = ["--epochs", "2", "--train-examples", "256", "--threads", "1", "--set", "backbone.width=4"]


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def command(*words: Any) -> Answer:
    """`sadp-bench words...` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with patch.dict(os.environ, COLUMNS="160"), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main([str(word) for word in words])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Answer(code, out.getvalue(), err.getvalue())


def tiny_run(method: str, ratio: float, out: Path, *words: Any) -> Answer:
    """A run of about a tenth of a second."""
    return command("run", "--method", method, "--ratio", ratio, "--out", out, *TINY, *words)


@contextmanager
def started(words: list[Any], **how: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block."""
    with subprocess.Popen([str(word) for word in words], text=True, **how) as process:
        try:
            yield process
        finally:
            process.kill()
