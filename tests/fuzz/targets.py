"""Targets of the fuzzing: each has a strategy of inputs, plain values that a report can show, and a check of an input.

A check runs in an empty folder. It raises where an oracle is broken.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

from sadp_bench.core.errors import BadInput
from sadp_bench.records.file_lock import LEASE, Lock
from sadp_bench.records.record import Failure
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import FAILED, NOTE, Store, read_all
from sadp_bench.reports import FORMATS
from sadp_bench.runs.run import run
from sadp_bench.training.checkpoint import read_state, write_state
from tests.commands import command
from tests.example_records import make_record, make_spec
from tests.fuzz import words
from tests.fuzz.edits import PAYLOADS, damaged, damages, edited, several_edits, state_edits
from tests.fuzz.oracles import (
    active_parts,
    check_answer,
    check_numbers,
    check_record,
    commands_of_tex,
    formulas,
    strict_json,
)
from tests.odd_files import ODD_PLACES
from tests.paths import ROOT
from tests.stopping import Stopped, StopsAt, requested


class Target(NamedTuple):
    """A kind of input.

    Attributes:
        inputs: Its strategy.
        check: Takes an input; runs in an empty folder.
        quick: Inputs in the suite.
        round: Inputs in the long run before the next target has its turn.
    """

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    quick: int
    round: int = 25


# ------------------------------------------------------------------------------------------- records and reports


@functools.cache
def _records() -> list[Any]:
    """Returns the content of records with all that a record may contain."""
    rich = {
        "class_visits": {"cat": 3.5, "dog": 2.0},
        "class_accuracy": {"cat": 0.5, "dog": 0.75},
        "fitted_loss": 0.25,
        "fitted_accuracy": 0.9,
        "fitted_examples": 1000,
        "operations": {"accumulates": 1e6, "multiply_accumulates": 1e3, "energy_joules": 1e-6},
        "ticket": {"seconds": 1.5, "visits": 200},
        "train_memory_bytes": 1000,
        "prepare_examples": 100,
        "prepare": 2.0,
        "interruptions": 1,
    }
    rows = [make_record(make_spec()), make_record(make_spec("random", 0.5), 0.68, 52.0)]
    rows += [make_record(make_spec("sadp", 0.5, seed), 0.69, 50.0 + seed, **rich) for seed in (0, 1)]
    return [row.to_json() for row in rows]


def _rekeyed(data: Any) -> Any:
    """Returns a record whose key fits its edited spec, if that is a spec."""
    try:
        return {**data, "key": Spec.from_json(data["spec"]).key}
    except (BadInput, TypeError, AttributeError, KeyError, ValueError, OverflowError, RecursionError):
        return data


def _to_bytes(document: Any, damage: Any) -> bytes:
    return damaged(json.dumps(document).encode("utf-8", "surrogatepass"), damage)


def check_shown(format: str) -> None:
    """Makes a report of the folder and checks it."""
    answer = command("report", ".", "--format", format)
    check_answer(answer)
    if answer.code == 0:
        if format == "json":
            check_numbers(strict_json(answer.out))
        elif format == "csv":
            assert not formulas(answer.out), f"a formula: {formulas(answer.out)[0][:100]!r}"
        elif format == "html":
            new = [part for part in active_parts(answer.out) if part not in _known_parts()]
            assert not new, f"an active page: {new[0]}"
        elif format == "latex":
            assert not commands_of_tex(answer.out), f"a command of LaTeX: {commands_of_tex(answer.out)[0]}"
    for _, record in read_all([Path()]).records:
        check_record(record)


@functools.cache
def _known_parts() -> frozenset[str]:
    """Returns the script and the like of a page of good records."""
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(_records()):
            (Path(folder) / f"{number}.json").write_text(json.dumps(data))
        return frozenset(active_parts(command("report", folder, "--format", "html").out))


formats = st.sampled_from([format for format in FORMATS if format != "html"])  # which takes seconds, for its plots
record_inputs = st.tuples(st.integers(0, 3), several_edits, st.booleans(), damages, formats)


def check_records(given: Any) -> None:
    which, changes, rekeys, damage, format = given
    for number, data in enumerate(_records()):
        document = edited(data, changes) if number == which else data
        if number == which and rekeys:
            document = _rekeyed(document)
        Path(f"{number}.json").write_bytes(_to_bytes(document, damage if number == which else None))
    check_shown(format)


def check_pages(given: Any) -> None:
    check_records((*given[:4], "html"))


def check_plots(given: Any) -> None:
    which, changes, rekeys, _, _ = given
    for number, data in enumerate(_records()):
        document = edited(data, changes) if number == which else data
        Path(f"{number}.json").write_bytes(_to_bytes(_rekeyed(document) if rekeys else document, None))
    check_answer(command("report", ".", "--plots", "plots"))


failure_inputs = st.tuples(several_edits, st.booleans(), damages, formats)


def check_failures(given: Any) -> None:
    changes, rekeys, damage, format = given
    data = Failure(make_spec("sadp", 0.3), "killed", "2025-01-01T00:00:00+00:00", 2, 0.1, ["last", "lines"]).to_json()
    document = edited(data, changes)
    Path(f"a{FAILED}").write_bytes(_to_bytes(_rekeyed(document) if rekeys else document, damage))
    Path("b.json").write_bytes(_to_bytes(_records()[0], None))
    check_shown(format)


lines = st.lists(
    st.sampled_from(["seconds: other load", "Seconds: x", "seconds x", " seconds:", "A remark.", *PAYLOADS])
)
note_inputs = st.tuples(lines, damages, formats, st.none() | st.sampled_from(sorted(ODD_PLACES)))


def check_notes(given: Any) -> None:
    text, damage, format, odd = given
    for number, data in enumerate(_records()):
        Path(f"{number}.json").write_bytes(_to_bytes(data, None))
    if odd is None:
        Path(NOTE).write_bytes(damaged("\n".join(text).encode("utf-8", "surrogatepass"), damage))
    else:
        ODD_PLACES[odd](Path(NOTE))
    check_shown(format)


@functools.cache
def _study() -> Any:
    """Returns a committed study, cut to four examples and two stops."""
    path = sorted((ROOT / "results" / "studies").glob("cifar10-cnn-*.json"))[0]
    study = json.loads(path.read_text())
    study |= {"examples": 4, "index": study["index"][:4], "stops": study["stops"][:2], "at": study["at"][:2]}
    for stop in study["stops"]:
        tables = [table for sources in stop["examples"].values() for table in [sources]]
        for table in tables:
            table |= {name: values[:4] for name, values in table.items()}
    return study


study_inputs = st.tuples(several_edits, st.booleans(), damages)


def check_studies(given: Any) -> None:
    changes, as_json, damage = given
    Path("a.study.json").write_bytes(_to_bytes(edited(_study(), changes), damage))
    answer = command("study", "--from", "a.study.json", *(["--json"] if as_json else []))
    check_answer(answer, as_json=as_json)


# ------------------------------------------------------------------------------------------- checkpoints and scores


@functools.cache
def _stopped(method: str) -> tuple[Path, Any, Any]:
    """Returns a folder of a run that was stopped between its epochs, and its spec and data."""
    folder = Path(tempfile.mkdtemp(prefix="sadp-bench-fuzz-"))
    spec, material = requested(method, epochs=3, train_examples=68)
    stop = 5 + (2 * 2 * 4 if method == "el2n" else 0)
    try:
        run(spec, material, Store(folder), StopsAt(stop), reference=False, checkpoint_seconds=0.0)
    except Stopped:
        return folder, spec, material
    raise AssertionError("the run was not stopped")


def _finished(spec: Any, material: Any) -> list[str]:
    """Finishes a run in the folder here. Returns its messages."""
    store, progress = Store(Path()), StopsAt()
    try:
        run(spec, material, store, progress, reference=False)
    except BadInput as error:
        assert "\n" not in str(error)
        return [*progress.messages, str(error)]
    found = store.find(spec)
    assert found is not None
    check_record(found)
    return progress.messages


state_inputs = st.tuples(st.sampled_from(["sadp", "infobatch", "random"]), state_edits, damages)


def check_checkpoints(given: Any) -> None:
    method, changes, damage = given
    folder, spec, material = _stopped(method)
    [source] = folder.glob("*.ckpt")
    _check_state(source, Store(Path()).path(spec, ".ckpt"), changes, damage, keep="identity")
    _finished(spec, material)


def check_scores(given: Any) -> None:
    _, changes, damage = given
    folder, spec, material = _stopped("el2n")
    [source] = (folder / "scores").glob("*.scores")
    other = dataclasses.replace(spec, ratio=0.6)
    _check_state(source, Store(Path()).scores_path(other), changes, damage, keep="made_in")
    _finished(other, material)


# torch.save raises these for edits that no file can hold: a quantized tensor, text with half a surrogate, a huge number.
SAVE_ERRORS = (RuntimeError, OverflowError, UnicodeEncodeError, TypeError)


def _check_state(source: Path, place: Path, changes: Any, damage: Any, keep: str) -> None:
    """Writes an edited state with a right checksum, or damages its bytes."""
    state = read_state(source, torch.device("cpu"))
    changed = edited({name: value for name, value in state.items() if name != keep}, changes)
    place.parent.mkdir(exist_ok=True)
    try:
        write_state(place, {**changed, keep: copy.deepcopy(state[keep])})
    except SAVE_ERRORS:  # then the unedited file is damaged instead
        place.write_bytes(source.read_bytes())
    place.write_bytes(damaged(place.read_bytes(), damage))


# ------------------------------------------------------------------------------------------- sweep files and locks


sweep_inputs = st.tuples(words.sweep_tables, damages, st.booleans())


def check_sweeps(given: Any) -> None:
    tables, damage, as_json = given
    Path("sweep.toml").write_bytes(damaged(words.toml(tables).encode("utf-8", "surrogatepass"), damage))
    options = ["--dry-run", *(["--json"] if as_json else [])]
    check_answer(command("sweep", "sweep.toml", "--out", "runs", *options), as_json=as_json)


@functools.cache
def _claim() -> Any:
    """Returns the tables of a claim."""
    return tomllib.loads((ROOT / "sadp_bench" / "claims" / "hardest-subset.toml").read_text(encoding="utf-8"))


claim_inputs = st.tuples(several_edits, damages, st.booleans())


def check_claims(given: Any) -> None:
    changes, damage, as_json = given
    Path("a.toml").write_bytes(damaged(words.toml(edited(_claim(), changes)).encode("utf-8", "surrogatepass"), damage))
    for number, data in enumerate(_records()):
        Path(f"{number}.json").write_bytes(_to_bytes(data, None))
    check_answer(command("claim", "a.toml", "--from", ".", *(["--json"] if as_json else [])), as_json=as_json)


contents = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [b"", b"[]", b"[" * 50_000, b'{"starts": "x"}', b"\n" * 70_000, b"1\nhost\n", b"filelock/2\npid=1\n"]
    ),
    st.builds(
        lambda pid, host, mode, more: f"filelock/2\npid={pid}\nhost={host}\nmode={mode}\n{more}\n".encode(
            "utf-8", "replace"
        ),
        st.sampled_from(["1", "-1", "0", str(2**31 - 1), "9" * 40, "x", ""]),
        st.sampled_from(["elsewhere", "", "x" * 900, "a\x00b"]),
        st.sampled_from(["lease", "exclusive", "shared", ""]),
        st.sampled_from(["", "token=a\nduration=90.0", "token=a\nduration=1e999", "start=1", "duration=nan", "token="]),
    ),
)
places = st.none() | contents | st.sampled_from(sorted(ODD_PLACES))


def check_locks(given: Any) -> None:
    for suffix, content in zip(("", LEASE), given, strict=True):
        path = Path(f"a.lock{suffix}")
        if isinstance(content, str):
            ODD_PLACES[content](path)
        elif content is not None:
            path.write_bytes(content)
    lock = Lock(Path("a.lock"))
    for attempt in (lock.is_held, lock.acquire, lock.is_mine):
        try:
            attempt()
        except BadInput as error:
            assert str(error).isprintable()
    if lock.is_mine():
        assert 1 <= lock.starts <= 70_001
        lock.release(finished=True)


TARGETS = {
    "records": Target(record_inputs, check_records, 8),
    "failures": Target(failure_inputs, check_failures, 5),
    "notes": Target(note_inputs, check_notes, 5),
    "studies": Target(study_inputs, check_studies, 8),
    "checkpoints": Target(state_inputs, check_checkpoints, 6),
    "scores": Target(state_inputs, check_scores, 4),
    "sweep files": Target(sweep_inputs, check_sweeps, 8),
    "claim files": Target(claim_inputs, check_claims, 5),
    "locks": Target(st.tuples(places, places), check_locks, 20),
    "commands": Target(words.lines, words.check_line, 12),
    "pages": Target(record_inputs, check_pages, 0, 3),
    "plots": Target(record_inputs, check_plots, 0, 1),
}
