"""The documents show commands that parse, and links, paths and names that exist; the how-tos work."""

from __future__ import annotations

import json
import pkgutil
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from sadp_bench.cli import app, parsing
from sadp_bench.cli.listing import group_of
from sadp_bench.core import registry
from sadp_bench.sparsity import SPARSITIES
from tests.paths import ROOT, text

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "experiments" / "README.md"]
MAX_README_LINES = 130


def test_the_readme_is_short_and_shows_the_two_commands() -> None:
    lines = text("README.md").splitlines()
    assert len(lines) <= MAX_README_LINES
    assert "    pip install . && sadp-bench run --method sadp --ratio 0.3" in lines
    assert "    pip install -e '.[test]' && pytest" in lines


def test_the_table_of_options_has_every_registered_name() -> None:
    rows = dict(re.findall(r"^\| `--(\w+)` \| (.+) \|$", text("README.md"), re.MULTILINE))
    for option, names in {
        "dataset": registry.table("dataset"), "backbone": registry.table("backbone"), "sparsity": SPARSITIES,
    }.items():  # fmt: skip
        words = re.findall(r"`(.*?)`", rows[option])
        assert {word.partition(":")[0] for word in words if not word.startswith("--")} == set(names), option
    methods = re.findall(r"`(.*?)`", rows["method"])
    assert set(methods) <= set(registry.table("method"))
    assert f"and {len(registry.table('method')) - len(methods)} others" in rows["method"]


def test_every_shown_command_parses() -> None:
    shown = 0
    for page in PAGES:
        for line in re.findall(
            r"(?:^ {4}|&& )(sadp-bench [^#\n`]+)", page.read_text(encoding="utf-8").replace("\\\n", " "), re.MULTILINE
        ):
            _, name, *arguments = shlex.split(line)
            try:
                parsing.parser(name, app.function(name)).make_context(name, arguments)
            except Exception as error:
                pytest.fail(f"{page.name} shows `{line.strip()}`: {error}")
            shown += 1
    assert shown > 20


def test_every_link_leads_to_a_file() -> None:
    links = [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    absent = [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()]
    assert len(links) > 40, len(links)
    assert not absent, absent


def test_every_path_in_code_style_exists() -> None:
    """`sadp_bench/pruners/sadp.py`, `tests/...`, `experiments/...`: a moved file leaves no stale path behind."""
    rooms = r"`((?:sadp_bench|baselines|tests|experiments|docs|results)/[\w./-]*)`"
    named = [(page, path) for page in PAGES for path in re.findall(rooms, page.read_text(encoding="utf-8"))]
    absent = [f"{page.name}: {path}" for page, path in named if not (ROOT / path).exists()]
    assert len(named) > 25 and not absent, absent


def test_every_module_in_code_style_imports() -> None:
    absent = []
    for page in PAGES:
        for name in re.findall(r"`(sadp_bench(?:\.[a-z_0-9]+)+)", page.read_text(encoding="utf-8")):
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError):
                absent.append(f"{page.name}: {name}")
    assert not absent, absent


def test_the_map_names_every_package_on_its_floor() -> None:
    floors = tomllib.loads(text("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    floor_of = {name.strip(): floor for floor, names in enumerate(reversed(floors)) for name in names.split("|")}
    shown = {
        name: int(floor)
        for floor, name in re.findall(
            r"^\| (\d+) \| `sadp_bench/(\w+)(?:/|\.py)` \|", text("CONTRIBUTING.md"), re.MULTILINE
        )
    }
    packages = {path.parent.name for path in (ROOT / "sadp_bench").glob("*/__init__.py")}
    assert packages <= set(shown), packages - set(shown)
    assert shown == {name: floor_of[name] for name in shown}


def test_the_documents_name_no_machine_and_no_issue() -> None:
    private = re.compile(r"/(?:work|tmp|home|root)/|\bissue #?\d|\bsession\b", re.IGNORECASE)
    found = [f"{page.name}: {word}" for page in PAGES for word in private.findall(page.read_text(encoding="utf-8"))]
    assert not found, found


# ------------------------------------------------------------------------------------------- tables of the records


# ------------------------------------------------------------------------------------------- code in the documents


def test_the_pruner_of_the_how_to_meets_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sadp_bench.testing import check_pruner

    [example] = re.findall(r"```python\n(.*?)```", text("CONTRIBUTING.md"), re.DOTALL)
    (tmp_path / "pruner_of_the_how_to.py").write_text(example)
    monkeypatch.syspath_prepend(str(tmp_path))
    check_pruner("pruner_of_the_how_to:HighestLoss", {"memory": 0.5})


def test_the_data_set_of_the_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.commands import command

    [example] = re.findall(r"```python\n(.*?)```", text("docs/data.md"), re.DOTALL)
    (tmp_path / "data_of_the_page.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = "--dataset data_of_the_page:Squares --method random --ratio 0.5 --epochs 2 --threads 1 --quiet".split()
    answer = command("run", *words, "--train-examples", 256, "--out", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2


def test_the_page_of_methods_has_a_paragraph_and_a_picture_of_every_method() -> None:
    page = text("docs/methods.md")
    headings = {
        "Reference": "reference",
        "Static": "static",
        "Dynamic": "dynamic",
        "Within the batch": "within the batch",
    }
    described = {}
    for part in page.split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        described |= dict.fromkeys(re.findall(r"\n\n`([\w-]+)`[ ,]", body), headings[heading])
    assert described == {entry.name: group_of(entry) for entry in registry.entries("method")}
    pictured = json.loads(text("docs/methods/visits.json"))["shares"]
    assert set(pictured) == set(described) - {"full", "ceiling", "subset"}
