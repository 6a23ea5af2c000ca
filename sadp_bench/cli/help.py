"""The help of a command: usage, description, examples, and options in panels."""

from __future__ import annotations

import inspect
import re
from typing import Any

from typer.core import TyperCommand

from sadp_bench.cli.terminal import BOLD, CYAN, DIM, columns, hanging, heading, styled

WHAT = "What to train"
OPTIMISATION = "Optimisation"
AXES = "Time and weights"
WHERE = "Where and how long"
OUTPUT = "Output"
GIVEN, OTHERS = "Arguments", "Options"
PANELS = (GIVEN, WHAT, OPTIMISATION, AXES, OTHERS, WHERE, OUTPUT)  # in this order; further panels follow `OTHERS`
INDENT = 28  # columns before the text of an option
DEFAULT, UNBROKEN = re.compile(r"\[default: [^\]]*\]"), "\xa0"


class PanelCommand(TyperCommand):
    """A command whose help has a panel for each `rich_help_panel` of its options. `OTHERS` contains options without one."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help in the terminal's width."""
        formatter.write(help_text(self, ctx) + "\n")


def help_text(command: Any, ctx: Any) -> str:
    """Returns the help of a command.

    Args:
        command: The command of Typer. In its help, a paragraph with indented lines is not wrapped.
        ctx: The command's context.
    """
    width, panels = columns(), _panels(command, ctx)
    words = [_argument(parameter) for parameter in command.params if parameter.param_type_name == "argument"]
    lines = [f"{styled('Usage:', BOLD)} {' '.join([ctx.command_path, *words, '[OPTIONS]'])}"]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        verbatim = paragraph.startswith(" ") or "\n " in paragraph
        lines += ["", *(_example(paragraph) if verbatim else hanging(" ".join(paragraph.split()), "", 0, width))]
    known = [name for name in PANELS if name in panels]
    further = [name for name in panels if name not in PANELS]
    for name in sorted([*known, *further], key=lambda name: PANELS.index(name if name in PANELS else OTHERS)):
        lines += ["", heading(name, width)]
        for names, text in panels[name]:
            lines += _entry(names, text, width)
    return "\n".join(lines)


def _example(paragraph: str) -> list[str]:
    """Returns the lines of 'Examples:' and the commands below it."""
    return [styled(line, BOLD) if not line.startswith(" ") else line for line in paragraph.splitlines()]


def _panels(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Returns the names and the text of each option, by panel."""
    found: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        if getattr(parameter, "hidden", False):
            continue
        argument = parameter.param_type_name == "argument"
        last = OUTPUT if parameter.name == "help" else OTHERS
        panel = getattr(parameter, "rich_help_panel", None) or (GIVEN if argument else last)
        found.setdefault(panel, []).append((_names(parameter), _text(parameter)))
    return found


def _argument(parameter: Any) -> str:
    """Returns an argument for the usage line: 'FILE', or '[DIR]...' where it may be left out or repeated."""
    name = parameter.metavar or parameter.name.upper()
    return (
        ("" if parameter.required else "[") + name + ("" if parameter.required else "]") + "..." * (parameter.nargs < 0)
    )


def _names(parameter: Any) -> str:
    """Returns '-q, --quiet', '--nesterov/--no-nesterov', '--ratio X' or an argument's 'FILE'."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join(sorted(parameter.opts, key=len))
    names += "".join(f"/{name}" for name in parameter.secondary_opts)
    return names if parameter.is_flag else f"{names} {parameter.metavar or parameter.name.upper()}"


def _text(parameter: Any) -> str:
    """Returns the meaning of an option, and its default."""
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    flag = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
    if parameter.required:
        shown = "[required]"
    elif default is None or default == "" or flag or parameter.name == "help":
        shown = ""
    else:
        shown = f"[default: {f'{default:g}' if isinstance(default, float) else default}]"
    return f"{parameter.help or ''}  {shown}".strip()


def _entry(names: str, text: str, width: int) -> list[str]:
    """Returns the lines of an option. Its default is not broken over lines."""
    whole = DEFAULT.sub(lambda found: found[0].replace(" ", UNBROKEN), text)
    lines = [line.replace(UNBROKEN, " ") for line in hanging(whole, f"  {names}  ", INDENT, width)]
    first, *others = (DEFAULT.sub(lambda found: styled(found[0], DIM), line) for line in lines)
    return [first.replace(names, styled(names, CYAN), 1), *others]
