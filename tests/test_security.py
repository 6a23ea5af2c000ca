"""Files of strangers (records, archives, downloads) are data: none can run code, leave its folder or steer a terminal."""

from __future__ import annotations

import ast
import functools
import http.server
import io
import json
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sadp_bench.datasets.base import download, download_archive
from sadp_bench.records.record import Failure
from sadp_bench.records.store import Store, read_all
from sadp_bench.report.tables import command as made_by
from tests.commands import command, tiny_run
from tests.datasets.helpers import md5, refusal
from tests.example_records import make_record, make_spec
from tests.paths import ROOT

FILES = sorted([*(ROOT / "sadp_bench").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")])

# ------------------------------------------------------------------------------------------- what the source calls

UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "zipfile",
    "requests",
}
UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "shutil.unpack_archive", "yaml.load",
    "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp", "urllib.request.urlretrieve", "urlretrieve",
}  # fmt: skip
NEEDED = {"torch.load": ("weights_only", True), "extractall": ("filter", "data"), "extract": ("filter", "data")}


def unsafe(source: str) -> list[str]:
    """What a file imports or calls that could run a stranger's code, in words."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            found += [f"import {name}" for name in modules if name.split(".")[0] in UNSAFE_MODULES]
        if isinstance(node, ast.Call):
            found += _unsafe_call(node)
    return found


def _unsafe_call(node: ast.Call) -> list[str]:
    name, last = ast.unparse(node.func), ast.unparse(node.func).rpartition(".")[2]
    given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
    found = [name] if name in UNSAFE_CALLS else []
    found += [f"{name}(shell=...)"] if given.get("shell", False) is not False else []
    found += [f"{name}(allow_pickle=...)"] if given.get("allow_pickle", False) is not False else []
    wanted = NEEDED.get(name) or NEEDED.get(last)
    return found + (
        [f"{name} without {wanted[0]}={wanted[1]!r}"] if wanted and given.get(wanted[0]) != wanted[1] else []
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_file_calls_what_could_run_a_strangers_code(path: Path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "import yaml", "eval('1')", "exec('1')", "os.system('ls')",
     "subprocess.run('ls', shell=True)", "subprocess.run('ls', shell=flag)", "torch.load(f)", "import os.path, marshal",
     "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "tar.extractall(p)", "__import__(name)",
     "tar.extractall(p, filter='tar')"],
)  # fmt: skip
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert unsafe(source)


def test_only_data_sets_reach_for_the_network_and_at_one_place() -> None:
    users = {
        p.relative_to(ROOT).as_posix() for p in FILES if "urllib" in p.read_text() or "http.client" in p.read_text()
    }
    assert users == {"sadp_bench/datasets/base.py"}
    calls = [n for n in ast.walk(ast.parse((ROOT / users.pop()).read_text())) if isinstance(n, ast.Call)]
    assert sum(ast.unparse(call.func) == "urlopen" for call in calls) == 1


# ------------------------------------------------------------------------------------------- downloads, over real TLS


class Site(http.server.BaseHTTPRequestHandler):
    """Serves `pages`; a page that is text is where it redirects to."""

    pages: dict[str, bytes | str]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        page = self.pages[self.path]
        self.send_response(302 if isinstance(page, str) else 200)
        if isinstance(page, str):
            self.send_header("Location", page)
        self.end_headers()
        self.wfile.write(page if isinstance(page, bytes) else b"")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def site(pages: dict[str, bytes | str], certificate: Path | None = None) -> Iterator[tuple[str, list[str]]]:
    """(its address, what it was asked for), over https where there is a certificate."""
    asked: list[str] = []
    handler = type("OwnSite", (Site,), {"pages": pages, "asked": asked})
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=functools.partial(server.serve_forever, 0.02), daemon=True).start()
        try:
            yield f"http{'s' if certificate else ''}://localhost:{server.server_address[1]}", asked
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("making a certificate needs openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*words.split(), "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    with path.open("ab") as file:
        file.write(Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("NO_PROXY", "localhost")
    return certificate


def test_a_checked_download_over_https_arrives(trusted: Path, tmp_path: Path) -> None:
    with site({"/file": b"content"}, trusted) as (address, _):
        download(f"{address}/file", md5(b"content"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_plain_http_is_refused_unasked(tmp_path: Path) -> None:
    with site({"/file": b"content"}) as (address, asked):
        assert "not https" in refusal(download, f"{address}/file", md5(b"content"), tmp_path / "file")
        assert asked == []
    assert not list(tmp_path.iterdir())


def test_a_redirect_to_plain_http_is_refused_though_its_checksum_fits(trusted: Path, tmp_path: Path) -> None:
    with site({"/file": b"content"}) as (plain, _), site({"/file": f"{plain}/file"}, trusted) as (address, asked):
        assert "away from https" in refusal(download, f"{address}/file", md5(b"content"), tmp_path / "file")
        assert asked == ["/file"]
    assert not list(tmp_path.iterdir())


def test_an_untrusted_certificate_is_refused(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost")
    with site({"/file": b"content"}, certificate) as (address, asked):
        assert "CERTIFICATE_VERIFY_FAILED" in refusal(download, f"{address}/file", md5(b"content"), tmp_path / "file")
        assert asked == []
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("unpacks")
def test_a_wrong_checksum_leaves_nothing(trusted: Path, tmp_path: Path) -> None:
    with site({"/file": b"changed"}, trusted) as (address, _):
        assert "MD5" in refusal(download, f"{address}/file", md5(b"content"), tmp_path / "file")
        assert "MD5" in refusal(download_archive, f"{address}/file", md5(b"content"), tmp_path / "set/a", tmp_path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------- archives


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for member, inside in members:
            member.size = len(inside)
            tar.addfile(member, io.BytesIO(inside))
    return content.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, to
    return made


def attacks(outside: Path) -> dict[str, bytes]:
    evil, good = b"evil", (member("set/a"), b"good")
    link = (member("way", tarfile.SYMTYPE, str(outside)), b"")
    return {
        "a path upwards": packed(good, (member("../../../outside/evil"), evil)),
        "a path upwards from within": packed(good, (member("set/../../../../outside/evil"), evil)),
        "a symbolic link out": packed(link),
        "a file through a symbolic link out": packed(link, (member("way/evil"), evil)),
        "a relative symbolic link out": packed((member("way", tarfile.SYMTYPE, "../../../outside"), b"")),
        "a hard link out": packed((member("way", tarfile.LNKTYPE, str(outside / "kept")), b"")),
        "a device": packed((member("null", tarfile.CHRTYPE), b"")),
        "a pipe": packed((member("pipe", tarfile.FIFOTYPE), b"")),
    }


@pytest.mark.usefixtures("unpacks")
@pytest.mark.parametrize("name", attacks(Path("/")))
def test_an_archive_that_leads_out_of_its_folder_is_refused(name: str, trusted: Path, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    content = attacks(outside)[name]
    with site({"/set.tar.gz": content}, trusted) as (address, _):
        refusal(download_archive, f"{address}/set.tar.gz", md5(content), root / "set" / "a", root)
    assert [path.name for path in outside.iterdir()] == ["kept"] and (outside / "kept").stat().st_nlink == 1
    assert list(root.iterdir()) == []


@pytest.mark.usefixtures("unpacks")
def test_an_absolute_path_in_an_archive_stays_in_the_folder(trusted: Path, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    content = packed((member(str(outside / "evil")), b"evil"))
    with site({"/set.tar.gz": content}, trusted) as (address, _):
        download_archive(f"{address}/set.tar.gz", md5(content), root / "set" / "a", root)
    assert not outside.exists()
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["evil"]


# ------------------------------------------------------------------------------------------- records


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the module `trap_of_a_stranger` makes when it is imported; it lies in the working folder."""
    sprung = tmp_path / "sprung"
    (tmp_path / "trap_of_a_stranger.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Trap: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return sprung


def test_the_trap_works(trap: Path) -> None:
    answer = tiny_run("trap_of_a_stranger:Trap", 0.5, Path("runs"))
    assert trap.exists() and "no subclass" in answer.err
    del sys.modules["trap_of_a_stranger"]


def test_reading_records_imports_nothing_that_they_name(trap: Path) -> None:
    name = "trap_of_a_stranger:Trap"
    Store(Path("runs")).write(make_record(make_spec(name, 0.5)))
    Store(Path("runs")).write(make_record(make_spec("random", 0.5, dataset=name, backbone=name)))
    Store(Path("runs")).write_failure(Failure(make_spec(name, 0.3), "killed", "2025"))
    for words in (["--format", "markdown"], ["--format", "json"], ["--format", "csv"], ["--plots", "plots"]):
        answer = command("report", "runs", *words)
        assert answer.code == 0 and name in answer.out
    assert not trap.exists() and "trap_of_a_stranger" not in sys.modules


def test_no_name_in_a_record_writes_outside_the_folder(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    for name in ("../../evil", "/tmp/evil:../../x", "..", "a/../../../evil", "~/evil"):
        spec = make_spec(name, 0.5, dataset=name, backbone=name)
        Store(place / "runs").write(make_record(spec))
        Store(place / "runs").write_failure(Failure(make_spec(name, 0.3, dataset=name), "killed", "2025"))
    assert command("report", place / "runs", "--plots", place / "plots").code == 0
    assert sorted(path.name for path in tmp_path.rglob("*") if path.parent not in (place / "runs", place / "plots")) == [
        "a", "b", "plots", "runs",
    ]  # fmt: skip


ODD = {
    "clears the screen": "\x1b[2J",
    "sets the title": "\x1b]0;evil\x07",
    "eight-bit control": "\x9b2J",
    "goes back": "100 %\r0 %",
    "new line": "a\nb",
    "backspace": "a\b",
    "right to left": "\u202etxt.exe",
    "lone surrogate": "\ud800",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("place", ["method", "environment", "option", "key of a table", "schema", "key", "reason"])
def test_no_record_steers_the_terminal(odd: str, place: str, tmp_path: Path) -> None:
    method, options = odd if place == "method" else "x", {"a": odd} if place == "option" else {}
    spec = make_spec(method, 0.5, method_options=options)
    data = make_record(spec).to_json()
    name = "odd.json"
    if place == "environment":
        data["environment"] = data["environment"] | {"processor": odd}
    elif place == "key of a table":
        data["spec"] = data["spec"] | {odd: 1}
    elif place in ("schema", "key"):
        data[place] = odd
    elif place == "reason":
        name, data = "odd.failed.json", Failure(spec, odd, "2025").to_json()
    (tmp_path / name).write_text(json.dumps(data))
    Store(tmp_path).write(make_record(make_spec()))
    answer = command("report", tmp_path)
    assert answer.code == 0 and answer.err.count("\n") == 1
    for line in (answer.out + answer.err).split("\n"):
        assert line.isprintable()


def test_markup_in_a_record_is_shown_not_obeyed(tmp_path: Path) -> None:
    Store(tmp_path).write(make_record(make_spec("[red]x[/red][link=http://e]", 0.5)))
    assert "[red]x[/red]" in command("report", tmp_path).out.replace("\n", "")


def test_a_command_that_is_shown_to_be_copied_is_quoted() -> None:
    spec = make_spec("x; rm -rf ~", 0.5, dataset="$(evil)", backbone="`evil`")
    assert "'$(evil)'" in made_by(spec) and "'`evil`'" in made_by(spec) and "'x; rm -rf ~'" in made_by(spec)


def test_a_record_of_a_stranger_is_never_changed(tmp_path: Path) -> None:
    path = Store(tmp_path).write(make_record(make_spec()))
    before = path.read_bytes(), path.stat().st_mtime_ns
    read_all([tmp_path])
    command("report", tmp_path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before and list(tmp_path.iterdir()) == [path]
