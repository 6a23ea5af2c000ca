"""A record is whole or absent, is read back as it was, and no damaged file hides the good ones."""

import dataclasses
import itertools
import json
import os

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.records.former import LATER
from sadp_bench.records.record import Failure, Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import MEANT, Store, atomic, read, read_all, read_notes
from sadp_bench.reports import render
from sadp_bench.sweeps.sweep_file import read_sweep
from tests.commands import command, tiny_run
from tests.disks import fill, foreign_folder, small_disk, unprivileged
from tests.example_records import make_record, make_spec
from tests.records.damages import DAMAGES


def test_record_comes_back_equal_from_a_path_with_spaces_and_unicode(tmp_path):
    spec = make_spec("sadp", 0.3, dataset="日本:Größe", method_options={"score": "café", "smoothing": 0.1})
    record = make_record(spec)
    store = Store(tmp_path / "with space" / "Ünïcode 日本")
    path = store.write(record)
    assert path.name == f"Größe-sadp-r0.3-s0-{record.spec.key}.json"
    assert read(path) == store.find(record.spec) == record
    assert read_all([tmp_path]) == ([(path, record)], [], [])


def test_run_that_has_not_finished_is_not_found(tmp_path):
    assert Store(tmp_path).find(make_spec()) is None


def test_broken_record_is_an_error_that_states_what_to_do(tmp_path):
    store = Store(tmp_path)
    store.path(make_spec()).write_text("{")
    with pytest.raises(BadInput, match="cut short or damaged; delete it, or train it anew with --again"):
        store.find(make_spec())


def test_write_that_fails_leaves_the_older_record_and_no_other_file(tmp_path):
    store = Store(tmp_path)
    good = make_record(make_spec())
    path = store.write(good)
    for bad in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            store.write(dataclasses.replace(good, test_accuracy=bad))
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "a.json") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert read(path) == good
    assert os.listdir(tmp_path) == [path.name]


def test_record_that_no_longer_fits_on_the_disk_leaves_the_older_one_whole():
    with small_disk() as disk:
        good = make_record(make_spec())
        path = Store(disk).write(good)
        fill(disk)
        names = sorted(os.listdir(disk))
        for longer in (good, dataclasses.replace(good, epochs=good.epochs * 5000)):
            with pytest.raises(BadInput, match="can't write .*: No space left on device; choose another folder"):
                Store(disk).write(longer)
        with pytest.raises(BadInput, match="No space left on device"):
            Store(disk).write_failure(Failure(make_spec("sadp", 0.3), "killed", "2025"))
        assert read(path) == good and sorted(os.listdir(disk)) == names


def test_run_whose_disk_fills_up_meanwhile_is_one_line_and_leaves_the_older_record(monkeypatch):
    class Filling(Progress):
        def epoch(self, row, num_examples):
            fill(disk)

    with small_disk("8m") as disk:
        assert tiny_run("full", 0, disk, "--quiet").code == 0
        [path] = disk.glob("*.json")
        before = path.read_bytes()
        monkeypatch.setattr("sadp_bench.cli.run_view.reporter", lambda quiet: Filling())
        answer = tiny_run("full", 0, disk, "--again")
        assert answer.code == 2 and answer.out == "" and answer.err.count("\n") == 1
        assert "No space left on device" in answer.err
        assert path.read_bytes() == before and not list(disk.glob(".*.part"))
        answer = tiny_run("full", 0, disk, "--again")  # now it is full from the start
        assert answer.code == 2 and answer.err.count("\n") == 1 and path.read_bytes() == before
        fill(disk)
        answer = command("report", disk, "--to", disk / "report.md")
        assert answer.code == 2 and "No space left on device" in answer.err and not (disk / "report.md").exists()


def test_folder_of_somebody_else_is_one_line_and_its_records_stay():
    with foreign_folder() as folder:
        good = make_record(make_spec())
        path = Store(folder).write(good)
        assert command("report", folder).code == 0  # all that is imported on the way is imported now
        with unprivileged(folder):
            for attempt in (Store(folder).check_writable, lambda: Store(folder).write(good)):
                with pytest.raises(BadInput, match="can't write .*: Permission denied; choose another folder"):
                    attempt()
            answer = command("report", folder, "--to", folder / "report.md")
        assert answer.code == 2 and answer.err.count("\n") == 1 and "Permission denied" in answer.err
        assert read(path) == good and os.listdir(folder) == [path.name]


def test_what_may_not_be_read_is_named_and_the_others_are_read():
    with foreign_folder() as folder:
        Store(folder).write(make_record(make_spec()))
        closed, hidden = folder / "closed.json", folder / "hidden"
        closed.write_text("{}")
        closed.chmod(0)
        hidden.mkdir(mode=0)
        with unprivileged(folder):
            found = read_all([folder])
        hidden.chmod(0o755)
        assert len(found.records) == 1
        assert sorted(found.problems) == [f"{path}: unreadable: Permission denied" for path in (closed, hidden)]


def test_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "below")
    for attempt in (store.check_writable, lambda: store.write(make_record(make_spec()))):
        with pytest.raises(BadInput, match="can't write .*; choose another folder"):
            attempt()
    Store(tmp_path).check_writable()
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(BadInput, match="MiB left"):
        Store(tmp_path).check_writable(needed_bytes=1 << 60)


def test_files_respect_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        path = Store(tmp_path).write(make_record(make_spec()))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_damaged_files_are_named_and_the_others_are_read(tmp_path):
    good = make_record(make_spec())
    Store(tmp_path / "a").write(good)
    data = make_record(make_spec("random", 0.5)).to_json()
    bad = tmp_path / "b" / "bad.json"
    bad.parent.mkdir()
    for name, (damage, message) in DAMAGES.items():
        bad.write_text(damage(data))
        found = read_all([tmp_path])
        assert [record for _, record in found.records] == [good], name
        [problem] = found.problems
        assert problem.startswith(f"{bad}: ") and "\n" not in problem, name
        with pytest.raises(BadInput, match=message):
            read(bad)


def test_bytes_that_are_no_text_and_folders_and_pipes_named_like_records_are_problems(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.json").mkdir()
    os.mkfifo(tmp_path / "c.json")
    records, problems, _ = read_all([tmp_path])
    assert records == []
    assert [problem.rpartition(": ")[2] for problem in problems] == [
        "no UTF-8 text (byte 0)",
        "no regular file",
        "no regular file",
    ]


ODD = (None, "x", [], {}, -1, float("nan"), [None], {"train": "1"}, 10**400, True, 1e308)


def test_record_with_any_odd_value_is_a_problem_or_can_be_reported(tmp_path):
    data = make_record(make_spec("random", 0.5, protocol="updates")).to_json()
    read_well = 0
    for field, value in itertools.product([f.name for f in dataclasses.fields(Record) if f.name != "spec"], ODD):
        (tmp_path / "odd.json").write_text(json.dumps(data | {field: value}))
        records, problems, _ = read_all([tmp_path])
        assert len(records) + len(problems) == 1, f"{field} = {value}"
        read_well += len(records)
        assert not records or render([record for _, record in records], problems, "markdown"), f"{field} = {value}"
    assert read_well > 10, "values that are allowed are read"


def test_record_found_in_two_folders_counts_once(tmp_path):
    for folder in ("a", "b"):
        Store(tmp_path / folder).write(make_record(make_spec()))
    assert len(read_all([tmp_path, tmp_path / "a"]).records) == 1


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(BadInput, match="no folder"):
        read_all([tmp_path / "nowhere"])


CHANGES = {
    "method": "random", "ratio": 0.1, "dataset": "cifar10", "backbone": "mlp", "epochs": 11, "batch_size": 65,
    "timesteps": 5, "optimizer": "adamw", "learning_rate": 0.2, "schedule": "constant", "weight_decay": 0.0,
    "augment": "crop", "loss": "step", "precision": "bf16", "threads": 2, "device": "cuda", "seed": 1,
    "train_examples": 999, "protocol": "updates", "evaluate_on": "validation", "evaluate_every": 2,
    "method_options": {"fresh": True}, "backbone_options": {"width": 33}, "processes": 2,
    "sparsity": "pq", "density": 0.5, "early_time": True, "sparsity_options": {"p": 0.25}, "kernel": "native",
    "lr_clock": "visits", "budget": "falling", "dataset_options": {"side": 64}, "label_smoothing": 0.1,
    "warmup_epochs": 2.0, "momentum": 0.8, "nesterov": True, "clip_norm": 1.0, "ema": 0.99,
}  # fmt: skip


def test_key_changes_with_every_field():
    spec = make_spec()
    assert {*CHANGES, "backprop", "k", "mse_weight"} == {f.name for f in dataclasses.fields(spec)}
    keys = {dataclasses.replace(spec, **{name: value}).key for name, value in CHANGES.items()}
    for backprop, k in (("sltt", 0), ("sltt-k", 1), ("sltt-k", 2)):  # which need a loss of each step
        keys.add(dataclasses.replace(spec, loss="step", backprop=backprop, k=k).key)
    keys |= {dataclasses.replace(spec, loss="step-mse", mse_weight=weight).key for weight in (0.05, 0.1)}
    assert len(keys | {spec.key}) == len(CHANGES) + 3 + 2 + 1


def test_fields_that_came_later_leave_older_records_their_key():
    spec = make_spec()
    older = {name: value for name, value in spec.to_json().items() if name not in LATER}
    assert Spec.from_json(older) == spec
    assert spec.key == "1b25266b06f1"


def test_a_failure_is_found_until_its_run_has_a_record(tmp_path):
    store, spec = Store(tmp_path), make_spec("sadp", 0.3)
    failure = Failure(spec, "mean loss nan in epoch 3", "2025-01-01T00:00:00+00:00", 2, 0.1, ["last", "lines"], 2)
    path = store.write_failure(failure)
    assert read_all([tmp_path]) == ([], [], [failure])
    found = store.write(make_record(spec)), make_record(spec)
    assert not path.exists() and read_all([tmp_path]) == ([found], [], [])


def test_a_failure_is_read_back_whatever_its_process_printed(tmp_path):
    failure = Failure(make_spec("sadp", 0.3), "killed\n", "2025", last_lines=["\x1b[2K 3/4\r", "a\tb", "日本"])
    Store(tmp_path).write_failure(failure)
    [found] = read_all([tmp_path]).failures
    assert (found.reason, found.last_lines) == ("killed\\n", ["\\x1b[2K 3/4\\r", "a\\tb", "日本"])


def test_failure_with_any_odd_value_is_a_problem_or_can_be_reported(tmp_path):
    data = Failure(make_spec("sadp", 0.3), "killed", "2025", 2, 0.1).to_json()
    names = [f.name for f in dataclasses.fields(Failure) if f.name != "spec"]
    contents = {f"{name} = {odd}": json.dumps(data | {name: odd}) for name, odd in itertools.product(names, ODD)}
    damaged = ("empty", "list", "newer schema", "edited key", "unknown field", "spec is null")
    for name, content in (contents | {name: DAMAGES[name][0](data) for name in damaged}).items():
        (tmp_path / "odd.failed.json").write_text(content)
        records, problems, failures = read_all([tmp_path])
        assert not records and len(problems) + len(failures) == 1 and not (name in damaged and failures), name
        assert render([make_record(make_spec())], problems, "markdown", failures=failures), name


def test_a_file_name_cannot_steer_the_terminal(tmp_path):
    for name in ("\x1b[2J.json", "a\nb.json", os.fsdecode(b"\xff.json")):
        (tmp_path / name).write_text("")
    problems = read_all([tmp_path]).problems
    assert len(problems) == 3 and all(problem.isprintable() for problem in problems)


def test_no_name_leads_out_of_the_folder(tmp_path):
    spec = make_spec("../../m:..", dataset="a:../../../b c/d")
    assert Store(tmp_path).path(spec).parent == tmp_path


def test_key_has_neither_the_order_of_options_nor_0_from_0_point_0():
    assert make_spec(method_options={"a": 1, "b": 2}).key == make_spec(method_options={"b": 2, "a": 1}).key
    assert make_spec(ratio=0, learning_rate=1, weight_decay=0).key == make_spec(learning_rate=1.0, weight_decay=0.0).key


def test_a_byte_order_mark_changes_no_text_file(tmp_path):
    for encoding in ("utf-8", "utf-8-sig"):
        folder = tmp_path / encoding
        record = make_record(make_spec())
        path = Store(folder).write(record)
        path.write_text(path.read_text(), encoding=encoding)
        (folder / "note.txt").write_text("seconds: others trained.\nMade in a storm.\n", encoding=encoding)
        (folder / "sweep.toml").write_text('[[sweep]]\nmethod = "random"\nratio = 0.5\n', encoding=encoding)
        [(_, found)] = read_all([folder]).records
        assert found.spec == record.spec and found.disturbed == "others trained.", encoding
        assert read_notes([folder]) == [f"{encoding}: Made in a storm."], encoding
        [run] = read_sweep(folder / "sweep.toml")
        assert run.fields["method"] == "random", encoding


def test_a_line_that_only_looks_like_one_about_seconds_is_said(tmp_path):
    Store(tmp_path).write(make_record(make_spec()))
    for line in ("Seconds: x", "second: x", "seconds : x", "SECONDS=x", "- seconds: x", "secs: x", "timings: x"):
        (tmp_path / "note.txt").write_text(line)
        assert read_notes([tmp_path]) == [f"{tmp_path.name}: {line}{MEANT}"], line
        assert read_all([tmp_path]).records[0][1].disturbed is None, line
    for line in ("So times do not count.", "Seconds count.", "Made in 30 seconds: quick"):
        (tmp_path / "note.txt").write_text(line)
        assert read_notes([tmp_path]) == [f"{tmp_path.name}: {line}"], line
    (tmp_path / "note.txt").write_text("seconds:\n")
    assert read_all([tmp_path]).records[0][1].disturbed and read_notes([tmp_path]) == []
