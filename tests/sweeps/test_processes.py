"""Processes of runs, started anew or forked from a warm one: lines, ends, and what must not outlive the sweep."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys

import pytest

from sadp_bench.sweeps import processes, warm
from sadp_bench.sweeps.processes import launched
from tests.commands import TINY, comes, command, ends, the_record


def python(code, **environment):
    return launched([sys.executable, "-c", code], environment)


def test_the_last_lines_of_both_streams_are_kept_and_cannot_steer_a_terminal():
    child = python(
        "import sys\nfor n in range(50): print(n, flush=True)\nprint('\\x1b[31mred\\rnext', file=sys.stderr)"
    )
    assert child.wait() == 0
    assert list(child.lines) == [*map(str, range(32, 50)), "[31mred", "next"]


def test_a_line_without_end_is_cut(monkeypatch):
    monkeypatch.setattr(processes, "MAX_LINE", 5)
    child = python("print('x' * 1000)")
    assert child.wait() == 0
    assert list(child.lines) == ["xxxxx", "xxxxx"], "read in pieces, so that no line fills the memory"


def test_a_killed_process_has_said_what_it_had_to_state(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    child = python("import os; print('here'); os.kill(os.getpid(), 9)")
    assert child.wait() == -9 and list(child.lines) == ["here"]


def test_a_process_that_does_not_want_to_end_is_killed_with_its_children(monkeypatch):
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    stubborn = """if True:
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
        os.write(1, f"{os.getpid()}\\n".encode())
        time.sleep(60)
    """
    child = python(stubborn)
    assert comes(lambda: len(child.lines) == 2)
    child.terminate()
    child.stop()
    assert child.ended() == -9
    assert all(ends(int(line)) for line in child.lines)


needs_fork = pytest.mark.skipif(not warm.CAN_FORK, reason="runs are forked from a warm process on Linux alone")
METHOD = """
import os, signal, time

def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.fork()
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(60)

def killed():
    print("here")
    os.kill(os.getpid(), 9)

def asked():
    print(os.environ["ASKED"], os.getsid(0) == os.getpid(), os.isatty(1), sorted(os.listdir("/proc/self/fd"))[:3], flush=True)
    time.sleep(60)

{"stubborn": stubborn, "killed": killed, "asked": asked}[os.environ["DOES"]]()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a method whose import kills its process, or hangs."""
    found = tmp_path_factory.mktemp("warm")
    (found / "method.py").write_text(METHOD)
    return found


@pytest.fixture(scope="module")
def warmed(folder):
    """Yields a warm process for all tests of this module."""
    found = warm.Warm()
    with contextlib.chdir(folder):
        found.start(["--version"], {}).wait()
    yield found
    found.close()


def forked(warmed, does, **environment):
    words = ["run", "--method", "method:Any", "--ratio", "0.5"]
    return warmed.start(words, {"DOES": does, **environment})


@needs_fork
def test_a_forked_run_leaves_the_record_and_the_lines_of_the_command(warmed, tmp_path):
    there, here = (tmp_path / name for name in ("forked", "here"))
    words = ["run", "--method", "sadp", "--ratio", "0.5", *TINY, "--no-reference", "--json", "--out"]
    child = warmed.start([*words, str(there)], {})
    assert child.wait() == 0 and command(*words, here).code == 0
    one, other = (the_record(found, "sadp")[1] for found in (there, here))
    assert lasting(one) == lasting(other)
    assert child.lines[-1].startswith('{"method": "sadp", "ratio": 0.5')
    refusal = warmed.start(["run", "--method", "sdap"], {})
    assert refusal.wait() == 2
    assert list(refusal.lines) == command("run", "--method", "sdap").err.splitlines()


def lasting(record):
    """Returns the part of a record that repeats with the run: all but seconds, memory, dates and load."""
    passing = re.compile("seconds|memory|started|disturb|load_average|finished|time$")
    if isinstance(record, dict):
        return {key: lasting(value) for key, value in record.items() if not passing.search(key)}
    return [lasting(each) for each in record] if isinstance(record, list) else record


@needs_fork
def test_a_forked_run_has_a_group_streams_and_variables_of_its_own(warmed):
    child = forked(warmed, "asked", ASKED="words")
    assert comes(lambda: child.lines)
    assert child.lines[0] == "words True False ['0', '1', '2']"
    child.terminate()
    child.stop()
    assert child.ended() == -signal.SIGTERM


@needs_fork
def test_a_forked_run_that_is_killed_has_printed_its_lines(warmed):
    child = forked(warmed, "killed")
    assert child.wait() == -9 and list(child.lines) == ["here"]


@needs_fork
def test_a_forked_run_that_does_not_want_to_end_is_killed_with_its_children(warmed, monkeypatch):
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    child = forked(warmed, "stubborn")
    assert comes(lambda: len(child.lines) == 2)
    child.terminate()
    child.stop()
    assert child.ended() == -9
    assert all(ends(int(line)) for line in child.lines)


@needs_fork
def test_where_the_warm_process_is_killed_its_runs_end_and_the_next_run_has_another(warmed):
    child = forked(warmed, "asked", ASKED="x")
    assert comes(lambda: child.lines)
    run, parent = child._process._pid, warmed._process.pid
    os.kill(parent, signal.SIGKILL)
    assert child.wait() == warm.LOST and ends(run)
    assert warmed.start(["--version"], {}).wait() == 0
    assert warmed._process.pid != parent
