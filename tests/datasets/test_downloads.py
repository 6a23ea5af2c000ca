"""A download is whole and checked, or nothing: from a network that is cut, silent or lying."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from sadp_bench.datasets import base
from sadp_bench.datasets.base import download, download_archive
from sadp_bench.datasets.cifar import CIFAR10, CIFAR100
from sadp_bench.datasets.mnist import MNIST, FashionMNIST
from tests.datasets.helpers import URL, Response, files_below, md5, refusal, serve
from tests.paths import ROOT

pytestmark = pytest.mark.usefixtures("no_network")


def test_a_download_is_whole_and_alone_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytes(range(256)) * 5000
    serve(monkeypatch, Response(content))
    download(URL, md5(content), tmp_path / "new" / "file.bin")
    assert (tmp_path / "new" / "file.bin").read_bytes() == content
    assert files_below(tmp_path) == ["new", "new/file.bin"]
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and URL in shown.err


@pytest.mark.usefixtures("unpacks")
def test_an_archive_is_unpacked_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in (("set/a.bin", b"new a"), ("set/b.bin", b"new b")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.bin").write_bytes(b"old a")
    serve(monkeypatch, Response(packed.getvalue()))
    download_archive(URL, md5(packed.getvalue()), tmp_path / "set" / "b.bin", tmp_path)
    assert files_below(tmp_path) == ["set", "set/a.bin", "set/b.bin"]
    assert (tmp_path / "set" / "a.bin").read_bytes() == b"new a"


@pytest.mark.usefixtures("unpacks")
def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../../escaped"))
    serve(monkeypatch, Response(packed.getvalue()))
    root = tmp_path / "root"
    refusal(download_archive, URL, md5(packed.getvalue()), root / "set" / "b.bin", root)
    assert files_below(tmp_path) == ["root"]


def test_a_wrong_checksum_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, Response(b"changed"))
    message = refusal(download, URL, md5(b"original"), tmp_path / "file.bin")
    assert md5(b"original") in message and URL in message and str(tmp_path / "file.bin") in message
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("failure", [ConnectionResetError(104, "Connection reset by peer"), TimeoutError("timed out")])
def test_a_broken_download_leaves_nothing(failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking(Response):
        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(1000)
            if not piece:
                raise failure
            return piece

    serve(monkeypatch, Breaking(bytes(5000)))
    message = refusal(download, URL, md5(bytes(5000)), tmp_path / "file.bin")
    assert (failure.strerror or str(failure)) in message  # type: ignore[attr-defined]
    assert files_below(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Response):
        def read(self, size: int | None = -1, /) -> bytes:
            raise KeyboardInterrupt

    serve(monkeypatch, Interrupted(b""))
    with pytest.raises(KeyboardInterrupt):
        download(URL, md5(b""), tmp_path / "file.bin")
    assert files_below(tmp_path) == []


def test_only_https_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, Response(b"content", url="http://example.org/file.bin"))
    assert "https" in refusal(download, URL, md5(b"content"), tmp_path / "file.bin")
    assert "https" in refusal(download, "http://example.org/file.bin", md5(b"content"), tmp_path / "file.bin")
    assert files_below(tmp_path) == []
    for cls in (CIFAR10, CIFAR100, FashionMNIST, MNIST):
        assert getattr(cls, "url", getattr(cls, "mirror", "")).startswith("https://")


def test_an_answer_that_never_comes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(base, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(base, "urlopen", lambda url, timeout: release.wait(30))
    assert "no answer" in refusal(download, URL, md5(b""), tmp_path / "file.bin")
    release.set()


@pytest.mark.slow
@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])  # a name and an address that are reserved for tests
def test_a_host_that_is_not_there_is_given_up_within_ten_seconds(host: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from time import monotonic\n"
        "from sadp_bench.datasets.base import download\n"
        "started = monotonic()\n"
        "try: download(sys.argv[1], '', Path(sys.argv[2]))\n"
        "except ValueError as error: print(type(error).__name__, monotonic() - started)"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, f"https://{host}/file", str(tmp_path / "file")]
    shown = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60)
    name, seconds = shown.stdout.split()
    assert name == "BadInput" and float(seconds) < 10
    assert files_below(tmp_path) == []
