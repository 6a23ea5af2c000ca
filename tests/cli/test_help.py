"""The help of every command, and the completions of a shell."""

from __future__ import annotations

import os
import re
from typing import Any
from unittest.mock import patch

import pytest

from sadp_bench.cli import app, parsing
from sadp_bench.core import registry
from sadp_bench.records.fields import CHOICES, LOSS_NAMES
from tests.commands import command, refused


def parameters() -> list[tuple[str, Any]]:
    """Returns every option and argument, with its command."""
    return [(name, of) for name in app.COMMANDS for of in parsing.parser(name, app.function(name)).params]


@pytest.mark.parametrize("columns", [80, 120])
def test_every_help_fits_the_terminal_and_contains_every_option(columns: int) -> None:
    with patch("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24))):
        assert all(len(line) <= columns for line in command("-h").out.splitlines())
        for name in app.COMMANDS:
            answer = command(name, "-h")
            assert answer.code == 0 and answer.err == "" and answer.out == command(name, "--help").out
            long = [line for line in answer.out.splitlines() if len(line) > columns]
            assert not long, long
            for of, parameter in parameters():
                if of == name and parameter.param_type_name == "option":
                    words = " ".join(re.split(r"^  (?=-)", answer.out, flags=re.MULTILINE)[1:]).split()
                    assert set(parameter.opts) <= {part for word in words for part in word.strip(",").split("/")}


def test_every_option_has_a_help_a_panel_and_a_short_name_of_its_value() -> None:
    for command_name, parameter in parameters():
        where = f"{command_name} {parameter.name}"
        assert parameter.help and parameter.help.endswith("."), where
        if parameter.param_type_name == "option":
            assert parameter.rich_help_panel, where
            assert parameter.is_flag or parameter.metavar, where
        else:
            assert parameter.metavar, where


def test_the_choices_that_the_help_shows_are_those_that_a_spec_allows() -> None:
    shown = {parameter.name: parameter.metavar for name, parameter in parameters() if name == "run"}
    further = {"precision": {"auto"}, "kernel": {"auto"}, "loss": set(LOSS_NAMES)}
    for name, allowed in CHOICES.items():
        assert set(shown[name].strip("[]").split("|")) == {*allowed, *further.get(name, ())}, name


def test_short_names_of_help_and_version() -> None:
    assert command("-h").out == command("--help").out == command().out
    assert command("-V").out == command("--version").out != ""


def test_an_error_names_the_help_of_its_command() -> None:
    refused(command("run", "--colour", "red"), "--colour", "(see sadp-bench run -h)")
    refused(command("report", "--format"), "--format", "(see sadp-bench report -h)")
    refused(command("run", "--ratio", "0.3"), "--method", "(see sadp-bench run -h)")
    refused(command("rnu"), "'run'", "(see sadp-bench -h)")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sadp-bench sw", ["sweep"]),
        ("sadp-bench run --optimizer ", ["sgd", "adamw"]),
        ("sadp-bench run --clip", ["--clip-norm"]),
        ("sadp-bench run --method random,sad", ["random,sadp"]),
        ("sadp-bench study --dataset dvs", [name for name in registry.table("dataset") if name.startswith("dvs")]),
    ],
)
def test_a_shell_gets_its_completions(line: str, expected: list[str]) -> None:
    asked = {app.COMPLETE: "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    with patch.dict(os.environ, asked):
        assert command().out.split() == expected


def test_the_script_of_a_completion_is_printed_or_refused() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert app.COMPLETE in command("--show-completion", shell).out
    refused(command("--show-completion", "tcsh"), "tcsh", "bash, zsh, fish")
