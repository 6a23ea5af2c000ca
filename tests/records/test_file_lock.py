"""A lock is held by one at a time, outlives nobody, and counts how often the work behind it was begun."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.records.file_lock import LEASE, Lock
from tests.disks import fill, small_disk
from tests.odd_files import ODD_PLACES, within
from tests.records.helpers import held


def test_a_lock_is_held_by_one_at_a_time_and_gone_when_finished(tmp_path):
    one, other = Lock(tmp_path / "a.lock"), Lock(tmp_path / "a.lock")
    assert not one.is_held() and os.listdir(tmp_path) == []
    assert one.acquire() and one.starts == 1 and one.is_mine()
    assert other.is_held() and not other.acquire() and not other.is_mine()
    one.release(finished=True)
    assert os.listdir(tmp_path) == [] and not other.is_held()
    assert other.acquire() and other.starts == 1
    other.release(finished=True)


def test_unfinished_work_counts_its_starts(tmp_path):
    for start in range(1, 4):
        lock = Lock(tmp_path / "a.lock")
        assert lock.acquire() and lock.starts == start
        lock.release(finished=False)
        assert not lock.is_held()
    assert os.listdir(tmp_path) == ["a.lock"]


def test_a_killed_holder_frees_the_lock_at_once(tmp_path):
    lock = Lock(tmp_path / "a.lock")
    with held(lock.path):
        assert lock.is_held() and not lock.acquire()
    assert not lock.is_held() and lock.acquire() and lock.starts == 2
    lock.release(finished=True)
    assert os.listdir(tmp_path) == []


def test_a_stopped_holder_loses_the_lock_in_time_and_notices(tmp_path):
    lock = Lock(tmp_path / "a.lock", beat=0.1, dead_after=1.0)
    with held(lock.path, beat=0.1, dead_after=1.0) as holder:
        holder.send_signal(signal.SIGSTOP)
        assert not lock.acquire()
        time.sleep(0.5)
        assert not lock.acquire()
        time.sleep(0.7)
        assert lock.acquire() and lock.starts == 2
        holder.send_signal(signal.SIGCONT)
        holder.stdin.write("\n")
        assert holder.stdout.readline() == "False\n"
    assert lock.is_mine()
    lock.release(finished=True)


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


def test_another_machines_lock_is_taken_over_only_when_its_heart_stands_still(tmp_path):
    lock = Lock(tmp_path / "a.lock", beat=0.1, dead_after=1.0)
    with held(lock.path, beat=0.1, dead_after=1.0, host="elsewhere"):
        for _ in range(8):
            assert not lock.acquire() and lock.is_held()
            time.sleep(0.2)
    assert not lock.acquire()
    time.sleep(1.1)
    assert not lock.is_held() and lock.acquire() and lock.starts == 2
    lock.release(finished=True)


@pytest.mark.parametrize("jump", [-(10**9), 10**9])
def test_a_clock_that_jumps_frees_no_lock_of_the_living(tmp_path, jump, monkeypatch):
    lock = Lock(tmp_path / "a.lock")
    with held(lock.path, host="elsewhere"):
        now = time.time()
        [marker] = tmp_path.glob("*.lease")
        os.utime(marker, (jump + now, jump + now))
        assert not lock.acquire()
        monkeypatch.setattr(time, "time", lambda: now + jump)
        assert not lock.acquire()


# What may stand in a lock's files, and is nobody's lease.
CONTENTS = {
    "empty": b"",
    "short": b"filelock/2\npid=",
    "another program's": b"[]",
    "no text": bytes(range(256)),
    "deep": b"[" * 100_000,
    "large": b"x" * (1 << 20),
    "a note of older versions": b'{"starts": "many", "host": [], "pid": null}',
    "a process of another machine": b"123\nelsewhere\n",
    "a program of another machine": b"filelock/2\npid=123\nhost=elsewhere\nmode=exclusive\n",
    "a mode of the future": b"filelock/2\npid=123\nhost=elsewhere\nmode=shared\n",
    "a lock of another kind": b"1\nfilelock-strict-v1\x00\n0\n",
}


def test_a_damaged_lock_is_waited_for_then_taken(tmp_path):
    locks = {name: Lock(tmp_path / name, dead_after=2.0) for name in CONTENTS}
    for name, content in CONTENTS.items():
        (tmp_path / f"{name}.lease").write_bytes(content)
        assert not locks[name].acquire() and locks[name].is_held(), name
    time.sleep(2.1)
    for name, lock in locks.items():
        assert lock.acquire() or lock.acquire(), name
        assert lock.starts == 1 and lock.is_mine(), name
        lock.release(finished=True)
    assert os.listdir(tmp_path) == []


def test_a_count_of_starts_that_is_none_begins_anew(tmp_path):
    for name, content in CONTENTS.items():
        lock = Lock(tmp_path / name)
        lock.path.write_bytes(content)
        for start in (1, 2):
            assert lock.acquire() and lock.starts == start, name
            lock.release(finished=False)


def test_a_closed_standard_input_is_no_obstacle(tmp_path):
    """The lock's file is then number 0."""
    code = "import os, sys; from pathlib import Path; from sadp_bench.records.file_lock import Lock; os.close(0)\n"
    code += "sys.exit(not Lock(Path(sys.argv[1])).acquire())"
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "a.lock"]).returncode == 0


def test_no_lock_s_file_is_anything_but_a_regular_one(tmp_path):
    for name in ("a pipe", "a link to a pipe", "a folder", "a dangling link", "a link to itself", "an endless device"):
        for place in (f"{name}.lock", f"{name} held.lock{LEASE}"):
            ODD_PLACES[name](tmp_path / place)
            lock = Lock(tmp_path / place.removesuffix(LEASE))
            with within(5), pytest.raises(BadInput, match=f"can't lock .*{name}.*: {place} is no regular file; choose"):
                lock.acquire()
        with within(5), pytest.raises(BadInput, match=f"can't read the lock .*: {place} is no regular file; choose"):
            lock.is_held()


def test_what_cannot_be_locked_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="can't lock .*file/a.lock: .*; choose another folder"):
        Lock(tmp_path / "file" / "a.lock").acquire()
    with held(tmp_path / "a.lock", dead_after=50), pytest.raises(BadInput, match="must agree"):
        Lock(tmp_path / "a.lock").acquire()
    with small_disk() as disk:
        fill(disk)
        with pytest.raises(BadInput, match="No space left on device"):
            Lock(disk / "a.lock").acquire()
        assert os.listdir(disk) == ["filler"]
