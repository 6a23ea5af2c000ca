"""What the report makes of several seeds: intervals, paired differences, verdicts, ranks; and its command line."""

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.records.store import Store
from sadp_bench.reports import render
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.rows import shared_means
from sadp_bench.reports.tables.method_ranks import scores
from tests.commands import command
from tests.example_records import make_record, make_spec
from tests.reports.helpers import example_records, row_of


def test_intervals_of_two_seeds_equal_hand_worked_numbers():
    table = [row for row in rows(example_records()) if row.settings["timesteps"] == 4]
    sadp, random = row_of(table, "sadp", 0.3), row_of(table, "random", 0.3)
    quantile = 12.706205  # Student's, 97.5 % at 1 degree of freedom
    # the standard errors of 0.71 and 0.73, of 0.02 and 0.03 above random, and of 0.01 and 0.02 below full
    assert (sadp.accuracy.low, sadp.accuracy.high) == pytest.approx((0.72 - 0.01 * quantile, 0.72 + 0.01 * quantile))
    assert sadp.random_difference.mean == pytest.approx(0.025) and sadp.random_difference.n == 2
    assert sadp.random_difference.low == pytest.approx(0.025 - 0.005 * quantile)
    assert random.accuracy_difference.high == pytest.approx(-0.015 + 0.005 * quantile)
    # Both seeds of sadp are above full by exactly a point: an interval of no width decides nothing.
    assert (sadp.verdict, random.verdict) == (None, "undecided")
    assert not random.random_difference.n and row_of(table, "full", 0).verdict is None


def test_verdict_depends_on_the_margin():
    full = [make_record(make_spec(seed=seed), 0.7) for seed in range(3)]
    runs = [make_record(make_spec("sadp", 0.3, seed), 0.69 + 0.0001 * seed) for seed in range(3)]
    found = {margin: row_of(rows(full + runs, margin=margin), "sadp", 0.3) for margin in (0.005, 0.0099, 0.02)}
    assert [row.verdict for row in found.values()] == ["worse", "undecided", "lossless"]
    assert [row.margin for row in found.values()] == list(found)
    for points, expected in ((0.5, "worse"), (2, "lossless")):
        text = render(full + runs, margin_points=points)
        assert f"margin {points:g} points" in text and f" {expected} " in text


def test_differences_to_random_are_paired_by_seed_data_and_ratio():
    randoms = [make_record(make_spec("random", 0.3, seed), 0.5 + 0.01 * seed) for seed in (0, 1, 2)]
    other_data = make_record(make_spec("random", 0.3, 3), 0.1, data_sha256="1" * 64)
    other_ratio = make_record(make_spec("random", 0.5, 4), 0.1)
    runs = [make_record(make_spec("sadp", 0.3, seed), 0.6) for seed in (1, 2, 3, 4)]
    row = row_of(rows([*randoms, other_data, other_ratio, *runs]), "sadp", 0.3)
    assert (row.n, row.random_difference.n) == (4, 2)
    assert row.random_difference.mean == pytest.approx(((0.6 - 0.51) + (0.6 - 0.52)) / 2)


def test_random_of_several_settings_is_the_rival_by_its_plain_one():
    def render_and_row(*options):
        randoms = [
            make_record(make_spec("random", 0.3, seed, method_options=own), 0.5 + 0.01 * place)
            for seed in (0, 1)
            for place, own in enumerate(options)
        ]
        records = [*randoms, *(make_record(make_spec("sadp", 0.3, seed), 0.6) for seed in (0, 1))]
        return render(records), rows(records)

    note = "No difference to random at 30 %: random ran with several settings there."
    scaled, plain = {"fresh": True, "rescale": True}, {"fresh": True, "rescale": False}
    text, table = render_and_row(scaled, plain)
    assert note not in text
    assert row_of(table, "sadp", 0.3).random_difference.mean == pytest.approx(0.6 - 0.51)
    of_random = {row.label: row.random_difference for row in table if row.method == "random"}
    assert of_random["random (rescale=true)"].mean == pytest.approx(0.5 - 0.51)
    assert of_random["random (rescale=false)"].n == 0
    text, table = render_and_row(scaled, {"fresh": False, "rescale": True})
    assert note in text and row_of(table, "sadp", 0.3).random_difference.n == 0


def reaching(spec, accuracies, train):
    """Returns a run that was evaluated after every epoch. All epochs took equally long."""
    seconds = train / len(accuracies)
    epochs = [{"epoch": e, "kept": 700, "seconds": seconds, "test_accuracy": a} for e, a in enumerate(accuracies)]
    return make_record(spec, accuracies[-1], train, epochs=epochs)


def test_time_to_accuracy_counts_the_seeds_that_get_there():
    records = [reaching(make_spec(seed=seed), [0.5, 0.6, 0.7, 0.7], 100) for seed in range(3)]
    curves = [[0.5, 0.7, 0.7, 0.7], [0.5, 0.6, 0.6, 0.7], [0.5, 0.6, 0.6, 0.6]]
    records += [reaching(make_spec("sadp", 0.3, seed), curve, 80) for seed, curve in enumerate(curves)]
    records += [reaching(make_spec("random", 0.3, seed), [0.5] * 4, 80) for seed in range(3)]
    table = rows(records)
    row = row_of(table, "sadp", 0.3)
    # after 2 and 4 epochs of 20 s; full after 3 of 25 s
    assert (row.seconds_to_accuracy.n, row.speedup.n, row.seconds_to_accuracy.mean) == (2, 3, 60)
    assert row.share_to_accuracy.mean == pytest.approx(0.8)
    assert row_of(table, "full", 0).seconds_to_accuracy.mean == 75
    assert not row_of(table, "random", 0.3).seconds_to_accuracy.n
    shown = render(records, [], "markdown")
    assert "| 75.0 s (3)<br>100 % |" in shown and "| 60.0 s (2/3)<br>80 % |" in shown and "| never (3) |" in shown


def test_differences_stand_below_the_results_where_there_are_several_seeds_only():
    shown = render(example_records(), [], "markdown")
    assert shown.count("Paired differences in points") == 1
    assert "| random 30 % | -1.50 (2)<br>[-7.85, +4.85] | undecided<br>6.35 |  |" in shown
    assert "| sadp 30 % | +1.00 (2)<br>[+1.00, +1.00] | – | +2.50 (2)<br>[-3.85, +8.85] |" in shown
    assert "| fewer-epochs 50 % | -2.00 (1) | – | +2.00 (1) |" in shown
    assert "Paired" not in render([record for record in example_records() if record.spec.seed == 0])


def ranked_records(names="abc", datasets="vwxyz"):
    """Returns records of one table for each data set. The first method is best in each, and the last worst."""
    return [
        make_record(make_spec(name, 0.5, dataset=dataset), 0.7 - 0.01 * place)
        for dataset in datasets
        for place, name in enumerate(names)
    ]


def test_methods_are_ranked_over_all_tables():
    shown = render(ranked_records(), [], "markdown")
    assert "### Ranks by accuracy over 5 blocks (a table at a ratio)" in shown
    for line in ("| a | 1.00 | a |", "| b | 2.00 | ab |", "| c | 3.00 | b |"):
        assert line in shown
    assert "critical difference of 1.48 (Nemenyi, 5 %)" in shown and "chi² = 10.00, p = 0.007" in shown
    assert "No ranks" not in shown and "mean rank" in render(ranked_records())


def test_a_method_of_other_settings_is_another_method_in_the_ranks_although_each_table_calls_it_by_its_name():
    records = ranked_records("ab")
    for number, dataset in enumerate("vwxyz"):
        spec = make_spec("c", 0.5, dataset=dataset, method_options={"smoothing": 0.1 if number else 0.2})
        records.append(make_record(spec, 0.5))
    blocks = scores(rows(records))
    assert [set(block) - {"a", "b"} for block in blocks.values()] == [
        {"c (smoothing=0.2)"},
        *[{"c (smoothing=0.1)"}] * 4,
    ]
    assert "Ranks by accuracy" not in render(records)


def test_validation_accuracies_are_not_ranked():
    records = [
        make_record(make_spec(name, 0.5, dataset=dataset, evaluate_on="validation"), 0.7)
        for dataset in "vwxyz"
        for name in "abc"
    ]
    assert scores(rows(records)) == {}


def test_blocks_over_different_data_are_not_ranked():
    records = ranked_records()
    mixed = make_record(make_spec("a", 0.5, 1, dataset="z"), data_sha256="1" * 64)
    assert "that contain all of them. Here: 3 methods, 4 such blocks." in render([*records, mixed], width=300)


def test_missing_ranks_report_what_they_take_where_there_are_methods_to_rank():
    assert "Here: 3 methods, 4 such blocks." in render(ranked_records(datasets="wxyz"), width=300)
    assert "Here: 2 methods, 5 such blocks." in render(ranked_records("ab"), width=300)
    assert "ranks" not in render([make_record(make_spec()), make_record(make_spec("a", 0.5))])


def test_margin_is_a_number_of_points(tmp_path):
    for margin in (0, 100, float("nan")):
        with pytest.raises(BadInput, match="--margin is a number of points above 0 and below 100, not"):
            render(example_records(), margin_points=margin)
    saved(tmp_path)
    assert "margin 20 points" in command("report", tmp_path, "--margin", 20).out
    answer = command("report", tmp_path, "--margin", "-1")
    assert answer.code == 2 and answer.err.count("\n") == 1 and "--margin is a number of points" in answer.err


def saved(folder):
    for record in example_records():
        Store(folder).write(record)


def test_check_fails_in_one_line_where_the_file_is_out_of_date_and_never_writes(tmp_path):
    saved(tmp_path / "runs")
    file = tmp_path / "report.md"
    words = ["report", tmp_path / "runs", "--format", "markdown", "--to", file]
    absent = command(*words, "--check")
    assert absent.code == 1 and f"{file} does not exist" in absent.err and not file.exists()
    assert command(*words).code == 0
    assert command(*words, "--check") == (0, "", "")
    right = file.read_text()
    for old, line in ((right.replace("| random |", "| Random |", 1), 22), (right + "x", right.count("\n") + 1)):
        file.write_text(old)
        stale = command(*words, "--check")
        assert stale.code == 1 and stale.out == "" and stale.err.count("\n") == 1
        assert f"{file} is out of date, from line {line} on" in stale.err and file.read_text() == old
        command(*words)


def test_check_without_a_file_or_with_plots_is_bad_input(tmp_path):
    saved(tmp_path)
    for words in ([], ["--to", "r.md", "--plots", "plots"]):
        answer = command("report", tmp_path, "--check", *words)
        assert answer.code == 2 and "--check reads the file of --to" in answer.err and answer.err.count("\n") == 1


def test_equal_differences_that_rounding_reports_apart_decide_nothing():
    # 0.57 - 0.56 and 0.60 - 0.59 differ in their last bits
    full = [make_record(make_spec(seed=seed), accuracy) for seed, accuracy in enumerate((0.56, 0.59))]
    runs = [make_record(make_spec("sadp", 0.3, seed), accuracy) for seed, accuracy in enumerate((0.57, 0.60))]
    row = row_of(rows(full + runs), "sadp", 0.3)
    assert row.accuracy_difference.low < row.accuracy_difference.high and row.verdict is None


def uneven():
    """Returns runs in which `random` is above `sadp` over all its seeds, and below over the seeds that both have."""
    accuracies = {"random": (0.5, 0.5, 0.9), "sadp": (0.6, 0.6)}
    runs = [
        make_record(make_spec(method, 0.3, seed), accuracy)
        for method, own in accuracies.items()
        for seed, accuracy in enumerate(own)
    ]
    return [*(make_record(make_spec(seed=seed), 0.7) for seed in range(3)), *runs]


def test_the_best_is_so_over_the_seeds_that_all_have():
    table = rows(uneven())
    assert row_of(table, "random", 0.3).accuracy.mean > row_of(table, "sadp", 0.3).accuracy.mean
    assert "**60.00" in render(uneven(), format="markdown") and "**63.33" not in render(uneven(), format="markdown")
    assert set(scores(table)[table[0].group, 0.3].values()) == {0.5, 0.6}
    assert shared_means([row_of(table, "random", 0.3), row_of(table, "sadp", 0.3)]) == pytest.approx([0.5, 0.6])


def test_methods_that_share_no_seed_are_compared_over_their_own():
    runs = [make_record(make_spec("random", 0.3, 0), 0.5), make_record(make_spec("sadp", 0.3, 1), 0.6)]
    assert shared_means(rows(runs)) == pytest.approx([0.5, 0.6])


def test_a_speedup_has_its_interval_and_the_number_of_the_runs_that_were_timed():
    calm = [make_record(make_spec(seed=seed), 0.7) for seed in range(3)]
    runs = [make_record(make_spec("sadp", 0.3, seed), 0.6) for seed in range(2)]
    elsewhere = make_record(make_spec("sadp", 0.3, 2), 0.6, environment=calm[0].environment | {"threads": 64})
    row = row_of(rows([*calm, *runs, elsewhere]), "sadp", 0.3)
    assert (row.n, row.speedup.n) == (3, 2)
    shown = f"{row.speedup.mean:.2f} (2)<br>[{row.speedup.low:.2f}, {row.speedup.high:.2f}]"
    assert shown in render([*calm, *runs, elsewhere], format="markdown")
