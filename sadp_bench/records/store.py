"""Records on disk: one JSON file for each run, which exists if and only if the run has finished.

A file is written under another name and renamed. Until a record exists, its folder may contain these files:

    .ckpt           the run's checkpoint
    .lock           the lock of the process that trains it
    .claim          the lock of the sweep that started that process
    .failed.json    the run's failure
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
from sadp_bench.core.files import TEXT_BYTES, Unreadable, read_text
from sadp_bench.core.memory import uncollected
from sadp_bench.core.text import printable
from sadp_bench.records.record import DISTURBED, Failure, Record
from sadp_bench.records.spec import Spec

NOTE = "note.txt"  # remarks about a folder's records, one per line
SECONDS = "seconds:"  # a line that starts with this word excludes the folder's seconds from every report
RESEMBLES = re.compile(r"\W*(seconds?|secs?|times?|timings?)\s*[:=\uff1a]", re.IGNORECASE)
MEANT = f" (this line excludes no seconds; one that does starts with '{SECONDS}')"
FAILED = ".failed.json"
STUDY = ".study.json"  # a file that is no record, see `measure.study_file`
SPEED = ".speed.json"  # a file that is no record, the output of `speed --json`


class Found(NamedTuple):
    """The content of some folders.

    Attributes:
        records: The records, each with its path.
        problems: One line for each file that could not be read.
        failures: Failures of runs that have no record.
    """

    records: list[tuple[Path, Record]]
    problems: list[str]
    failures: list[Failure]


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that gets its name when the context ends without an error; otherwise it is removed.

    Raises:
        BadInput: The folder can't be written, or the name is a folder's or a device's.
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
    """Removes half-written files of killed processes whose names begin like this one. Only the lock's holder calls it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        part.unlink(missing_ok=True)


class Store:
    """The records of one folder.

    Args:
        folder: The folder, which need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, spec: Spec, suffix: str = ".json") -> Path:
        """Returns the path of a run's record: a readable name that ends in the key, always within the folder."""
        dataset, method = (re.sub(r"[^\w-]", "_", name.rpartition(":")[2]) for name in (spec.dataset, spec.method))
        return self.folder / f"{dataset}-{method}-r{spec.ratio:g}-s{spec.seed}-{spec.key}{suffix}"

    def scores_path(self, spec: Spec) -> Path:
        """Returns the path of the scores; runs that differ in the ratio alone share them."""
        return Store(self.folder / "scores").path(spec.any_ratio(), ".scores")

    def search_path(self, spec: Spec) -> Path:
        """Returns the path of the search for connections; runs that differ in method and ratio alone share it."""
        return Store(self.folder / "scores").path(spec.reference(), ".search")

    def shared_paths(self, spec: Spec) -> tuple[Path, Path]:
        """Returns the paths of all files that a run may share with others: scores and search."""
        return self.scores_path(spec), self.search_path(spec)

    def find(self, spec: Spec) -> Record | None:
        """Returns the record of a run; None: it has not finished. Raises BadInput where its file is broken."""
        path = self.path(spec)
        if not os.path.exists(path):
            return None
        try:
            return read(path)
        except BadInput as error:
            raise BadInput(f"{path}: {error}; delete it, or train it anew with --again") from None

    def write(self, record: Record) -> Path:
        """Writes a record and removes the run's failure. Returns the record's path."""
        path = self.path(record.spec)
        with atomic(path) as file:
            file.write(json.dumps(record.to_json(), indent=1, allow_nan=False).encode() + b"\n")
        self.path(record.spec, FAILED).unlink(missing_ok=True)
        return path

    def write_failure(self, failure: Failure) -> Path:
        """Writes a failure and returns its path. Its lines come from another process, so they are made printable."""
        lines = [printable(line) for line in failure.last_lines]
        failure = dataclasses.replace(failure, reason=printable(failure.reason), last_lines=lines)
        path = self.path(failure.spec, FAILED)
        with atomic(path) as file:
            file.write(json.dumps(failure.to_json(), indent=1).encode() + b"\n")
        return path

    def find_failure(self, spec: Spec) -> Failure | None:
        """Returns the failure of a run's last try; None where there is none, or its file is damaged."""
        try:
            return Failure.from_json(read_json(self.path(spec, FAILED)))
        except BadInput:
            return None

    def check_writable(self, needed_bytes: int = 0) -> None:
        """Raises BadInput where the folder can't be written or has no room. It is called before hours of training.

        Args:
            needed_bytes: Bytes that checkpoints and records need.
        """
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
    """Returns the record in a file. Raises BadInput where it is no whole record."""
    return Record.from_json(read_json(path))


def read_json(path: Path, limit: int = TEXT_BYTES) -> Any:
    """Returns the content of a JSON file of at most `limit` bytes. Raises BadInput where it can't be read."""
    try:
        return json.loads(read_text(path, limit))
    except Unreadable as error:
        raise BadInput(f"unreadable: {error.reason}") from None
    except (ValueError, RecursionError):
        raise BadInput("not JSON: cut short or damaged") from None


def _json_files(folder: Path, problems: list[str]) -> list[Path]:
    """Returns all paths below the folder that may be records or failures, sorted. Unreadable folders become problems."""

    def refused(error: OSError) -> None:
        problems.append(printable(f"{error.filename}: unreadable: {error.strerror}"))

    walk = os.walk(folder, onerror=refused)
    found = sorted(Path(at, name) for at, folders, names in walk for name in folders + names if name.endswith(".json"))
    return [path for path in found if not path.name.endswith((STUDY, SPEED))]


@uncollected()
def read_all(folders: Iterable[Path]) -> Found:
    """Reads all records and failures below the folders.

    Only the first record of each key counts; another record of the run is a problem. Records beside a note with a line
    "seconds: why" are marked as disturbed.

    Raises:
        BadInput: A folder does not exist.
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
    return Found(list(records.values()), problems, [failure for key, failure in failures.items() if key not in records])


def read_notes(folders: Iterable[Path]) -> list[str]:
    """Returns the remarks in all files `note.txt` below the folders, one line each: 'cifar10: the first ...'.

    Lines that start with "seconds:" are left out, because the records have them (`Record.disturbed`). A line that only
    resembles such a line gets the remark that it excludes nothing.
    """
    paths = {os.path.abspath(path): path for folder in folders for path in Path(folder).rglob(NOTE)}
    remarks = []
    for whole, path in sorted(paths.items()):
        name = printable(Path(whole).parent.name)
        try:
            lines = [line for line in _note(path) if not line.startswith(SECONDS)]
            remarks += [f"{name}: {line}{MEANT if RESEMBLES.match(line) else ''}" for line in lines]
        except BadInput as error:
            remarks.append(f"{name}: {error}")
    return remarks


def _note(path: Path) -> list[str]:
    return [printable(line.strip()) for line in read_text(path).splitlines() if line.strip()]


def _marked(path: Path, record: Record) -> Record:
    """Returns the record, marked as disturbed if the note beside it excludes its seconds."""
    note = path.parent / NOTE
    lines = _note(note) if os.path.lexists(note) else []
    whys = [line.removeprefix(SECONDS).strip() for line in lines if line.startswith(SECONDS)]
    if not whys:
        return record
    why = " ".join(filter(None, whys)) or f"{NOTE} excludes them"
    return dataclasses.replace(record, environment=record.environment | {DISTURBED: why})
