"""Files of strangers (records, archives, downloads) are data: none can run code, leave its folder or steer a terminal."""

from __future__ import annotations

import ast
import functools
import http.server
import io
import json
import re
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
from sadp_bench.reports.naming import command as made_by
from sadp_bench.reports.plots.saving import slug
from tests.commands import command, tiny_run
from tests.datasets.helpers import md5, refusal
from tests.example_records import make_record, make_spec
from tests.paths import ROOT

# ------------------------------------------------------------------------------------------- what the source calls

# Ruff's rules S and its list of banned modules (pyproject.toml) keep these out of the source.
REFUSED_BY_RUFF = """
import pickle
from pickle import loads
import marshal
import yaml
import urllib.request
eval(text)
exec(text)
os.system(text)
subprocess.run(text, shell=True)
subprocess.getoutput(text)
tar.extractall(folder)
tempfile.mktemp()
"""


def test_ruff_is_set_up_to_refuse_what_could_run_a_strangers_code() -> None:
    imports = "import os, subprocess, tarfile, tempfile\ntar = tarfile.open('x.tar')\n"
    words = ["check", "--no-cache", "--output-format", "json", "--stdin-filename"]
    source = imports + REFUSED_BY_RUFF
    answer = subprocess.run(
        [Path(sys.executable).with_name("ruff"), *words, "sadp_bench/stranger.py", "-"],
        input=source, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    security = [found for found in json.loads(answer.stdout) if found["code"].startswith(("S", "TID"))]
    lines = {found["location"]["row"] for found in security}
    missed = [
        line
        for row, line in enumerate(source.splitlines(), 1)
        if line in REFUSED_BY_RUFF.split("\n")[1:-1] and row not in lines
    ]
    assert not missed, missed


def test_tensors_and_arrays_are_loaded_without_pickle() -> None:
    """No rule of ruff checks the keywords of torch.load and numpy.load."""
    wrong = []
    for path in [*(ROOT / "sadp_bench").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")]:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            given = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
            safe = ast.unparse(call.func) != "torch.load" or given.get("weights_only") is True
            if not safe or given.get("allow_pickle", False) is not False:
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}")
    assert not wrong, wrong


# ------------------------------------------------------------------------------------------- downloads, over real TLS


class Site(http.server.BaseHTTPRequestHandler):
    """Serves `pages`; a page that is text is the address of a redirect."""

    pages: dict[str, bytes | str]
    requested: list[str]

    def do_GET(self) -> None:
        self.requested.append(self.path)
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
    """Yields the site's address and the requested paths; uses https where there is a certificate."""
    requested: list[str] = []
    handler = type("OwnSite", (Site,), {"pages": pages, "requested": requested})
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=functools.partial(server.serve_forever, 0.02), daemon=True).start()
        try:
            yield f"http{'s' if certificate else ''}://localhost:{server.server_address[1]}", requested
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
    with site({"/file": b"content"}) as (address, requested):
        assert "not https" in refusal(download, f"{address}/file", md5(b"content"), tmp_path / "file")
        assert requested == []
    assert not list(tmp_path.iterdir())


def test_a_redirect_to_plain_http_is_refused_though_its_checksum_fits(trusted: Path, tmp_path: Path) -> None:
    with site({"/file": b"content"}) as (plain, _), site({"/file": f"{plain}/file"}, trusted) as (address, requested):
        assert "away from https" in refusal(download, f"{address}/file", md5(b"content"), tmp_path / "file")
        assert requested == ["/file"]
    assert not list(tmp_path.iterdir())


def test_an_untrusted_certificate_is_refused(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost")
    with site({"/file": b"content"}, certificate) as (address, requested):
        assert "CERTIFICATE_VERIFY_FAILED" in refusal(download, f"{address}/file", md5(b"content"), tmp_path / "file")
        assert requested == []
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
def test_an_archive_that_leads_out_of_its_folder_is_refused(trusted: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    for number, (name, content) in enumerate(attacks(outside).items()):
        root = tmp_path / f"root{number}"
        with site({"/set.tar.gz": content}, trusted) as (address, _):
            refusal(download_archive, f"{address}/set.tar.gz", md5(content), root / "set" / "a", root)
        assert [path.name for path in outside.iterdir()] == ["kept"], name
        assert (outside / "kept").stat().st_nlink == 1 and list(root.iterdir()) == [], name


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
    """Returns a file that the module `trap_of_a_stranger` makes when it is imported; it lies in the working folder."""
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
        Store(place / "runs").write(make_record(make_spec(name, 0.5, dataset=name, backbone=name)))
        Store(place / "runs").write_failure(Failure(make_spec(name, 0.3, dataset=name), "killed", "2025"))
        assert re.fullmatch(r"(\w[\w.-]*)?", slug(name)), f"plots of {name!r} are named {slug(name)!r}..."
    evil = "/tmp/evil:../../x"  # one name is drawn to the end, which takes seconds
    Store(place / "drawn").write(make_record(make_spec(evil, 0.5, dataset=evil, backbone=evil)))
    assert command("report", place / "drawn", "--plots", place / "plots").code == 0
    folders = {place / "runs", place / "drawn", place / "plots"}
    outside = sorted(path.name for path in tmp_path.rglob("*") if path.parent not in folders)
    assert outside == ["a", "b", "drawn", "plots", "runs"]


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


PLACES = ["method", "environment", "option", "key of a table", "schema", "key", "reason"]


@pytest.mark.parametrize("place", PLACES)
def test_no_record_steers_the_terminal(place: str, tmp_path: Path) -> None:
    for number, (name, odd) in enumerate(ODD.items()):
        steered = shown_with(odd, place, tmp_path / str(number))
        assert not steered, f"{name}: {steered}"


def shown_with(odd: str, place: str, folder: Path) -> list[str]:
    """Returns the lines of a report that a terminal would not print as they are, with `odd` at `place` of a record."""
    folder.mkdir()
    spec = make_spec("x", 0.5)
    data = make_record(spec).to_json()
    name = "odd.json"
    if place in ("method", "option"):  # A file may contain a spec that no run has.
        data["spec"] = data["spec"] | ({"method": odd} if place == "method" else {"method_options": {"a": odd}})
    elif place == "environment":
        data["environment"] = data["environment"] | {"processor": odd}
    elif place == "key of a table":
        data["spec"] = data["spec"] | {odd: 1}
    elif place in ("schema", "key"):
        data[place] = odd
    elif place == "reason":
        name, data = "odd.failed.json", Failure(spec, odd, "2025").to_json()
    (folder / name).write_text(json.dumps(data))
    Store(folder).write(make_record(make_spec()))
    answer = command("report", folder)
    assert answer.code == 0 and answer.err.count("\n") == 1
    return [line for line in (answer.out + answer.err).split("\n") if not line.isprintable()]


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


def test_a_record_that_is_a_link_is_read_and_never_written_through(tmp_path: Path) -> None:
    theirs = Store(tmp_path / "theirs").write(make_record(make_spec()))
    before = theirs.read_bytes()
    ours = Store(tmp_path / "ours")
    ours.check_writable()
    path = ours.path(make_spec())
    path.symlink_to(theirs)
    assert ours.find(make_spec()) == make_record(make_spec()) and len(read_all([ours.folder]).records) == 1
    ours.write(make_record(make_spec(), accuracy=0.1))
    assert theirs.read_bytes() == before and not path.is_symlink() and path.is_file()
