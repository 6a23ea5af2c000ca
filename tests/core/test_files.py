"""Every file that is read is a regular one of a limited size: a stranger's path can neither stop nor fill a process."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from sadp_bench.core.files import Unreadable, read_bytes, read_text, set_aside
from tests.odd_files import ODD_PLACES, within
from tests.paths import ROOT


def test_all_but_a_regular_file_is_one_line_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (name, lay) in enumerate(ODD_PLACES.items()):
        path = tmp_path / f"{number}\n"
        lay(path)
        with within(5), pytest.raises(Unreadable) as refused:
            read_text(path, limit=1000)
            pytest.fail(f"{name} is read")
        message = str(refused.value)
        assert message == f"can't read {tmp_path}/{number}\\n: {refused.value.reason}" and message.isprintable(), name
    with pytest.raises(Unreadable, match="null byte"):
        read_text(Path("a\0b"))
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(len(ODD_PLACES)):
        with pytest.raises(Unreadable):
            read_text(tmp_path / f"{number}\n", limit=1000)
    assert len(os.listdir("/proc/self/fd")) == descriptors, "nothing stays open"


def test_a_regular_file_is_read_through_links_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("größe\n", encoding="utf-8-sig")
    (tmp_path / "b").symlink_to("a")
    assert read_text(tmp_path / "b") == "größe\n"
    (tmp_path / "c").write_bytes(bytes(1000))
    assert read_bytes(tmp_path / "c", 1000) == bytes(1000)


def test_whatever_is_in_the_place_of_a_file_is_set_aside_or_left(tmp_path: Path) -> None:
    for number, (name, lay) in enumerate(ODD_PLACES.items()):
        path = tmp_path / str(number)
        lay(path)
        assert set_aside(path) == f"set aside as {number}.broken" and not os.path.lexists(path), name
    path.write_text("")
    (tmp_path / f"{number}.broken").unlink()
    (tmp_path / f"{number}.broken").mkdir()
    assert set_aside(path).startswith("left there (") and path.exists()


# Calls that open a file in another way, by module, and why none of them opens a stranger's.
OPENED_ELSEWHERE = {
    "core/files.py": {"os.open"},
    "core/arrays.py": {"np.load"},  # of bytes
    "records/file_lock.py": {"path.open"},  # to write, after `_check_regular`
    "datasets/base.py": {"np.fromfile", "tarfile.open", "file.open"},  # an opened file; a checked download
    "datasets/archives.py": {"tarfile.open"},  # an opened file
    "datasets/braille.py": {"np.load"},  # the package's
    "datasets/decoding.py": {"Image.open"},  # of bytes
    "datasets/npz.py": {"np.load"},  # an opened file
    "datasets/pixel_cache.py": {"part.open", "np.fromfile", "np.memmap"},  # the cache's own files; an opened file
    "datasets/frame_cache.py": {"part.open"},  # the cache's own file
    "datasets/pack_file.py": {"np.memmap"},  # after `opened`
    "datasets/digits.py": {"np.loadtxt"},  # scikit-learn's
    "runs/peak_memory.py": {"Path('/proc/self/status').read_text"},
    "runs/out_folder.py": {"os.open"},  # the folder itself
    "core/memory.py": {"file.read_text", "CONTROL_GROUPS.read_text"},  # the system's
    "runs/environment.py": {"Path('/proc/cpuinfo').read_text"},
    "reports/formats/html.py": {"(files(__package__) / 'page' / name).read_text"},  # the package's
    "training/checkpoint.py": {"torch.load"},  # of bytes
    "runs/reopening.py": {"torch.load"},  # of bytes
    "cli/output.py": {"os.open"},  # the null device
    "subset.py": {"np.loadtxt"},  # of bytes
}
OPENERS = {"open", "read_text", "read_bytes", "fromfile", "memmap", "loadtxt", "genfromtxt", "read_csv"}
OPENERS |= {"torch.load", "np.load", "json.load", "tomllib.load"}


def test_files_are_opened_in_one_place() -> None:
    ours = {"read_text", "read_bytes"}  # the helper's names, called as functions
    wrong = []
    for path in [*(ROOT / "sadp_bench").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")]:
        name = str(path.relative_to(ROOT / "sadp_bench")) if path.is_relative_to(ROOT / "sadp_bench") else path.name
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            if {called, called.rpartition(".")[2]} & OPENERS and called not in ours | OPENED_ELSEWHERE.get(name, set()):
                wrong.append(f"{name}:{call.lineno}: {called}")
    assert not wrong, f"read with core.files: {wrong}"
