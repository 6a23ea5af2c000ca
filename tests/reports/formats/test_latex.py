"""Tables in LaTeX: their text, its escapes, and its setting by pdflatex."""

import re
import shutil

import pytest

from sadp_bench.reports import render
from sadp_bench.reports.formats.latex import escaped
from tests.example_records import make_record, make_spec
from tests.reports.axes_records import everything
from tests.reports.helpers import pdflatex

EVIL = r"a_b & 50% $x$ #1 {y} \input{z} ~ ^ <|> [q] *"


def example_records(ratios=(0.3, 0.5), seeds=3, **changed):
    accuracy = {"random": 0.65, "el2n": 0.6, "sadp": 0.67, "grand": 0.66}
    records = [make_record(make_spec(seed=seed, **changed), 0.7 + 0.001 * seed) for seed in range(seeds)]
    return records + [
        make_record(make_spec(name, ratio, seed, **changed), accuracy[name] + 0.001 * seed * seed, 100 * (1 - ratio))
        for name in accuracy
        for ratio in ratios
        for seed in range(seeds)
    ]


def line_of(text, label):
    [line, *_] = [line for line in text.splitlines() if line.startswith(f"{label} &")]
    return line


def test_best_is_bold_and_second_best_underlined_at_each_ratio():
    text = render(example_records(), [], "latex")
    for label, mark in (("sadp", r"\textbf{"), ("grand", r"\underline{")):
        assert line_of(text, label).count(mark) == 2
    for label in ("random", "el2n", "full"):
        assert r"\textbf" not in line_of(text, label) and r"\underline" not in line_of(text, label)


def test_cells_hold_the_means_intervals_and_times_of_the_rows():
    text = render(example_records((0.5,)), [], "latex")
    # 0.67, 0.671 and 0.674: standard error 0.0012019; Student's quantile 4.302653
    assert line_of(text, "sadp") == r"sadp &  & \textbf{67.17 $\pm$ 0.52} \\"
    assert r" &  & \footnotesize 2.00 / 2.00$\times$ \\" in text and r" & \footnotesize 100.0 s &  \\" in text


def test_number_of_seeds_stands_in_the_caption_or_where_it_differs_in_brackets():
    alike = render(example_records(), [], "latex")
    assert "$n = 3$ seeds." in alike and "(3)" not in alike
    differing = render(example_records()[:-1], [], "latex")
    assert "Number of seeds in brackets." in differing and "(3)" in differing and "(2)" in differing


def test_paired_differences_are_a_table_of_their_own():
    text = render(example_records((0.5,)), [], "latex", margin_points=1)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    # 0.3, 0.3 and 0.2 points to the second seed's; sadp - full: -3, -3 and -2.8 points
    assert line_of(text, r"sadp 50\,\%").startswith(
        r"sadp 50\,\% & $-$2.93 $\pm$ 0.29 & worse (0.29) & +2.00 $\pm$ 0.00 &"
    )
    assert r"margin 1 points" in text


def test_header_names_the_package_and_notes_and_commands_are_kept():
    text = render([make_record(make_spec("sadp", 0.3))], ["bad.json"], "latex")
    assert text.startswith("% ") and r"\usepackage{booktabs}" in text.splitlines()[0]
    assert re.search(r"^% make it: sadp-bench run --method full .*", text, re.MULTILINE)
    assert "No reference for a seed of sadp 30\\,\\%, so no speed-up of it.\n" in text
    assert text.endswith("% Left out, as unreadable or a run's second record: 1 of the files.\n")


def test_names_are_escaped():
    text = render(example_records((0.3,), dataset=EVIL), [], "latex")
    assert EVIL not in text and r"\input" not in text
    assert r"a\_b \& 50\% \$x\$ \#1 \{y\} \textbackslash{}input\{z\}" in text


def test_minus_and_percent_are_set_as_such():
    expected = {
        "[-4.76, +3.04]": "{[}$-$4.76, +3.04{]}",
        "fewer-epochs 10 %": r"fewer-epochs 10\,\%",
        "full's - 1": "full's $-$ 1",
        "sadp (smoothing=1e-3)": "sadp (smoothing=1e-3)",
        "two\nlines": "two lines",
    }
    assert {text: escaped(text) for text in expected} == expected


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed (texlive-latex-recommended)")
def test_pdflatex_sets_the_tables_within_the_page(tmp_path):
    records = example_records((0.1, 0.3, 0.5, 0.7, 0.9))
    records += example_records((0.3,), 2, dataset=EVIL) + [make_record(make_spec("größe", 0.3))]
    variants = [make_spec("sadp", 0.5, seed, method_options={"smoothing": s}) for s in (0.2, 1.0) for seed in range(3)]
    records += [make_record(spec, 0.6 + 0.01 * spec.seed) for spec in variants]
    text = render(records, [], "latex")
    assert "Ranks by accuracy" in text
    for report in (text, render(everything(), [], "latex")):
        assert not re.findall(r"Overfull.*|.*too large for page.*", pdflatex(tmp_path, report))
