"""The figures: the drawn numbers are those of the rows and records."""

import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.core.phases import CHARGED_PHASES, PHASES
from sadp_bench.records.record import DISTURBED, Failure
from sadp_bench.reports import plots
from sadp_bench.reports.plots.epochs import curve, kept_figure, progress_figure
from sadp_bench.reports.plots.ratio import accuracy_figure, speedup_figure
from sadp_bench.reports.plots.style import FORMATS, limits
from sadp_bench.reports.plots.time import covered, pareto, phases_figure, time_figure, timed_together
from sadp_bench.reports.rows import rows
from tests.example_records import ENVIRONMENT, make_spec
from tests.paths import ROOT
from tests.reports.plots.helpers import bars_of, lines_of, near, run, runs, styles_of

KINDS = ["accuracy", "classes-r0.5", "kept", "phases", "progress", "speedup", "time", "visits-r0.5"]


def table_of(records):
    """The rows, with intervals that nothing else has."""
    table = []
    for number, row in enumerate(rows(records)):
        wide = {}
        for name in ("accuracy", "seconds", "speedup"):
            estimate = getattr(row, name)
            low, high = estimate.mean * (0.99 - number / 1000), estimate.mean * (1.01 + number / 500)
            wide[name] = dataclasses.replace(estimate, low=low, high=high)
        table.append(dataclasses.replace(row, **wide))
    return table


def test_accuracy_and_speedup_show_the_rows_means_and_intervals():
    for ratios in ((0.5,), (0.3, 0.5)):
        table = table_of(runs(*ratios))
        styles = styles_of(table)
        for build, name, scale in ((accuracy_figure, "accuracy", 100), (speedup_figure, "speedup", 1)):
            [axes] = build(table, styles).axes
            drawn, bars = lines_of(axes), bars_of(axes)
            for label, shown in (("random", "Random"), ("sadp", "SADP")):
                own = [row for row in table if row.label == label]
                assert [y for _, y in drawn[shown]] == near([scale * getattr(row, name).mean for row in own])
                for row, (x, _) in zip(own, drawn[shown], strict=True):
                    assert ((x, scale * getattr(row, name).low), (x, scale * getattr(row, name).high)) in [
                        tuple(near(bar)) for bar in bars
                    ]
            assert len(bars) == 2 * len(ratios)
        [axes] = accuracy_figure(table, styles).axes
        band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert (band.y0, band.y1) == pytest.approx((100 * table[0].accuracy.low, 100 * table[0].accuracy.high))
        assert lines_of(axes)["Full data"][0][1] == pytest.approx(80.5)


def test_methods_of_one_ratio_are_named_below_the_axis_or_where_that_is_too_narrow_in_the_legend():
    for long in (False, True):
        names = [name * (30 if long else 1) for name in ("ab", "cd")]
        table = rows(runs(0.5, methods=names))
        for build in (accuracy_figure, speedup_figure):
            figure = build(table, styles_of(table))
            ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
            legend = [text.get_text().replace("\n", "") for text in figure.legends[0].get_texts()]
            assert ticks == (["", ""] if long else names)
            assert set(names) & set(legend) == (set(names) if long else set())


def test_rows_without_intervals_have_no_bars():
    table = rows(runs(0.5, seeds=(0,)))
    styles = styles_of(table)
    for build in (accuracy_figure, speedup_figure, time_figure):
        figure = build(table, styles)
        assert not bars_of(figure.axes[0]) and not len(figure.axes[0].patches)


def test_a_ceiling_is_drawn_where_it_is_not_the_nominal_maximum():
    table = rows(runs(0.5))
    table = [
        dataclasses.replace(row, ceiling=dataclasses.replace(row.ceiling, mean=1.7)) if row.label == "sadp" else row
        for row in table
    ]
    [axes] = speedup_figure(table, styles_of(table)).axes
    segments = [segment for part in axes.collections for segment in part.get_segments()]
    assert [start[1] for start, end in segments if start[1] == end[1]] == [1.7]
    assert "ceiling of its visits" in lines_of(axes)


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
        assert drawn["Pareto front"] == near([(50 * seconds / size, 75), (100 * seconds / size, 80)])


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
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers if not hasattr(bars, "has_yerr")]
    shown = [own[0], *own[:0:-1]]
    for phase, of in zip(PHASES, widths, strict=True):
        assert of == near([np.mean([record.seconds[phase] for record in row.runs]) for row in shown])
    charged = [sum(of) for of in zip(*widths[: len(CHARGED_PHASES)], strict=True)]
    assert charged == near([row.seconds.mean for row in shown])
    assert lines_of(axes)["Full data, charged"][0][0] == pytest.approx(100.5)


def test_kept_shares_are_means_over_the_seeds_that_got_so_far():
    records = runs(0.3, 0.5)
    records[-1].epochs[0]["kept"] = 9
    del records[-1].epochs[2:]
    table = rows(records)
    figure = kept_figure(table, styles_of(table))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["pruning ratio 30 %", "pruning ratio 50 %"]
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


def test_a_row_holds_its_runs():
    options = [{"smoothing": 0.1}, {"smoothing": 0.2}]
    records = [run("sadp", 0.5, seed, method_options=one, protocol="updates") for one in options for seed in (0, 1)]
    records += [run(seed=seed) for seed in (0, 1)]
    found = rows(records[::-1])
    assert [(row.label, row.seeds, row.runs[0].spec.method_options) for row in found] == [
        ("full", [0, 1], {}), ("sadp (smoothing=0.1)", [0, 1], options[0]), ("sadp (smoothing=0.2)", [0, 1], options[1]),
    ]  # fmt: skip


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 1000))
def test_limits_hold_every_value_and_wide_intervals_do_not_squeeze_them(values, reach):
    low, high = limits(values, [(min(values) - reach, max(values) + reach), None], 2.0)
    span = max(2.0, max(values) - min(values))
    assert low < min(values) and high > max(values) and 2.0 - 1e-9 <= high - low <= 2.5 * span


def test_every_figure_is_written_in_three_formats_and_the_same_records_give_the_same_bytes(tmp_path):
    records = runs(0.5)
    paths = plots.draw(records, tmp_path / "ä b")
    again = plots.draw(records[::-1], tmp_path / "again")
    assert (
        [path.name for path in paths]
        == [path.name for path in again]
        == sorted(p.name for p in paths[0].parent.iterdir())
    )
    assert {path.name.partition("fp32-")[2] for path in paths} == {f"{kind}.{end}" for kind in KINDS for end in FORMATS}
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    for path, other in zip(paths, again, strict=True):
        content = path.read_bytes()
        assert content == other.read_bytes() and content.startswith(starts[path.suffix]) and len(content) > 3000
        assert b"CreationDate" not in content and b"<dc:date>" not in content


def test_records_of_earlier_versions_odd_names_and_failures_are_drawn(tmp_path):
    names = dict(dataset="größe 日本 ☃ $x$ $\\frac{", backbone="_b:$")
    records = [run(**names), run("_own:M$^", 0.5, **names), run("random", 0.25, **names)]
    warnings = []
    paths = plots.draw(records, tmp_path, warn=warnings.append, formats=("svg",))
    assert {path.suffix for path in paths} == {".svg"}
    assert {path.stem.rpartition("-")[2] for path in paths} == set(KINDS) - {
        "classes-r0.5",
        "visits-r0.5",
    } and not warnings
    table = rows(
        records, [Failure(make_spec("grand", 0.3, **names), "killed", "2025"), Failure(make_spec(), "x", "2025")]
    )
    styles = styles_of(table)
    for own in ([row for row in table if row.settings["dataset"] == group] for group in (names["dataset"], "digits")):
        for build in (accuracy_figure, speedup_figure, time_figure):
            assert (build(own, styles) is None) == (own[0].settings["dataset"] == "digits")


def test_plots_are_the_same_under_any_backend_and_matplotlibrc_and_import_no_torch(tmp_path):
    code = """if True:
        import sys
        from pathlib import Path
        from sadp_bench.reports import plots
        from tests.reports.plots.helpers import runs
        assert not {"torch", "matplotlib", "numpy"} & set(sys.modules)
        plots.draw(runs(0.5), Path(sys.argv[1]), formats=("png", "svg"))
        assert not {"torch", "pandas", "matplotlib.pyplot"} & set(sys.modules)
    """
    settings = tmp_path / "settings"
    settings.write_text(
        "font.size: 20\nsavefig.bbox: tight\naxes.grid: True\nsvg.fonttype: none\nfigure.facecolor: red\n"
    )
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe")  # of the working directory, where matplotlib looks first
    environment = {
        "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(settings),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # Jupyter's
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # with the list of fonts, which takes long to make
    }  # fmt: skip
    words = [sys.executable, "-c", code, "there"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    paths = plots.draw(runs(0.5), tmp_path / "here", formats=("png", "svg"))
    assert len(paths) == 2 * len(KINDS)
    for path in paths:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), path.name


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
