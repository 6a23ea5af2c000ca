"""Runs on the axes of data, time and weights: speed-ups, products and rows against numbers worked out by hand."""

import dataclasses

import pytest

from sadp_bench.records.axes import changed_axes, theoretical_speedup, time_factor, weights_factor
from sadp_bench.reports import render
from sadp_bench.reports.contents import Contents
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.naming import command
from sadp_bench.reports.tables.axes import axes_rows
from tests.example_records import ENVIRONMENT, make_record, make_spec
from tests.reports.axes_records import EARLY, EB, IMP, MIB, PQ, SLTT, SLTT_2, run, three_axes
from tests.reports.helpers import spec_of as spec_of_words


def table_of(records):
    return axes_rows(records)


def row_of(table, name):
    [row] = [row for row in table if row.name == name]
    return row


def test_time_factor_counts_a_step_forward_as_one_and_backward_as_two():
    sltt_k = [{"backprop": "sltt-k", "k": k} for k in (1, 2, 4)]
    for axis, timesteps, factor in (
        ({}, 4, 1),
        (SLTT, 4, 1),
        (sltt_k[0], 6, 2.25),
        (sltt_k[1], 4, 1.5),
        (sltt_k[2], 4, 1),
    ):
        assert time_factor(make_spec(loss="step", timesteps=timesteps, **axis)) == pytest.approx(factor), axis


def test_theoretical_speedup_is_visits_times_time_times_weights():
    # half of the visits, 3 / (1 + 2 * 2 / 4) = 1.5 and a quarter of the connections
    assert theoretical_speedup(run("sadp", 0.5, **SLTT_2, **IMP)) == pytest.approx(2 * 1.5 * 4)
    updates = run("sadp", 0.5, protocol="updates", record={"examples_seen": 10_000}, **SLTT_2)
    assert theoretical_speedup(updates) == pytest.approx(1.5)


def test_the_weights_factor_is_of_the_products_of_training_visit_by_visit() -> None:
    older, sparse = run(record={"operations": {"accumulates": 5e5}}, **IMP), run("sadp", 0.5, **IMP)
    assert theoretical_speedup(older) is None, "a share of the weights is no share of the operations"
    assert "No theoretical speed-up for older runs of sparse weights" in " ".join(render([run(), older]).split())
    assert "No theoretical speed-up" not in render([run(), sparse])
    # 300 visits with all 8 million products, 100 with 2 million: 8 over (3 * 8 + 2) / 4
    epochs = [{**sparse.epochs[0], "kept": kept, "live_products": live} for kept, live in ((300, 8e6), (100, 2e6))]
    assert weights_factor(dataclasses.replace(sparse, epochs=epochs)) == pytest.approx(8 / 6.5)
    assert weights_factor(run()) == 1
    for live in (0.0, 1e-300, None):
        assert weights_factor(dataclasses.replace(sparse, epochs=[epochs[0] | {"live_products": live}])) is None


def test_changed_axes_are_the_runs_of_one_axis_alone():
    spec = run("sadp", 0.5, 3, **SLTT_2, **EARLY).spec
    data, time, weights = changed_axes(spec)
    assert (data.method, data.ratio, data.backprop, data.sparsity) == ("sadp", 0.5, "bptt", "dense")
    assert (time.method, time.backprop, time.k, time.sparsity) == ("full", "sltt-k", 2, "dense")
    assert (weights.method, weights.backprop, weights.sparsity, weights.early_time) == ("full", "bptt", "imp", True)
    assert weights.sparsity_options == {"rewind": 0, "early_rule": "second", "search_ratio": 0.0}
    assert {one.seed for one in (data, time, weights)} == {3}
    assert changed_axes(spec.plain()) == [] == changed_axes(dataclasses.replace(spec.plain(), protocol="updates"))
    assert changed_axes(time) == [time]


def test_row_of_all_three_axes_equals_hand_worked_numbers():
    row = row_of(table_of(three_axes()), "sadp 50 % · sltt-k K=2 · imp 25 %")
    assert (row.n, row.speedup.n, row.kept_share.n, row.axes, row.seeds) == (2, 2, 2, 3, [0, 1])
    expected = {
        # 45 s of training and 80 s of search (a tenth more for the second seed) against 100 s; data alone 100 / 50, time
        # alone 100 / 80, weights alone 100 / 200
        "seconds_mean": 131.25, "search_seconds_mean": 84.0, "speedup_mean": 0.8, "speedup_sd": 0.0,
        "speedup_without_search_mean": 100 / 45, "ceiling_mean": 2.0, "time_factor_mean": 1.5, "weights_factor_mean": 4.0,
        "theoretical_speedup_mean": 12.0, "product_mean": 2 * 1.25 * 0.5, "kept_share_mean": 0.8 / 1.25,
        "train_memory_bytes_mean": 25 * MIB, "accumulates_mean": 5e5, "multiply_accumulates_mean": 1e6,
        "energy_joules_mean": 6.4e-6, "density_mean": 0.25, "firing_rate_mean": 0.2, "accuracy_mean": 0.60,
    }  # fmt: skip
    assert {name: row.columns()[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_product_and_kept_share_are_of_combinations_only():
    table = table_of(three_axes())
    combined = {row.name: row.kept_share.mean for row in table if row.axes > 1}
    # 100 / 50 of 2 * 1.25
    assert combined["sadp 50 % · sltt-k K=2 · dense"] == pytest.approx(0.8) and len(combined) == 2
    assert all(row.product.n == row.kept_share.n == 0 for row in table if row.axes < 2)


def test_interval_of_the_speedup_is_students_of_the_logarithms_over_the_seeds():
    records = [run(seed=seed) for seed in (0, 1)] + [run("sadp", 0.5, seed, seconds=50 * (1 + seed)) for seed in (0, 1)]
    records += [
        run("sadp", 0.5, 2, record={"environment": ENVIRONMENT | {"threads": 2}}),
        run(seed=2),
        run(seed=7, **SLTT),
    ]
    row = row_of(table_of(records), "sadp 50 % · bptt · dense")
    # 2 and 1: the logarithms' standard error is log(2) / 2; Student's quantile at 1 degree of freedom
    ends = (2 ** ((1 - 12.706205) / 2), 2 ** ((1 + 12.706205) / 2))
    assert (row.speedup.mean, row.speedup.low, row.speedup.high) == pytest.approx((1.5, *ends))


def test_rows_stand_with_the_plain_run_first_and_then_by_the_number_of_changed_axes():
    assert [row.name for row in table_of(three_axes())] == [
        "full · bptt · dense", "full · bptt · imp 25 %", "full · bptt · imp 25 % early-time", "full · bptt · eb 50 %",
        "full · bptt · pq 40 %", "full · sltt · dense", "full · sltt-k K=2 · dense", "sadp 50 % · bptt · dense",
        "sadp 50 % · sltt-k K=2 · dense", "sadp 50 % · sltt-k K=2 · imp 25 %",
    ]  # fmt: skip


def test_a_run_by_a_former_rule_is_named_by_it_and_no_other() -> None:
    older = run(**{**EARLY, "sparsity_options": {"rewind": 0}})
    for records, names in (
        ([older], ["imp 25 % early-time (early_rule=max)"]),
        ([run(**EARLY)], ["imp 25 % early-time"]),
        ([older, run(**EARLY)], ["imp 25 % early-time", "imp 25 % early-time (early_rule=max)"]),
    ):
        assert [row.weights for row in table_of([run(), *records])][1:] == names


def test_energies_by_three_rules_stand_beside_each_other_and_older_records_have_one() -> None:
    joules = {"energy_joules": 1e-6, "rate_energy_joules": 30e-6, "effective_energy_joules": 2.5e-6}
    newer = [run(record={"operations": joules | {"other_energy_joules": 0.7e-6}}, **axis) for axis in ({}, SLTT)]
    [row] = [row for row in table_of(newer) if row.time == "sltt"]
    shown = render(newer, [], "markdown")
    assert "| 1.00 | 30.00 | 2.50 | 0.70 |" in shown and row.other_energy_joules.mean == 0.7e-6
    assert "| energy NeuroBench |" in shown.replace("<br>", " ")
    assert "NeuroBench |" not in render([run(), run(**SLTT)], [], "markdown")


def test_records_on_bptt_and_dense_have_no_further_tables_and_keep_their_json():
    records = [make_record(make_spec()), make_record(make_spec("sadp", 0.5)), run(), run("sadp", 0.5), run(timesteps=2)]
    found = Contents(records)
    assert found.axes == found.memory == found.search == []
    for format in ("text", "markdown", "latex", "html"):
        shown = render(records, [], format)
        assert not any(word in shown for word in ("not measured", "time and weights", "sparsity", "bptt"))


def test_a_group_without_other_axes_is_in_no_table_beside_one_with_them():
    records = [*three_axes(), run(batch_size=32), run("sadp", 0.5, batch_size=32)]
    assert {row.settings["batch_size"] for row in table_of(records)} == {64}


def test_missing_plain_run_is_reported_with_the_command_that_makes_it():
    sparse = run("sadp", 0.5, 4, search=10.0, **SLTT_2, **IMP)
    [row] = table_of([sparse])
    assert row.speedup.n == row.product.n == 0 and row.missing_singles == ()
    [line] = row.missing_references
    assert line == command(sparse.spec.plain()) and "--backprop" not in line and "--sparsity" not in line
    assert spec_of_words(line.split()[2:]) == sparse.spec.plain()
    for format in ("text", "markdown"):
        assert f"sadp 50 % · sltt-k K=2 · imp 25 %, because its reference is missing; make it: `{line}`" in render(
            [sparse], [], format
        )
    assert f"% make it: {line}" in render([sparse], [], "latex")
    assert f"<code>{line}</code>" in render([sparse], [], "html")


def test_missing_single_axes_are_reported_with_the_commands_that_make_them():
    both = run("sadp", 0.5, seconds=40, **SLTT_2)
    records = [run(), both, run(seconds=80, **SLTT_2)]
    row = row_of(table_of(records), "sadp 50 % · sltt-k K=2 · dense")
    assert row.speedup.mean == pytest.approx(2.5) and not row.product.n
    assert row.missing_singles == (command(run("sadp", 0.5).spec),)
    assert f"one axis alone is missing; make it: `{row.missing_singles[0]}`" in render(records)


def test_runs_of_another_environment_or_data_are_never_compared():
    elsewhere = {"environment": ENVIRONMENT | {"threads": 2}}
    records = [
        run(),
        run(seconds=10, record=elsewhere, **SLTT),
        run(seconds=10, record={"data_sha256": "1" * 64}, **SLTT_2),
    ]
    table = table_of(records)
    for name, why in (("full · sltt · dense", "threads 1 -> 2"), ("full · sltt-k K=2 · dense", "other data")):
        row = row_of(table, name)
        assert row.speedup.n == row.speedup_without_search.n == 0 and row.mismatches == (why,)
        assert f"No speed-up for a seed of {name}: its reference differs ({why})." in render(records, width=200)
    assert "Warning: these runs differ in threads (1, 2)." in render(records, width=200)
    # a product needs each of its runs measured alike
    [combined] = [run("sadp", 0.5, seconds=20, **SLTT)]
    row = row_of(table_of([*records, run("sadp", 0.5, seconds=50), combined]), "sadp 50 % · sltt · dense")
    assert row.speedup.mean == pytest.approx(5) and not row.product.n


def test_equal_updates_are_held_against_the_plain_run_of_equal_epochs():
    changed = {"protocol": "updates", "record": {"examples_seen": 10_000}}
    records = [run(), run(seconds=75, **SLTT_2), run("sadp", 0.5, seconds=105, **changed)]
    records.append(run("sadp", 0.5, seconds=80, **changed, **SLTT_2))
    table = [row for row in table_of(records) if row.settings["protocol"] == "updates"]
    row = row_of(table, "sadp 50 % · sltt-k K=2 · dense")
    assert row.speedup.mean == pytest.approx(100 / 80) and row.theoretical_speedup.mean == pytest.approx(1.5)
    assert row.product.mean == pytest.approx(100 / 105 * 100 / 75) and "full · bptt · dense" in [r.name for r in table]


def test_weights_are_named_with_the_options_that_differ():
    records = [
        run(sparsity="pq", density=0.4, sparsity_options={"adaptive": adaptive, "shrink": True})
        for adaptive in (True, False)
    ]
    names = {row.weights for row in table_of([*records, run()])}
    assert names == {"dense", "pq 40 % (adaptive=true)", "pq 40 % (adaptive=false)"}


def test_tables_by_ratio_name_the_axes_in_their_titles_only_where_they_differ():
    titles = {
        row.group.partition("fp32")[2] for row in rows([run(), run(**SLTT_2), run(**EARLY), run(**EB), run(**PQ)])
    }
    assert titles == {
        " · bptt · dense", " · sltt-k K=2 · dense", " · bptt · imp 25 % early-time", " · bptt · eb 50 %", " · bptt · pq 40 %",
    }  # fmt: skip
    assert {row.group.partition("fp32")[2] for row in rows([run(**SLTT), run("sadp", 0.5, **SLTT)])} == {""}


def test_rows_by_ratio_carry_the_costs_and_older_records_none():
    row = rows([run(search=30.0, **IMP)])[0]
    costs = {
        "search_seconds_mean": 30.0,
        "train_memory_bytes_mean": 100 * MIB,
        "accumulates_mean": 5e5,
        "density_mean": 0.25,
    }
    assert (
        {name: row.columns()[name] for name in costs} == costs
        and row.settings["sparsity.rewind"] == 0
        and row.settings["density"] == 0.25
    )
    older = rows([make_record(make_spec())])[0]
    assert older.search_seconds.n == older.train_memory_bytes.n == older.energy_joules.n == 0


def test_full_data_alone_is_reported_by_the_table_of_the_axes_and_by_no_table_of_its_own():
    shown = render(three_axes(), [], "markdown")
    titles = [line for line in shown.splitlines() if line.startswith("### digits")]
    assert len(titles) == 3 and all(
        title.endswith(("bptt · dense", "sltt-k K=2 · dense", "imp 25 %")) for title in titles
    )
    assert "Cells: accuracy in %" not in render([run(), run(**SLTT)], [], "markdown")
