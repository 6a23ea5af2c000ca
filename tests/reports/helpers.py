"""Records and rows for the tests of reports."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from sadp_bench.records.spec import Spec
from tests.example_records import ENVIRONMENT, make_record, make_spec

# 5.5 in is the width of NeurIPS' text.
DOCUMENT = (
    r"\documentclass{article}\usepackage{booktabs}\setlength{\textwidth}{5.5in}"
    r"\begin{document}\input{report}\end{document}"
)


def pdflatex(folder: Path, report: str) -> str:
    """Returns what pdflatex prints about an article with the report."""
    (folder / "report.tex").write_text(report, encoding="utf-8")
    (folder / "document.tex").write_text(DOCUMENT)
    words = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def example_records():
    """Returns records of two tables: one with a run of another environment, one without its reference."""
    slower = ENVIRONMENT | {"threads": 2}
    return [
        make_record(make_spec("sadp", 0.3, 1), 0.73, 77, prepare=11),
        make_record(make_spec("sadp", 0.3, 0), 0.71, 70, prepare=10),
        make_record(make_spec("random", 0.5, 0), 0.66, 50),
        make_record(make_spec("random", 0.3, 0), 0.69, 80),
        make_record(make_spec("random", 0.3, 1), 0.70, 80),
        make_record(make_spec("el2n", 0.5, 0), 0.60, 60, environment=slower),
        make_record(make_spec("fewer-epochs", 0.5, 0), 0.68, 51.0),
        make_record(make_spec(seed=0), 0.70, 100),
        make_record(make_spec(seed=1), 0.72, 110),
        make_record(make_spec("sadp", 0.3, timesteps=2, evaluate_on="validation"), 0.5, 40),
    ]


def row_of(table, label, ratio):
    [row] = [row for row in table if (row.label, row.ratio) == (label, ratio)]
    return row


def spec_of(words: list[str]) -> Spec:
    """Returns the spec that the command line makes of the options, each read by the type of its field."""
    types = {name: type(value) for name, value in make_spec().to_json().items()}
    fields: dict = {"method_options": {}, "backbone_options": {}}
    for flag, value in zip(words[::2], words[1::2], strict=True):
        if flag == "--set":
            name, _, setting = value.partition("=")
            table = "backbone_options" if name.startswith("backbone.") else "method_options"
            is_word = setting in ("batch", "avg", "after-norm", "before-norm")
            fields[table][name.removeprefix("backbone.")] = setting if is_word else json.loads(setting)
        else:
            name = flag.removeprefix("--").replace("-", "_")
            fields[name] = types[name](value)
    return Spec(**fields)
