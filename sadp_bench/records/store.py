"""Records on disk: one JSON file a run, written beside its place and renamed. The file exists = the run finished.

Beside a record's place lie, while it is not there: its checkpoint (`.ckpt`), the lock of who is at it (`.lock`) and of the
sweep that had it started (`.claim`), and why it failed (`.failed.json`).
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, Any, NamedTuple

from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import printable
from sadp_bench.records.record import DISTURBED, Failure, Record
from sadp_bench.records.spec import Spec

NOTE = "note.txt"  # beside records: what their reader must know, a line each; "seconds: ..." is why these say nothing
SECONDS = "seconds:"
FAILED = ".failed.json"
STUDY = ".study.json"  # no record, see `studyfile`
SPEED = ".speed.json"  # no record, what `speed --json` prints


class Found(NamedTuple):
    """What a folder holds: the records, one line for each file that could not be read, and the runs that failed and
    have no record."""

    records: list[tuple[Path, Record]]
    problems: list[str]
    failures: list[Failure]


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is whole, or not at all.

    Raises BadInput where the folder can't be written, or where the name is a folder's or a device's.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise BadInput(f"can't write {path}: it is there and no regular file; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False)
    except OSError as error:
        raise BadInput(f"can't write {path}: {error.strerror}; choose another folder") from None
    try:
        with beside:
            yield beside
            beside.flush()
            os.fsync(beside.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside.name, 0o666 & ~umask)
        os.replace(beside.name, path)
    except BaseException as error:
        Path(beside.name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise BadInput(f"can't write {path}: {error.strerror}; choose another folder") from None
        raise


def remove_parts(path: Path) -> None:
    """Removes what killed processes left half-written of all files whose names begin like this one. For the holder of
    their lock."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        part.unlink(missing_ok=True)


class Store:
    """The records of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, spec: Spec, suffix: str = ".json") -> Path:
        """Where the record of a run lies: a name for people, ending in the key. Never outside the folder."""
        dataset, method = (re.sub(r"[^\w-]", "_", name.rpartition(":")[2]) for name in (spec.dataset, spec.method))
        return self.folder / f"{dataset}-{method}-r{spec.ratio:g}-s{spec.seed}-{spec.key}{suffix}"

    def scores_path(self, spec: Spec) -> Path:
        """Where the scores lie that runs share which differ in the ratio alone."""
        return Store(self.folder / "scores").path(spec.any_ratio(), ".scores")

    def find(self, spec: Spec) -> Record | None:
        """The record of a run that has finished. Raises BadInput where its file is there but broken."""
        path = self.path(spec)
        if not os.path.exists(path):
            return None
        try:
            return read(path)
        except BadInput as error:
            raise BadInput(f"{path}: {error}; delete it, or train it anew with --again") from None

    def write(self, record: Record) -> Path:
        path = self.path(record.spec)
        with atomic(path) as file:
            file.write(json.dumps(record.to_json(), indent=1, allow_nan=False).encode() + b"\n")
        self.path(record.spec, FAILED).unlink(missing_ok=True)
        return path

    def write_failure(self, failure: Failure) -> Path:
        """Its lines are another process's, so they are made printable."""
        lines = [printable(line) for line in failure.last_lines]
        failure = dataclasses.replace(failure, reason=printable(failure.reason), last_lines=lines)
        path = self.path(failure.spec, FAILED)
        with atomic(path) as file:
            file.write(json.dumps(failure.to_json(), indent=1).encode() + b"\n")
        return path

    def find_failure(self, spec: Spec) -> Failure | None:
        """Why a run has no record, as its last try left word. A damaged file tells nothing."""
        try:
            return Failure.from_json(read_json(self.path(spec, FAILED)))
        except BadInput:
            return None

    def check_writable(self, needed_bytes: int = 0) -> None:
        """Raises BadInput now rather than after hours of training."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise BadInput(f"can't write {self.folder}/: {error.strerror}; choose another folder") from None
        free = shutil.disk_usage(self.folder).free
        if free < needed_bytes:
            raise BadInput(
                f"{self.folder} has {free / 2**20:,.0f} MiB left, and checkpoints and records need about "
                f"{needed_bytes / 2**20:,.0f}: free some, or choose another --out"
            )


def read(path: Path) -> Record:
    """Raises BadInput where the file is no whole record."""
    return Record.from_json(read_json(path))


def read_json(path: Path) -> Any:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for, a device read without end
        raise BadInput("unreadable: no regular file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"unreadable: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise BadInput("not JSON: cut short or damaged") from None


def _json_files(folder: Path, problems: list[str]) -> list[Path]:
    """All below the folder that may be a run's, sorted; a folder that may not be read is a problem."""

    def refused(error: OSError) -> None:
        problems.append(printable(f"{error.filename}: unreadable: {error.strerror}"))

    walk = os.walk(folder, onerror=refused)
    found = sorted(Path(at, name) for at, folders, names in walk for name in folders + names if name.endswith(".json"))
    return [path for path in found if not path.name.endswith((STUDY, SPEED))]


def read_all(folders: Iterable[Path]) -> Found:
    """All records below the folders, a key once: the first that is found, and a problem where the run was made again.

    Records beside a note with a line "seconds: why" are marked as disturbed. Raises BadInput where a folder isn't there.
    """
    records: dict[str, tuple[Path, Record]] = {}
    failures: dict[str, Failure] = {}
    problems: list[str] = []
    for folder in folders:
        if not os.path.isdir(folder):
            raise BadInput(f"no folder {folder}; name one that `sadp-bench run --out DIR` wrote to")
        for path in _json_files(folder, problems):
            try:
                if path.name.endswith(FAILED):
                    failure = Failure.from_json(read_json(path))
                    failures.setdefault(failure.spec.key, failure)
                else:
                    record = _marked(path, read(path))
                    first, known = records.setdefault(record.spec.key, (path, record))
                    if record.finished != known.finished:
                        problems.append(printable(f"{path}: the same run as {first}, which counts"))
            except BadInput as error:
                problems.append(printable(f"{path}: {error}"))
    return Found(list(records.values()), problems, [one for key, one in failures.items() if key not in records])


def read_notes(folders: Iterable[Path]) -> list[str]:
    """What the files `note.txt` below the folders tell a reader of their records, a line each: 'cifar10: the first ...'.

    Without what they tell of seconds, which is the records' own (`Record.disturbed`).
    """
    paths = {path.resolve() for folder in folders for path in Path(folder).rglob(NOTE) if path.is_file()}
    told = [(path.parent.name, line) for path in sorted(paths) for line in _note(path)]
    return [f"{name}: {line}" for name, line in told if not line.startswith(SECONDS)]


def _note(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BadInput(printable(f"can't read {path}: {error}")) from None
    return [printable(line.strip()) for line in lines if line.strip()]


def _marked(path: Path, record: Record) -> Record:
    """With why its seconds say nothing, if the note beside it tells."""
    note = path.parent / NOTE
    lines = _note(note) if note.is_file() else []
    why = " ".join(line.removeprefix(SECONDS).strip() for line in lines if line.startswith(SECONDS))
    return dataclasses.replace(record, environment=record.environment | {DISTURBED: why}) if why else record
