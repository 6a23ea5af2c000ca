"""The figures: the drawn numbers are those of the rows and records."""

import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import Failure
from sadp_bench.reports import plots
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.paper import Paper
from sadp_bench.reports.plots.epochs import kept_figure
from sadp_bench.reports.plots.legends import caption_of, legend_columns
from sadp_bench.reports.plots.look import Look, looking
from sadp_bench.reports.plots.ratio import accuracy_figure, maximum, speedup_figure
from sadp_bench.reports.plots.saving import FORMATS, as_bytes
from sadp_bench.reports.plots.scales import limits
from sadp_bench.reports.plots.time import (
    time_figure,
)
from tests.example_records import make_spec
from tests.paths import ROOT
from tests.reports.plots.helpers import bars_of, lines_of, near, run, runs, styles_of, table_of

KINDS = ["accuracy", "classes-r0.5", "kept", "phases", "progress", "speedup", "time", "visits-r0.5"]


def test_accuracy_and_the_difference_to_random_show_the_rows_means_and_intervals():
    for ratios in ((0.5,), (0.3, 0.5)):
        table = table_of(runs(*ratios))
        panels = accuracy_figure(table, styles_of(table)).axes
        for axes, name, methods in zip(
            panels, ("accuracy", "random_difference"), (("Random", "SADP"), ("SADP",)), strict=True
        ):
            drawn, bars = lines_of(axes), bars_of(axes)
            at = 0 if len(ratios) == 1 else 1  # which coordinate is the number
            for shown in methods:
                own = [row for row in table if row.display_label == shown]
                assert [point[at] for point in drawn[shown]] == near([100 * getattr(row, name).mean for row in own])
                for row, point in zip(own, drawn[shown], strict=True):
                    low, high = 100 * getattr(row, name).low, 100 * getattr(row, name).high
                    ends = ((low, point[1]), (high, point[1])) if at == 0 else ((point[0], low), (point[0], high))
                    assert ends in [tuple(near(bar)) for bar in bars]
            assert len(bars) == len(methods) * len(ratios)
        band = panels[0].patches[0].get_extents().transformed(panels[0].transData.inverted())
        ends = (band.x0, band.x1) if len(ratios) == 1 else (band.y0, band.y1)
        assert ends == pytest.approx((100 * table[0].accuracy.low, 100 * table[0].accuracy.high))
        assert pytest.approx(80.5) in lines_of(panels[0])["Full data"][0]


def test_speedups_stand_at_their_true_ratio_under_their_own_maximum():
    table = table_of(runs(0.3, 0.5))
    low = {"sadp": 0.85, "random": 1.0}  # of the nominal maximum
    table = [
        dataclasses.replace(row, ceiling=dataclasses.replace(row.ceiling, mean=row.nominal_maximum * low[row.label]))
        if row.label in low else row
        for row in table
    ]  # fmt: skip
    for axes, label in zip(speedup_figure(table, styles_of(table)).axes, ("random", "sadp"), strict=True):
        own = [row for row in table if row.label == label]
        drawn = lines_of(axes)
        assert axes.get_title(loc="left") == own[0].display_label
        assert drawn[own[0].display_label] == near([(100 * row.ratio, row.speedup.mean) for row in own])
        expected = [((100 * row.ratio, row.speedup.low), (100 * row.ratio, row.speedup.high)) for row in own]
        assert bars_of(axes) == [tuple(near(bar)) for bar in expected]
        curve = dict(drawn["maximum"])
        assert curve[0] == 1 and curve[50] == pytest.approx(2 * low[label])
        assert maximum(own, 0.3) == pytest.approx(low[label] / 0.7)
    single = [row for row in table if row.ratio in (0, 0.5)]
    [axes] = speedup_figure(single, styles_of(single)).axes
    drawn = lines_of(axes)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Random", "SADP"]
    assert drawn["SADP"] == near([(row.speedup.mean, 1) for row in single if row.label == "sadp"])
    assert drawn["maximum"] == near([(2 * low["sadp"], 1)])  # the last one drawn


def test_far_differences_have_an_axis_on_which_near_ones_can_be_read():
    for drop, scale in ((0.0, "linear"), (0.3, "symlog")):
        records = [
            dataclasses.replace(run, test_accuracy=run.test_accuracy - drop * (run.spec.method == "sadp"))
            for run in runs(0.3, 0.5)
        ]
        table = rows(records)
        assert accuracy_figure(table, styles_of(table)).axes[1].get_yscale() == scale


def test_a_paper_has_no_title_and_no_notes_in_the_picture_and_fits_its_width(tmp_path):
    table = table_of(runs(0.3, 0.5))
    styles = styles_of(table)
    for width in (None, 3.25):
        with looking(Look("paper", width)):
            figures = [build(table, styles) for build in (accuracy_figure, speedup_figure, time_figure, kept_figure)]
        for figure in figures:
            assert figure.get_suptitle() == "" and figure.get_supxlabel() == ""
            assert figure.get_figwidth() == (width or 5.5) and "Means of 2 seeds" in caption_of(figure)
            assert not any(legend.get_title().get_text() for legend in figure.legends)
            figure.draw_without_rendering()
            boxes = [text.get_window_extent() for legend in figure.legends for text in legend.get_texts()]
            assert all(0 <= box.x0 and box.x1 <= figure.bbox.width for box in boxes)
    assert accuracy_figure(table, styles).get_suptitle() == table[0].group  # outside of the context
    for wrong, message in (
        (("thesis", None), "--style is one of page, paper"),
        (("page", 0.5), "--width is from 2 to 20"),
    ):
        with pytest.raises(BadInput, match=message):
            Look(*wrong)


def test_figures_show_the_methods_and_the_names_that_an_author_chose():
    paper = Paper(names={"sadp": "Ours"}, methods=("sadp",))
    [accuracy, *_] = next(plots.plots_of(runs(0.3, 0.5), paper=paper)).figure.axes
    assert set(lines_of(accuracy)) >= {"Ours", "Full data"} and "Random" not in lines_of(accuracy)


def test_figures_of_a_paper_have_a_file_of_captions(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save_all", lambda figure, folder, name, formats: [folder / name])
    drawn = plots.draw(runs(0.5), tmp_path, look=Look("paper"))
    text = (tmp_path / "captions.txt").read_text()
    assert tmp_path / "captions.txt" in drawn
    for path in drawn[1:]:
        assert f"{path.name}: " in text
    assert "accuracy: Accuracy against pruning ratio. digits" in text and "Means of 2 seeds" in text


def test_rows_without_intervals_have_no_bars():
    table = rows(runs(0.5, seeds=(0,)))
    styles = styles_of(table)
    for build in (accuracy_figure, speedup_figure, time_figure):
        figure = build(table, styles)
        assert not bars_of(figure.axes[0]) and not len(figure.axes[0].patches)


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


def test_the_same_records_give_the_same_files_in_any_order_under_any_backend_and_matplotlibrc_and_without_torch(
    tmp_path,
):
    code = """if True:
        import sys
        from pathlib import Path
        from sadp_bench.reports import plots
        from tests.reports.plots.helpers import runs
        assert not {"torch", "matplotlib", "numpy"} & set(sys.modules)
        plots.draw(runs(0.5)[::-1], Path(sys.argv[1]), formats=("svg",))
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
    paths = plots.draw(runs(0.5), tmp_path / "ä b")
    assert [path.name for path in paths] == sorted(path.name for path in (tmp_path / "ä b").iterdir())
    assert {path.name.partition("fp32-")[2] for path in paths} == {f"{kind}.{end}" for kind in KINDS for end in FORMATS}
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(starts[path.suffix]) and len(content) > 3000
        assert b"CreationDate" not in content and b"<dc:date>" not in content
        if path.suffix == ".svg":
            assert content == (tmp_path / "there" / path.name).read_bytes(), path.name


def test_a_figure_gives_the_same_bytes_in_each_format():
    table = rows(runs(0.5))
    for end in ("pdf", "png"):  # svg: above
        first, second = (as_bytes(accuracy_figure(table, styles_of(table)), end) for _ in range(2))
        assert first == second, end


@given(st.lists(st.text("ab ", min_size=1, max_size=30), min_size=1, max_size=12), st.integers(10, 150))
def test_a_legend_has_the_most_columns_that_fit(labels, room):
    found = legend_columns(labels, room)

    def width(columns):  # matplotlib fills the columns one after the other, the first ones with one more
        parts = np.array_split(np.array([len(label) + 6 for label in labels]), columns)
        return sum(int(part.max()) for part in parts)

    assert found == max([columns for columns in range(1, len(labels) + 1) if width(columns) <= room], default=1)


def test_of_so_many_plots_those_of_the_largest_group_come_first_and_of_a_crowded_one_last():
    small, large = runs(0.3, seeds=(0,)), runs(0.3, timesteps=2)
    crowded = [run(f"m{number}", 0.3, timesteps=8) for number in range(13)]
    [plot] = plots.plots_of([*small, *large, *crowded], most=1)
    assert "T=2" in plot.group and plot.kind == "accuracy"
