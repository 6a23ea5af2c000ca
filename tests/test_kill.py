"""A few of the kills that tests/faults/kill.py makes in large numbers: SIGKILL to the real command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KILL = Path(__file__).parent / "faults" / "kill.py"


def test_killed_runs_end_in_the_record_of_one_that_was_not() -> None:
    words = [
        sys.executable,
        KILL,
        "--dataset",
        "digits",
        "--train-examples",
        300,
        "--width",
        4,
        "--methods",
        "sadp,el2n",
        "--kills",
        2,
    ]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(", 0 not\n") and "4 kills over 2 combinations" in done.stdout
