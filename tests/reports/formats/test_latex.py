"""Tables in LaTeX: their text, its escapes, and its setting by pdflatex."""

import re
import shutil

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.reports import render
from sadp_bench.reports.formats.paper_tables import _in_lines
from sadp_bench.reports.formats.tabular import escaped
from sadp_bench.reports.paper import Paper, names_of, words
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
    for label, mark in (("SADP", r"\textbf{"), ("GraNd", r"\underline{")):
        assert line_of(text, label).count(mark) == 2
    for label in ("Random", "EL2N", "Full data"):
        assert r"\textbf" not in line_of(text, label) and r"\underline" not in line_of(text, label)


def test_cells_hold_the_means_intervals_and_times_of_the_rows():
    # 0.67, 0.671 and 0.674: standard error 0.0012019, deviation 0.0020817; Student's quantile 4.302653
    both = r"SADP & \textbf{67.17} $\pm$ 0.52 & 2.00 \\"
    std = r"SADP & \textbf{67.17} $\pm$ 0.21 & 2.00 \\"
    for paper, line, full in (
        (Paper(), both, r"{2}{c}{70.10 $\pm$ 0.25, 100.0\,s}"),
        (Paper(spread="std"), std, r"{2}{c}{70.10 $\pm$ 0.10, 100.0\,s}"),
        (Paper(cells="accuracy"), r"SADP & \textbf{67.17} $\pm$ 0.52 \\", r"{1}{c}{70.10 $\pm$ 0.25}"),
        (Paper(cells="speedup"), r"SADP & 2.00 \\", r"{1}{c}{100.0\,s}"),
    ):
        text = render(example_records((0.5,)), [], "latex", paper=paper)
        assert line_of(text, "SADP").replace(" {[}2.00, 2.00{]}", "").replace(r" $\pm$ 0.00", "") == line
        assert line_of(text, "Full data") == rf"Full data & \multicolumn{full} \\"
    assert r"\multicolumn{2}{c}{50\,\% pruned ($\leq 2.00\times$)} \\" in render(example_records((0.5,)), [], "latex")


def test_number_of_seeds_stands_in_the_caption_or_where_it_differs_in_a_subscript():
    alike = render(example_records(), [], "latex")
    assert "$n = 3$ seeds." in alike and "$_{" not in alike
    differing = render(example_records()[:-1], [], "latex")
    assert (
        "$n = 3$ seeds; a subscript gives another number." in differing
        and line_of(differing, "GraNd").count("$_{2}$") == 2
    )


def test_paired_differences_have_a_verdict_against_full_beside_that_against_random():
    text = render(example_records((0.5,)), [], "latex", margin_points=1)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    # sadp - full: -3, -3 and -2.8 points; grand - sadp: -1 point at every seed, so random's are 1 and 2 points below
    lines = [line for line in text.splitlines() if line.startswith(r"SADP & 50\,\% ")]
    [line] = lines
    assert line.startswith(r"SADP & 50\,\% & $-$2.93 $\pm$ 0.29 & worse & +2.00 $\pm$ 0.00 &")
    assert r"lies above $-1$" in text and r"\label{tab:results-differences}" in text
    assert r" & \multicolumn{2}{c}{Against full data} & \multicolumn{2}{c}{Against random} & " in text
    assert _in_lines("SADP (score=layers, smoothing=0.2)", 3) == ["SADP", "(score=layers, smoothing=0.2)", ""]
    assert _in_lines("SADP (score=layers, smoothing=0.2)", 1) == ["SADP (score=layers, smoothing=0.2)"]


def test_where_numbers_come_from_is_a_comment_and_in_no_print():
    text = render([make_record(make_spec("sadp", 0.3))], ["bad.json"], "latex")
    assert text.startswith("% ") and r"\usepackage{booktabs}" in text.splitlines()[0]
    assert re.search(r"^% make it: sadp-bench run --method full .*", text, re.MULTILINE)
    assert "% No speed-up for a seed of sadp 30 %, because its reference is missing.\n" in text
    assert text.endswith("% Left out: 1 file, unreadable or a run's second record.\n")
    printed = "\n".join(
        line for line in render(example_records(), [], "latex").splitlines() if not line.startswith("%")
    )
    assert "Measured on" not in printed and "torch" not in printed


def test_an_author_chooses_methods_their_order_their_names_caption_and_label():
    records = example_records((0.3,))
    names = {"sadp": "SADP_1 (ours)", "Random": "Uniform"}
    paper = Paper(r"$n$ \emph{seeds}", "tab:main", names, ("sadp", "random"))
    text = render(records, [], "latex", paper=paper)
    lines = [line.partition(" &")[0] for line in text.splitlines() if "&" in line and not line.startswith(("%", " &"))]
    assert lines == ["Method", "Full data", r"SADP\_1 (ours)", "Uniform", "Method", r"SADP\_1 (ours)", "Uniform"]
    assert r"\caption{$n$ \emph{seeds}}\label{tab:main}" in text and r"\label{tab:main-differences}" in text
    assert "% Accuracy (mean" in text  # what the author's caption leaves out
    two = render([*records, *example_records((0.3,), epochs=9)], [], "latex", paper=Paper(label="t"))
    assert r"\label{t}" in two and r"\label{t-2}" in two


def test_names_and_lists_of_methods_may_contain_brackets_with_commas_and_equals_signs():
    assert words("sadp (a=1, b=2),random , ") == ["sadp (a=1, b=2)", "random"]
    assert names_of(["sadp (a=1, b=2)=Ours (a=1),random=Uniform", "el2n = E=1"]) == {
        "sadp (a=1, b=2)": "Ours (a=1)", "random": "Uniform", "el2n": "E=1",
    }  # fmt: skip


def test_choices_that_are_none_are_refused_in_one_line():
    for text in ("sadp", "=x", "sadp="):
        with pytest.raises(BadInput, match="--names is METHOD=NAME"):
            names_of([text])
    for wrong, message in (({"cells": "all"}, "--cells is one of"), ({"spread": "sem"}, "--spread is one of"),
                           ({"label": "a}b"}, "--label is made of")):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            Paper(**wrong)
    with pytest.raises(BadInput, match="--methods: no method 'sapd' in these records; did you mean 'sadp'"):
        render(example_records(), [], "latex", paper=Paper(methods=("sapd",)))
    with pytest.raises(BadInput, match="are for --format latex, not csv"):
        render(example_records(), [], "csv", paper=Paper())


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
    std = render(records, [], "latex", correction="holm", paper=Paper(spread="std", cells="speedup"))
    for report in (text, std, render(everything(), [], "latex")):
        assert not re.findall(r"Overfull.*|.*too large for page.*", pdflatex(tmp_path, report))
