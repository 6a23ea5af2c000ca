"""Plots over time: seconds, the Pareto front, phases, progress."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.core.phases import CHARGED_PHASES, PHASES
from sadp_bench.records.record import DISTURBED
from sadp_bench.reports import plots
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.plots.epochs import curve, kept_figure, progress_figure
from sadp_bench.reports.plots.time import (
    covered,
    front_band,
    pareto,
    phases_figure,
    surely_beaten,
    time_figure,
    timed_together,
)
from tests.example_records import ENVIRONMENT
from tests.reports.plots.helpers import lines_of, near, run, runs, styles_of, table_of


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=1, max_size=8))
def test_the_band_of_the_front_holds_every_front_that_the_intervals_allow(corners):
    points = [((min(a, b), (a + b) / 2, max(a, b)), (min(c, d), (c + d) / 2, max(c, d))) for a, b, c, d in corners]
    worst, best = front_band(points)
    beaten = surely_beaten(points)
    for place, ((fast, _, slow), (low, _, high)) in enumerate(points):
        assert any(s <= slow and a >= low for s, a in worst) and any(s <= fast and a >= high for s, a in best)
        others = [own for number, own in enumerate(points) if number != place]
        strictly = [a for a in others if a[0][2] <= fast and a[1][0] >= high and (a[0][2] < fast or a[1][0] > high)]
        assert beaten[place] == bool(strictly)
        # A point that nothing surely beats is on the front for some values within the intervals: its best, the others' worst.
        values = [(fast, high)] + [(own[0][2], own[1][0]) for own in others]
        assert (0 in pareto(values)) == (not beaten[place])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_pareto_front_is_what_nothing_dominates(points):
    beaten = {a for a, (s, acc) in enumerate(points) for s2, acc2 in points
              if s2 <= s and acc2 >= acc and (s2 < s or acc2 > acc)}  # fmt: skip
    front = pareto(points)
    assert sorted(front) == sorted(set(range(len(points))) - beaten)
    assert [points[place] for place in front] == sorted(points[place] for place in front)


def test_time_figure_shows_seconds_in_a_readable_unit_and_the_front():
    for seconds, size, name in ((1, 1, "seconds"), (10, 60, "minutes"), (100, 3600, "hours")):
        records = [run("full", 0.0, 0, 0.8, 100.0 * seconds), run("random", 0.3, 0, 0.6, 80.0 * seconds),
                   run("random", 0.5, 0, 0.5, 50.0 * seconds), run("sadp", 0.5, 0, 0.75, 50.0 * seconds)]  # fmt: skip
        table = rows(records)
        [axes] = time_figure(table, styles_of(table)).axes
        drawn = lines_of(axes)
        assert f"({name})" in axes.get_xlabel()
        assert drawn["Random"] == near([(80 * seconds / size, 60), (50 * seconds / size, 50)])
        assert drawn["Full data"] == near([(100 * seconds / size, 80)])
        front = drawn["Pareto front of the means"]
        assert front[:-1] == near([(50 * seconds / size, 75), (100 * seconds / size, 80)])
        assert front[-1] == (axes.get_xlim()[1], pytest.approx(80))


def test_ratios_beside_points_cover_no_other():
    table = table_of(runs(0.3, 0.4, 0.5, 0.6, 0.7, methods=tuple("abcdefgh")))
    figure = time_figure(table, styles_of(table))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert boxes and not any(box.count_overlaps(boxes[:number]) for number, box in enumerate(boxes))


def test_bars_far_longer_than_the_axis_cost_no_more_than_its_length():
    records = runs(0.3, 0.5, 0.7)
    for spread in (0.0, 0.4):  # of the accuracies of two seeds: their interval is 9 times as long
        table = rows([dataclasses.replace(run, test_accuracy=0.5 + spread * run.spec.seed) for run in records])
        [axes] = time_figure(table, styles_of(table)).axes
        assert len(covered(axes, table, 1.0)) < 3000, spread


def test_phases_are_stacked_means_over_seeds_with_full_on_top():
    records = runs(0.3, 0.5)
    table = rows(records)
    own = table
    [axes] = phases_figure(own[::-1]).axes
    assert axes.get_yticklabels()[0].get_text() == "Full data"
    shown = [own[0], *own[:0:-1]]
    widths = np.reshape([patch.get_width() for patch in axes.patches], (len(shown), len(PHASES))).T.tolist()
    for phase, of in zip(PHASES, widths, strict=True):
        assert of == near([np.mean([record.seconds[phase] for record in row.runs]) for row in shown])
    charged = [sum(of) for of in zip(*widths[: len(CHARGED_PHASES)], strict=True)]
    assert charged == near([row.seconds.mean for row in shown])
    assert lines_of(axes)["Full data, charged"][0][0] == pytest.approx(100.5)


def test_methods_whose_seconds_may_not_be_compared_show_their_phases_at_the_speed_of_full():
    storm = ENVIRONMENT | {DISTURBED: "a storm"}
    records = runs(0.5) + [run("el2n", 0.5, seed, seconds=900.0 + seed, environment=storm) for seed in (0, 1)]
    [axes] = phases_figure(rows(records)).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    place = names.index("EL2N 50 % *")
    bars = np.reshape([patch.get_width() for patch in axes.patches], (len(names), len(PHASES)))
    prepare, train = PHASES.index("prepare"), PHASES.index("train")
    assert bars[place, train] == pytest.approx(bars[0, train] / 2)  # half of full's visits
    assert bars[place, prepare] / bars[place, train] == pytest.approx(4 / 3)  # as measured, see `helpers.run`


def test_kept_shares_are_means_over_the_seeds_that_got_so_far():
    records = runs(0.3, 0.5)
    records[-1].epochs[0]["kept"] = 9
    del records[-1].epochs[2:]
    table = rows(records)
    figure = kept_figure(table, styles_of(table))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["30 % pruned", "50 % pruned"]
    assert lines_of(figure.axes[0])["Random"] == near([(epoch, 70) for epoch in (1, 2, 3, 4)])
    assert lines_of(figure.axes[1])["SADP"] == near([(1, 70), (2, 50), (3, 50), (4, 50)])


def test_progress_is_accuracy_at_the_time_charged_so_far():
    records = [run("full", accuracy=0.8, seconds=80.0), *(run("sadp", 0.5, s, 0.6, 40.0 + 8 * s) for s in (0, 1))]
    table = rows(records)
    [axes] = progress_figure(table, styles_of(table)).axes
    drawn = lines_of(axes)
    # half of the seconds before the first epoch, then an eighth of them each
    assert drawn["Full data"] == near([(60, 40), (80, 80)])
    assert drawn["SADP"] == near([(33, 30), (44, 60)])
    assert [line.get_linewidth() for line in axes.lines].count(0.5) == 2


def test_a_run_without_the_seconds_of_its_epochs_has_no_curve():
    record = run()
    del record.epochs[2]["seconds"]
    assert curve(record) == []
    assert progress_figure([], {}) is None


def test_runs_of_several_environments_share_no_figure_of_time(tmp_path):
    other = ENVIRONMENT | {"jobs": 2}
    records = [*runs(0.5), *runs(0.5, methods=("el2n",), environment=other)[2:]]
    kept, left_out = timed_together(rows(records))
    assert [row.label for row in kept] == ["full", "random", "sadp"]
    assert left_out == "Left out, as timed in other environments: EL2N 50 %."
    mixed = [run("random", 0.5, 0), run("random", 0.5, 1, environment=other)]
    warnings = []
    drawn = plots.draw(mixed, tmp_path, warn=warnings.append, formats=("png",))
    assert {path.stem.rpartition("-")[2] for path in drawn} == {"accuracy", "kept"}
    assert len(warnings) == 1 and "Random 50 %" in warnings[0]


def test_disturbed_seconds_are_in_no_mean_beside_others():
    calm = runs(0.5)
    stormy = [
        run(record.spec.method, record.spec.ratio, 2, seconds=9000.0, environment=ENVIRONMENT | {DISTURBED: "a storm"})
        for record in calm
        if record.spec.seed == 0
    ]
    for records in (calm, calm + stormy):
        own = rows(records)
        (axes,) = phases_figure(own).axes
        ends = [patch.get_x() + patch.get_width() for patch in axes.patches]
        assert max(ends) < 110  # charged seconds, and one or two of evaluation; see `helpers`
        assert [len(row.timed) for row in own] == [2, 2, 2]
        (panel,) = progress_figure(own, styles_of(rows(records))).axes
        assert max(x for line in panel.lines for x in line.get_xdata()) < 110


def test_plots_of_time_that_are_left_out_are_named_only_where_something_was_pruned(tmp_path):
    storm = ENVIRONMENT | {DISTURBED: "a storm"}
    warnings = []
    for records in ([run(environment=storm)], [run(environment=storm), run("random", 0.5, environment=storm)]):
        list(plots.plots_of(records, warn=warnings.append))
    assert len(warnings) == 1 and warnings[0].startswith("no plots of time of digits")
