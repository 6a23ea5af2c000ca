"""README shows only commands that exist, and figures that committed records give again."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from sadp_bench.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?:^ {4}|&& )(sadp-bench [^#\n`]+)", README, re.MULTILINE)


def test_the_two_commands_that_set_everything_up_are_there():
    assert "pip install . && sadp-bench run --method sadp --ratio 0.3\n" in README
    assert "pip install -e '.[test]' && pytest\n" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shown_command_parses(command):
    _, name, *arguments = shlex.split(command)
    commands = typer.main.get_command(app).commands
    commands[name].make_context(name, arguments)


def test_more_than_a_handful_of_commands_are_shown():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http|#)([^)]+)\)", README))
def test_a_linked_file_is_there(link):
    assert (ROOT / link).exists()


def test_the_table_of_results_is_what_the_committed_records_give():
    from sadp_bench.report import render
    from sadp_bench.store import read_all

    for folder in sorted((ROOT / "results").iterdir()):
        found, own = read_all([folder]), folder / "README.md"
        assert not found.problems
        if folder.name == "studies":
            continue
        shown = own.read_text(encoding="utf-8") if own.exists() else README
        rows = [
            line
            for line in render([r for _, r in found.records], format="markdown").splitlines()
            if line.startswith("|")
        ]
        missing = [row for row in rows if row not in shown]
        assert not missing, f"{folder.name}: its README, or the main one, lacks {missing}"
