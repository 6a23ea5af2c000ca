"""Records on disk: one JSON file a run, written beside its place and renamed. The file exists = the run finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, NamedTuple

from sadp_bench.errors import BadInput
from sadp_bench.record import Record
from sadp_bench.spec import Spec


class Found(NamedTuple):
    """What a folder holds: the records, and one line for each file that could not be read."""

    records: list[tuple[Path, Record]]
    problems: list[str]


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is whole, or not at all.

    Raises BadInput where the folder can't be written.
    """
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


class Store:
    """The records of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, spec: Spec) -> Path:
        """Where the record of a run lies: a name for people, ending in the key."""
        method = spec.method.rpartition(":")[2]
        return self.folder / f"{spec.dataset.rpartition(':')[2]}-{method}-r{spec.ratio:g}-s{spec.seed}-{spec.key}.json"

    def find(self, spec: Spec) -> Record | None:
        """The record of a run that has finished. Raises BadInput where its file is there but broken."""
        path = self.path(spec)
        if not path.exists():
            return None
        try:
            return read(path)
        except BadInput as error:
            raise BadInput(f"{path}: {error}; delete it, or train it anew with --again") from None

    def write(self, record: Record) -> Path:
        path = self.path(record.spec)
        with atomic(path) as file:
            file.write(json.dumps(record.to_json(), indent=1, allow_nan=False).encode() + b"\n")
        return path

    def check_writable(self) -> None:
        """Raises BadInput now rather than after hours of training."""
        with_trial = self.folder / ".writable"
        with atomic(with_trial):
            pass
        with_trial.unlink()


def read(path: Path) -> Record:
    """Raises BadInput where the file is no whole record."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"unreadable: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise BadInput("not JSON: cut short or damaged") from None
    return Record.from_json(data)


def read_all(folders: Iterable[Path]) -> Found:
    """All records below the folders, a key once. Raises BadInput where a folder isn't there."""
    records: dict[str, tuple[Path, Record]] = {}
    problems = []
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"no folder {folder}; name one that `sadp-bench run --out DIR` wrote to")
        for path in sorted(folder.rglob("*.json")):
            try:
                record = read(path)
                records.setdefault(record.spec.key, (path, record))
            except BadInput as error:
                problems.append(f"{path}: {error}")
    return Found(list(records.values()), problems)
