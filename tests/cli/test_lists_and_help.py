"""`sadp-bench list`, `doctor` and the help, and the modules that they import."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from sadp_bench.cli import doctor, waiting
from sadp_bench.cli.listing import GROUPS
from sadp_bench.core import registry
from sadp_bench.records import store
from tests.commands import comes, command
from tests.example_records import make_record, make_spec
from tests.paths import ROOT


def test_list_gives_each_name_its_line_and_source() -> None:
    for kind, of in (("methods", "method"), ("backbones", "backbone"), ("datasets", "dataset")):
        found = json.loads(command("list", kind, "--json").out)
        assert [entry["name"] for entry in found] == list(registry.table(of))
        assert all(entry["summary"] and entry["source"] for entry in found)
        text = command("list", kind).out
        assert all(len(line) <= 120 for line in text.splitlines())
        for entry in found:
            assert re.search(rf"^ *{entry['name']} ", text, re.MULTILINE), entry
            assert entry["summary"] in " ".join(text.split())


def test_methods_are_listed_by_group_with_paper_year_and_cost_of_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = {"highest-loss": "tests.cli.test_lists_and_help:HighestLoss"}
    table = registry.table("method") | stranger
    monkeypatch.setattr(registry, "table", lambda kind: table)
    found = {entry["name"]: entry for entry in json.loads(command("list", "methods", "--json").out)}
    for entry in found.values():
        paper = entry["group"] not in ("reference", "other") and entry["name"] != "subset"
        assert not paper or re.search(r"(19|20)\d\d\b(?!\.\d)", entry["source"]), f"{entry} has no year"
        assert entry["group"] == "other" or entry["scoring"], f"{entry} has no cost of scoring"
    assert [name for name, entry in found.items() if entry["group"] == "other"] == [*stranger]
    assert {name: found[name]["group"] for name in ("full", "fewer-epochs", "el2n", "random")} == {
        "full": "reference", "fewer-epochs": "reference", "el2n": "static", "random": "dynamic"
    }  # fmt: skip
    text = command("list", "methods").out
    blocks = dict(re.findall(r"^(\w[^\n]*) ─+\n(.*?)(?=^[\w`]|\Z)", text, re.MULTILINE | re.DOTALL))
    shown = {
        name.partition(":")[0].lower(): re.findall(r"^  (\S+) ", block, re.MULTILINE) for name, block in blocks.items()
    }
    groups = [entry["group"] for entry in found.values()]
    assert shown == {group: [n for n, e in found.items() if e["group"] == group] for group in GROUPS if group in groups}
    assert list(shown) == [group for group in GROUPS if group in groups]
    el2n = " ".join(text.partition("  el2n ")[2].split())
    assert "NeurIPS 2021. Scoring: a tenth of the run and a pass." in el2n
    assert 'Keeps examples. Nobody & Noone, "A Title That Wraps", JOURNAL 2020.' in " ".join(text.split())


class HighestLoss:
    """Keeps examples.

    Source: Nobody & Noone, "A Title
        That Wraps", JOURNAL 2020.
    Args: none
    """


def test_doctor_reports_versions_device_data_and_whose_baselines(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-bin").mkdir()
    found = json.loads(command("doctor", "--data", tmp_path, "--json").out)
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert {"python", "spikingjelly", "device", "kernel", "bf16", "threads"} <= set(found)
    assert found["baselines"] is None and found["data_root"] == str(tmp_path)
    assert set(found["datasets"]) == set(registry.table("dataset"))
    assert found["datasets"]["digits"] and found["datasets"]["cifar10"] is None
    assert set(found["extras"]) == set(doctor.EXTRAS)
    text = command("doctor", "--data", tmp_path)
    assert text.code == 0 and text.out.startswith("sadp-bench ")
    assert re.search(r"^ +✓ +baselines +ours", text.out, re.MULTILINE)
    for name, place in found["datasets"].items():
        [mark] = re.findall(rf"^ +(.) +{name} ", text.out.partition("Data sets in")[2], re.MULTILINE)
        assert (mark == "✓") is bool(place), name


def test_doctor_says_for_each_missing_part_what_to_do(tmp_path: Path) -> None:
    found = doctor.examine(tmp_path) | {"extras": dict.fromkeys(doctor.EXTRAS), "torchvision": None}
    found |= {"c_core_absent": "the C core was not built: install", "baselines": "/elsewhere", "bf16": False}
    panels = [{row.name: row for row in rows} for rows in doctor.findings(found).values()]
    of_extras, rows = panels[2], {**panels[2], **panels[0], **panels[3]}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"test", "docs"}
    for extra, (package, _) in doctor.EXTRAS.items():
        assert extras[extra] == [package] and of_extras[extra].fine is False
        assert f"pip install 'sadp-bench[{extra}]'" in of_extras[extra].text
    assert "pip install torchvision" in of_extras["torchvision"].text
    for name, advice in {
        "baselines": "pip uninstall baselines",
        "C core": "install",
        "cifar10": "downloads it",
        "nmnist": "`sadp-bench list datasets nmnist`",
        "npz": "--set dataset.file=PATH",
        "hf": "--dataset hf:NAME",
    }.items():
        assert advice in rows[name].text, name
    assert "Repair baselines first." in doctor.doctor_text(found).rpartition("\n\n")[2]


def test_doctor_has_words_where_the_terminal_has_no_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = doctor.examine(tmp_path)
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as plain:
        monkeypatch.setattr(sys, "stdout", plain)
        text = doctor.doctor_text(found)
    assert text.isascii() and re.search(r"^  ok digits ", text, re.MULTILINE)
    assert re.search(r"^  -- cifar10 ", text, re.MULTILINE)


def test_a_terminal_sees_that_pytorch_loads_and_nothing_of_it_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", shown)
    with waiting.loading(quiet=True):
        pass
    assert shown.getvalue() == ""
    with waiting.loading():
        assert comes(lambda: "loading PyTorch" in shown.getvalue())
    assert shown.getvalue().endswith(waiting.ERASE)


def test_doctor_finds_the_real_data(real_data: Path) -> None:
    found = json.loads(command("doctor", "--data", real_data, "--json").out)["datasets"]
    assert found["cifar10"] == str(real_data / "cifar-10-batches-bin")


def test_nothing_requested_is_help() -> None:
    for words in ([], ["--help"]):
        answer = command(*words)
        assert answer.code == 0 and answer.err == ""
        assert all(name in answer.out for name in ("run", "report", "speed", "list", "doctor"))


def test_help_list_and_report_import_no_more_than_they_need(tmp_path: Path) -> None:
    """One process calls all commands, so the commands that may import least come first."""
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
            (bare, ["list", "methods", "sadp"]),
            (bare, ["list", "backbones", "cnn", "--json"]),
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
