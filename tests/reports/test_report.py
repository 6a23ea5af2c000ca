"""The report: golden text, hand-worked rows, and plots that hold the rows' points."""

import csv
import io
import itertools
import json
import shlex
import subprocess
import sys

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import Failure
from sadp_bench.reports import frame, plots, render
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.naming import command
from sadp_bench.reports.plots.ratio import accuracy_figure, speedup_figure
from sadp_bench.reports.plots.saving import slug
from tests.example_records import ENVIRONMENT, make_record, make_spec
from tests.paths import ROOT
from tests.reports.helpers import example_records, row_of, spec_of
from tests.reports.plots.helpers import styles_of

GOLDEN = ROOT / "tests" / "reports" / "golden" / "report.md"


def test_markdown_is_the_golden_report():
    assert render(example_records(), ["bad.json: not JSON"], "markdown") == GOLDEN.read_text(encoding="utf-8")


def test_report_does_not_depend_on_the_order_of_the_records():
    for format in ("text", "latex", "csv", "json"):
        assert render(example_records(), [], format) == render(example_records()[::-1], [], format)


def test_row_of_two_seeds_equals_hand_worked_numbers():
    row = row_of([row for row in rows(example_records()) if row.settings["timesteps"] == 4], "sadp", 0.3)
    assert (row.n, row.accuracy_difference.n, row.speedup.n, row.seeds) == (2, 2, 2, [0, 1])
    expected = {
        # accuracies 0.71 and 0.73, each 0.01 above its own reference; 10+70 s of 100 s, 11+77 s of 110 s;
        # 7000 of 10,000 visits; without scoring 100/70 and 110/77
        "accuracy_mean": 0.72, "accuracy_sd": 0.02 / 2**0.5, "accuracy_difference_mean": 0.01,
        "accuracy_difference_sd": 0.0, "seconds_mean": 84.0, "seconds_sd": 8 / 2**0.5, "realised_ratio_mean": 0.3,
        "speedup_mean": 1.25, "speedup_sd": 0.0, "ceiling_mean": 1 / 0.7, "efficiency_mean": 0.875,
        "training_speedup_mean": 1 / 0.7, "training_efficiency_mean": 1.0, "nominal_maximum": 1 / 0.7,
    }  # fmt: skip
    assert {name: row.columns()[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_one_seed_has_no_spread():
    row = row_of(rows(example_records()), "random", 0.5)
    assert row.accuracy.mean == 0.66
    assert row.accuracy.spread is row.accuracy.low is row.accuracy.high is row.verdict is None
    assert "66.00 (1)" in render(example_records(), [], "text") and "One seed: no ±" in render(example_records())


def test_missing_reference_shows_the_command_that_makes_exactly_it():
    spec = make_spec("sadp", 0.3, 4, protocol="updates", dataset="my data", method_options={"smoothing": 0.1})
    text = render([make_record(spec)], width=80)
    [line] = rows([make_record(spec)])[0].missing_references
    assert f"`{line}`" in text
    words = shlex.split(line)
    assert words[:6] == ["sadp-bench", "run", "--method", "full", "--ratio", "0"]
    assert spec_of(words[2:]) == spec.reference()


def test_command_writes_an_absent_value_as_the_command_line_reads_it():
    assert command(make_spec("sadp", 0.5, method_options={"window": None})).count("--set window=none") == 1


def test_command_names_method_options_too():
    spec = make_spec("sadp", 0.25, method_options={"smoothing": 0.1, "fresh": True})
    assert spec_of(shlex.split(command(spec))[2:]) == spec


def test_other_environment_gives_no_speedup_and_states_why():
    row = row_of(rows(example_records()), "el2n", 0.5)
    assert row.speedup.n == 0
    assert row.accuracy_difference.mean == pytest.approx(-0.1)
    assert row.mismatches == ("threads 1 -> 2",)
    assert "– / 2.00x" in render(example_records())


def test_runs_of_different_settings_never_share_a_row_nor_a_title():
    changes = (
        {"epochs": 20}, {"threads": 2}, {"protocol": "updates"}, {"evaluate_on": "validation"}, {"batch_size": 32},
        {"backbone_options": {"width": 64}}, {"device": "cuda"}, {"evaluate_every": 5},
    )  # fmt: skip
    for changed in changes:
        table = rows([make_record(make_spec("random", 0.5)), make_record(make_spec("random", 0.5, 1, **changed))])
        assert [row.n for row in table] == [1, 1], changed
        assert len({row.group for row in table}) == 2, changed
        assert len({slug(row.group) for row in table}) == 2, changed


def test_method_is_named_with_the_settings_that_differ():
    settings = [{"fresh": True, "x": 1}, {"fresh": False, "x": 1}]
    records = [make_record(make_spec("random", 0.5, method_options=options)) for options in settings]
    records.append(make_record(make_spec("sadp", 0.5, method_options={"smoothing": 0.1})))
    assert [row.label for row in rows(records)] == ["random (fresh=false)", "random (fresh=true)", "sadp"]


def test_methods_come_in_reading_order():
    names = ["sadp", "zeta", "random", "full", "alpha", "fewer-epochs"]
    records = [make_record(make_spec(name, 0.0 if name == "full" else 0.5)) for name in names]
    expected = ["full", "fewer-epochs", "random", "alpha", "zeta", "sadp"]
    assert [row.method for row in rows(records)] == expected


def test_equal_updates_share_the_reference_of_equal_epochs_and_state_it():
    runs = [make_record(make_spec("random", 0.5, protocol="updates"), train=100, examples_seen=10_000)]
    table = rows([make_record(make_spec()), *runs])
    assert [(row.method, row.settings["protocol"], row.nominal_maximum) for row in table] == [
        ("full", "updates", 1), ("random", "updates", 1),
    ]  # fmt: skip
    text = render([make_record(make_spec()), *runs], width=120)
    assert "· equal updates" in text and "nominal maximum is 1" in text


def test_differing_commits_dirty_trees_and_missed_budgets_are_warned_of():
    records = [
        make_record(make_spec(), environment=ENVIRONMENT | {"commit": "f" * 40}),
        make_record(make_spec("random", 0.5), examples_seen=6000, environment=ENVIRONMENT | {"dirty": True}),
    ]
    text = render(records, width=200)
    assert "Warning: these runs differ in commit (0123456789, ffffffffff)." in text
    assert "Warning: made from a changed (dirty) working tree: random 50 %." in text
    assert "Warning: these saved another share than requested (in brackets): random 50 % (40.0 %)." in text


def test_visits_for_scores_stand_below_the_table_without_those_of_a_search():
    records = [
        make_record(make_spec()),
        make_record(make_spec("forgetting", 0.3), prepare_examples=10_000),
        make_record(make_spec("forgetting", 0.5), prepare_examples=10_000),
        make_record(make_spec("el2n", 0.5), prepare_examples=1500, ticket={"visits": 500}),
        make_record(make_spec("sadp", 0.5)),
    ]
    note = "Visits for scores before training, as a share of full data's: el2n 10.0 %, forgetting 100.0 %."
    assert note in render(records, width=200) and "Visits for scores" not in render(records[::4], width=200)


DIVERGED = "training diverged: the mean loss is nan in epoch 3 at --learning-rate 0.1"


def failure(method, ratio, seed, reason=DIVERGED, **changed):
    return Failure(make_spec(method, ratio, seed, **changed), reason, "2025-01-01T00:00:00+00:00")


def test_failed_seed_is_in_no_mean_and_reported_beside_it():
    full = [make_record(make_spec(seed=seed), 0.7, 100) for seed in range(3)]
    runs = [make_record(make_spec("sadp", 0.3, seed), accuracy, 80) for seed, accuracy in ((0, 0.6), (2, 0.64))]
    lost = [failure("sadp", 0.3, 1)]
    row = row_of(rows(full + runs, lost), "sadp", 0.3)
    assert (row.n, len(row.failed), row.seeds, row.speedup.n) == (2, 1, [0, 2], 2)
    assert (row.accuracy.mean, row.speedup.mean) == (pytest.approx(0.62), pytest.approx(1.25))
    for format in ("text", "markdown"):
        text = render(full + runs, [], format, failures=lost, width=200)
        assert "62.00 ±25.41 (2, 1 failed)" in text
        assert f"Failed, and not counted in any mean: sadp 30 %, seed 1: {DIVERGED}\n" in text
        assert "70.00 ±0.00 (3)" in text


def test_cell_of_failures_alone_holds_no_number():
    lost = [failure("grand", 0.3, seed, "killed by signal 9") for seed in range(2)]
    records = [make_record(make_spec()), make_record(make_spec("random", 0.3), 0.5)]
    row = row_of(rows(records, lost), "grand", 0.3)
    assert (row.n, len(row.failed)) == (0, 2)
    measured = {name: value for name, value in row.columns().items() if name.endswith(("_mean", "_sd"))}
    assert set(measured.values()) == {None}
    assert "| grand |  | 2 failed |" in render(records, [], "markdown", failures=lost)
    text = render(records, failures=lost, width=120)
    assert all(f"grand 30 %, seed {seed}: killed by signal 9" in text for seed in range(2))
    [result] = [
        row for row in json.loads(render(records, [], "json", failures=lost))["rows"] if row["method"] == "grand"
    ]
    assert result["accuracy_mean"] is None and result["failures"][1] == "seed 1: killed by signal 9"
    [line] = [
        line
        for line in csv.DictReader(io.StringIO(render(records, [], "csv", failures=lost)))
        if line["method"] == "grand"
    ]
    assert line["n_failed"] == "2" and {line[name] for name in measured} == {""}


def test_failure_stands_in_the_table_of_its_own_settings():
    records = [make_record(make_spec()), make_record(make_spec("sadp", 0.3))]
    text = render(records, [], "markdown", failures=[failure("sadp", 0.3, 0, batch_size=32)])
    parts = text.split("### ")
    [other] = [part for part in parts if "batch-size=32" in part]
    assert "1 failed" in other and "No run of this table has finished." in other and "Measured on" not in other
    assert text.count("1 failed") == 1


def test_failures_alone_are_one_line_that_reports_them():
    with pytest.raises(BadInput, match=r"every run failed \(1\): sadp 30 %, seed 1: training diverged") as caught:
        render([], failures=[failure("sadp", 0.3, 1)])
    assert "\n" not in str(caught.value) and "make some" not in str(caught.value)


def test_table_of_runs_that_saw_different_data_warns():
    digests = ["a" * 64, "b" * 64]
    for names in (("random", "random"), ("full", "full"), ("full", "random"), ("random", "sadp")):
        specs = [make_spec(name, 0.0 if name == "full" else 0.5, seed) for seed, name in enumerate(names)]
        records = [make_record(spec, data_sha256=digest) for spec, digest in zip(specs, digests, strict=True)]
        text = " ".join(render(records, [], "markdown").split())
        assert "Warning: these runs saw different data" in text, names
        for name, digest in zip(names, digests, strict=True):
            assert f"{digest[:10]}: {name} {'0' if name == 'full' else '50'} %" in text
        alike = [make_record(spec, data_sha256=digests[0]) for spec in specs]
        assert "different data" not in render(alike, [], "markdown"), names


def test_the_split_of_a_data_set_that_has_several_stands_below_its_tables():
    imp = {"sparsity": "imp", "density": 0.5, "sparsity_options": {"rewind": 0}}
    for split, note in (("sew", True), ("", False)):
        options = {"split": split, "test_list": "0123456789ab"} if split else {}
        specs = [make_spec(dataset_options=options), make_spec("random", 0.5, dataset_options=options)]
        records = [make_record(spec) for spec in (*specs, make_spec("random", 0.5, dataset_options=options, **imp))]
        text = " ".join(render(records, [], "markdown").split())
        # Below the tables by ratio of both networks, dense and sparse, and below that of the axes.
        assert text.count("Split of digits: sew; test list 0123456789ab.") == 3 * note, text


def test_table_over_different_versions_names_both_within_a_cell_too():
    for name in ("commit", "torch", "numpy", "sadp_bench", "spikingjelly", "python", "kernel"):
        environments = [ENVIRONMENT | {name: f"{seed}.0"} for seed in range(2)]
        records = [make_record(make_spec("random", 0.5, s), environment=e) for s, e in enumerate(environments)]
        assert f"Warning: these runs differ in {name} (0.0, 1.0)." in render(records, [], "markdown")


def test_no_cell_of_csv_is_a_formula():
    odd = {"dataset": "=cmd|' /C calc'!A0", "backbone": "+x", "method_options": {"@sum": "-2+3", "a": "\uff1d1"}}
    place = ENVIRONMENT | {"processor": "-1.5", "torch": "@x", "kernel": "=1; =2"}
    record = make_record(make_spec("-m", 0.5, **odd), environment=place, data_sha256="=1+1")
    failure = Failure(make_spec("-m", 0.5, 1, **odd), "=1+1", "now")
    cells = list(itertools.chain(*csv.reader(io.StringIO(render([record], [], "csv", failures=[failure])))))
    run = [cell for cell in cells if cell.startswith(tuple("=+-@\t\r\n\uff1d"))]
    assert run == ["-1.5"], run  # a number
    assert {"'=cmd|' /C calc'!A0", "'+x", "'-m", "'-2+3", "'@x", "'=1; =2", "'=1+1"} <= set(cells)


def test_csv_and_json_parse_back_unrounded():
    table = rows(example_records())
    assert json.loads(render(example_records(), [], "json"))["rows"] == [row.columns() for row in table]
    lines = list(csv.DictReader(io.StringIO(render(example_records(), [], "csv"))))
    assert len(lines) == len(table)
    for line, row in zip(lines, table, strict=True):
        for name in ("accuracy_mean", "accuracy_sd", "accuracy_low", "random_difference_high", "efficiency_mean"):
            assert line[name] == ("" if row.columns()[name] is None else repr(row.columns()[name]))
        assert line["seeds"] == "; ".join(map(str, row.seeds))


def test_terminal_tables_fit_the_width_and_lose_no_cell():
    ratios = [0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
    records = [make_record(make_spec(seed=seed), 0.75) for seed in range(2)]
    records += [make_record(make_spec("random", r, seed), r) for r in ratios for seed in range(2)]
    for width in (40, 80, 120):
        text = render(records, width=width)
        assert max(map(len, text.splitlines())) <= width
        assert [text.count(f"{100 * ratio:.2f} ±0.00 (2)") for ratio in ratios] == [1] * len(ratios), width
        assert "\x1b" not in text
    assert "70.00 (1)" in render([make_record(make_spec(), 0.7)], width=0)  # some systems report no width


def test_best_accuracy_is_bold_on_a_terminal():
    assert "\x1b[1m72.00 ±12.71 (2)" in render(example_records(), width=100, styled=True)


def test_nothing_to_report_states_what_to_do():
    with pytest.raises(BadInput, match="no records here that can be read .left out: 1.; make some: `sadp-bench run"):
        render([], ["a.json: not JSON"])
    with pytest.raises(BadInput, match="--format is one of"):
        render(example_records(), [], "pdf")


def test_accuracy_figure_holds_the_rows_points():
    table = [
        row for row in rows(example_records()) if row.settings["timesteps"] == 4 and row.method in ("full", "random")
    ]
    [axes] = accuracy_figure(table, styles_of(table)).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(zip(*lines["Random"].get_data(), strict=True)) == [(30, pytest.approx(69.5)), (50, 66)]
    assert set(lines["Full data"].get_ydata()) == {71}
    assert list(axes.get_xticks()) == [30, 50]


def test_coinciding_methods_stand_apart_near_their_true_ratio():
    table = rows([make_record(make_spec()), *(make_record(make_spec(n, r)) for n in "abc" for r in (0.3, 0.5))])
    [axes] = accuracy_figure(table, styles_of(table)).axes
    x = [line.get_xdata()[1] for line in axes.lines if line.get_label() in "abc"]
    assert len(set(x)) == 3 and x == pytest.approx([50] * 3, rel=0.05)


def test_speedup_figure_holds_the_rows_points_and_the_maximum():
    table = [
        row for row in rows(example_records()) if row.settings["timesteps"] == 4 and row.method in ("full", "random")
    ]
    [axes] = speedup_figure(table, styles_of(table)).axes
    lines = {line.get_label(): line for line in axes.lines}
    # 100/80 and 110/80 at 30 %, 100/50 at 50 %
    assert list(lines["Random"].get_xdata()) == pytest.approx([30, 50])
    assert list(lines["Random"].get_ydata()) == pytest.approx([1.3125, 2])
    x, y = lines["maximum"].get_data()
    assert list(y) == pytest.approx([1 / (1 - percent / 100) for percent in x]) and (x[0], x[-1]) == (0, 50)


def test_groups_without_pruning_or_time_have_no_such_figure(tmp_path):
    assert plots.draw([make_record(make_spec())], tmp_path) == []
    drawn = plots.draw([make_record(make_spec("random", 0.5))], tmp_path)
    assert any("accuracy" in path.name for path in drawn) and not any("speedup" in path.name for path in drawn)


def test_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="can't write"):
        plots.draw([make_record(make_spec("random", 0.5))], tmp_path / "file" / "plots")


def test_report_is_light_to_import():
    code = """if True:
        import sys
        import sadp_bench.reports
        heavy = {"torch", "pandas", "matplotlib", "rich", "numpy", "scipy"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        from tests.example_records import make_record, make_spec
        from sadp_bench.reports import frame, plots, render
        from sadp_bench.reports.plots.ratio import accuracy_figure
        from sadp_bench.reports.grouping import rows
        records = [make_record(make_spec()), make_record(make_spec("random", 0.5))]
        for format in ("text", "markdown", "latex", "json"):
            render(records, [], format)
        assert not {"torch", "pandas", "matplotlib", "jinja2"} & set(sys.modules)
        accuracy_figure(rows(records), {"random": {"color": "red"}})
        assert "torch" not in sys.modules
    """
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_frame_holds_the_columns_of_csv():
    table = frame(example_records())
    assert list(table["accuracy_mean"]) == [row.accuracy.mean for row in rows(example_records())]
    assert ",".join(table.columns) == render(example_records(), [], "csv").splitlines()[0]
