"""A lock is held by one at a time, outlives nobody, and counts how often the work behind it was begun."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.records import file_lock as module
from sadp_bench.records.file_lock import Lock
from tests.disks import fill, small_disk

HOLDER = """
import sys, time
from pathlib import Path
from sadp_bench.records.file_lock import Lock
lock = Lock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    path = tmp_path / "a.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "True\n"
            yield path, process
        finally:
            process.kill()


def test_a_lock_is_held_by_one_at_a_time_and_gone_when_finished(tmp_path):
    one, other = Lock(tmp_path / "a.lock"), Lock(tmp_path / "a.lock")
    assert not one.is_held()
    assert one.acquire() and one.starts == 1
    assert other.is_held() and not other.acquire()
    one.release(finished=True)
    assert os.listdir(tmp_path) == [] and not other.is_held()
    assert other.acquire() and other.starts == 1
    other.release(finished=True)


def test_unfinished_work_counts_its_starts(tmp_path):
    for start in range(1, 4):
        lock = Lock(tmp_path / "a.lock")
        assert lock.acquire() and lock.starts == start
        lock.release(finished=False)
    assert os.listdir(tmp_path) == ["a.lock"]


def test_a_killed_holder_frees_the_lock_at_once(holder):
    path, process = holder
    lock = Lock(path)
    assert lock.is_held() and not lock.acquire()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not lock.is_held() and lock.acquire() and lock.starts == 2
    lock.release(finished=True)


def test_a_stopped_holder_is_alive(holder):
    path, process = holder
    process.send_signal(signal.SIGSTOP)
    assert not Lock(path, dead_after=0.0).acquire()


def test_many_processes_at_once_are_given_the_lock_one_by_one(tmp_path):
    code = """
import sys, time
from pathlib import Path
from sadp_bench.records.file_lock import Lock
lock, counter = Lock(Path(sys.argv[1])), Path(sys.argv[2])
for _ in range(20):
    while not lock.acquire():
        time.sleep(0.0005)
    number = int(counter.read_text() or 0)
    time.sleep(0.0005)
    counter.write_text(str(number + 1))
    lock.release(finished=True)
"""
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "a.lock", counter]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert counter.read_text() == "80"
    assert os.listdir(tmp_path) == ["counter"]


class AnotherMachine:
    """A holder whose flock does not reach this machine: only its file and its heartbeat do."""

    def __init__(self, path):
        self.path = path
        path.write_text(json.dumps({"token": "theirs", "machine": "elsewhere", "held": True, "starts": 3}))

    def beat(self):
        os.utime(self.path)


@pytest.fixture
def settles_at_once(monkeypatch):
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.01)


def test_another_machines_lock_is_taken_over_only_when_its_heart_stands_still(tmp_path, settles_at_once):
    other = AnotherMachine(tmp_path / "a.lock")
    lock = Lock(tmp_path / "a.lock", dead_after=0.3)
    for _ in range(6):
        assert not lock.acquire() and lock.is_held()
        time.sleep(0.1)
        other.beat()
    assert not lock.acquire()
    time.sleep(0.35)
    assert not lock.is_held() and lock.acquire() and lock.starts == 4
    lock.release(finished=True)


@pytest.mark.parametrize("jump", [-(10**9), 10**9])
def test_a_clock_that_jumps_frees_no_lock_of_the_living(tmp_path, jump, monkeypatch, settles_at_once):
    AnotherMachine(tmp_path / "a.lock")
    os.utime(tmp_path / "a.lock", (jump + time.time(), jump + time.time()))
    lock = Lock(tmp_path / "a.lock", dead_after=60)
    assert not lock.acquire()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert not lock.acquire()


def test_the_heart_beats(tmp_path):
    lock = Lock(tmp_path / "a.lock", beat=0.01)
    assert lock.acquire()
    os.utime(lock.path, (1, 1))
    deadline = time.monotonic() + 10
    while lock.path.stat().st_mtime == 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lock.path.stat().st_mtime > 1
    lock.release(finished=True)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"starts": 2}'])
def test_a_damaged_lock_is_waited_for_then_taken(tmp_path, content, settles_at_once):
    (tmp_path / "a.lock").write_text(content)
    lock = Lock(tmp_path / "a.lock", dead_after=0.2)
    assert not lock.acquire()
    time.sleep(0.25)
    assert lock.acquire()
    lock.release(finished=True)
    assert os.listdir(tmp_path) == []


def test_of_two_who_take_over_at_once_the_last_word_wins(tmp_path, monkeypatch):
    path = tmp_path / "a.lock"
    path.write_text(json.dumps({"token": "theirs", "machine": "elsewhere", "held": False, "starts": 1}))
    lock = Lock(path)
    theirs = json.dumps({"token": "another", "machine": "elsewhere", "held": True, "starts": 2})
    monkeypatch.setattr(module.time, "sleep", lambda seconds: path.write_text(theirs))
    assert not lock.acquire()
    assert json.loads(path.read_text())["token"] == "another"


def test_a_closed_standard_input_is_no_obstacle(tmp_path):
    """The lock's file is then number 0."""
    code = "import os, sys; from pathlib import Path; from sadp_bench.records.file_lock import Lock; os.close(0)\n"
    code += "sys.exit(not Lock(Path(sys.argv[1])).acquire())"
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "a.lock"]).returncode == 0


@pytest.fixture
def no_flock(monkeypatch):
    """A file system without such locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", refuse)


def test_without_flock_the_heartbeat_tells(tmp_path, no_flock, settles_at_once):
    holder, other = Lock(tmp_path / "a.lock", beat=0.01), Lock(tmp_path / "a.lock", dead_after=0.5)
    assert holder.acquire()
    assert not other.acquire()
    holder.release(finished=False)
    assert other.acquire() and other.starts == 2
    other._over.set()  # it dies
    third = Lock(tmp_path / "a.lock", dead_after=0.2)
    assert not third.acquire()
    time.sleep(0.25)
    assert third.acquire() and third.starts == 3
    third.release(finished=True)
    assert os.listdir(tmp_path) == []


def test_without_hard_links_a_lock_is_a_lock(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    one, other = Lock(tmp_path / "a.lock"), Lock(tmp_path / "a.lock")
    assert one.acquire() and not other.acquire() and one.is_mine()
    one.release(finished=True)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="can't lock .*a.lock: .*; choose another folder"):
        Lock(tmp_path / "file" / "a.lock").acquire()
    with small_disk() as disk:
        fill(disk)
        with pytest.raises(BadInput, match="No space left on device"):
            Lock(disk / "a.lock").acquire()
        assert os.listdir(disk) == ["filler"]
