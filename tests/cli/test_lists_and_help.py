"""`sadp-bench list`, `doctor` and the help, and the modules that they import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from sadp_bench.core import registry
from sadp_bench.records import store
from tests.commands import command
from tests.example_records import make_record, make_spec


def test_list_gives_each_name_its_line_and_source() -> None:
    for kind, of in (("methods", "method"), ("backbones", "backbone"), ("datasets", "dataset")):
        found = json.loads(command("list", kind, "--json").out)
        assert [entry["name"] for entry in found] == list(registry.table(of))
        assert all(entry["summary"] and entry["source"] for entry in found)
        text = command("list", kind).out.splitlines()
        for entry, line, source in zip(found, text[::2], text[1::2], strict=True):
            assert line.split()[0] == entry["name"] and line.endswith(entry["summary"])
            assert source.strip() == entry["source"]


def test_doctor_reports_versions_device_data_and_whose_baselines(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-bin").mkdir()
    found = json.loads(command("doctor", "--data", tmp_path, "--json").out)
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert {"python", "spikingjelly", "device", "kernel", "bf16", "threads"} <= set(found)
    assert found["baselines"] is None and found["data_root"] == str(tmp_path)
    assert set(found["datasets"]) == set(registry.table("dataset"))
    assert found["datasets"]["digits"] and found["datasets"]["cifar10"] is None
    text = command("doctor", "--data", tmp_path)
    assert text.code == 0 and re.search(r"^baselines +ours$", text.out, re.MULTILINE)
    assert re.search(r"^cifar10 +absent$", text.out, re.MULTILINE)


def test_doctor_finds_the_real_data(real_data: Path) -> None:
    found = json.loads(command("doctor", "--data", real_data, "--json").out)["datasets"]
    assert found["cifar10"] == str(real_data / "cifar-10-batches-bin")


def test_nothing_requested_is_help() -> None:
    for words in ([], ["--help"]):
        answer = command(*words)
        assert answer.code == 0 and answer.err == ""
        assert all(name in answer.out for name in ("run", "report", "speed", "list", "doctor"))


def test_help_list_and_report_import_no_more_than_they_need(tmp_path: Path) -> None:
    """The commands come in the order of what they may import, as one process calls them all."""
    store.Store(tmp_path).write(make_record(make_spec()))
    code = f"""if True:
        import sys
        before = set(sys.modules)
        from sadp_bench.cli.app import main
        slow = {{"torch", "numpy", "pandas", "scipy", "matplotlib"}}
        bare = slow | {{"typer", "rich", "dataclasses", "inspect"}}
        for banned, words in (
            (bare | {{"importlib.metadata"}}, ["--help"]),
            (bare | {{"importlib.metadata"}}, ["--version"]),
            (bare, ["list", "methods"]),
            (bare, ["list", "datasets", "--json"]),
            (slow | {{"rich"}}, ["run", "--help"]),
            (slow | {{"rich"}}, ["list", "--help"]),
            (slow, ["report", {str(tmp_path)!r}]),
        ):
            try:
                main(words)
            except SystemExit as end:
                assert not end.code, (words, end.code)
            imported = banned & (set(sys.modules) - before)
            assert not imported, (words, imported)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_m_works() -> None:
    done = subprocess.run([sys.executable, "-m", "sadp_bench", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("sadp-bench ")
