"""The figures of what gets pruned: histograms, classes and pictures, and where the pictures come from."""

import dataclasses
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets.digits import Digits
from sadp_bench.reports import plots
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.plots import legends, pictures, saving, visits
from sadp_bench.reports.plots.epochs import by_ratio
from sadp_bench.reports.plots.visits import visits_of
from sadp_bench.runs.material import load_material
from tests.example_records import make_record, make_spec
from tests.reports.plots.helpers import N, near, run, runs, styles_of


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60))
def test_histogram_counts_each_number_of_visits(counts):
    heights, edges = visits.histogram(np.array(counts) / 20, 20)
    expected = Counter(counts)
    assert list(heights) == pytest.approx([expected[number] / len(counts) for number in range(21)])
    assert len(edges) == 22


@given(st.integers(1, 400), st.data())
def test_histogram_of_long_runs_has_few_bins_and_loses_no_example(epochs, data):
    counts = data.draw(st.lists(st.integers(0, epochs), min_size=1, max_size=60))
    heights, _ = visits.histogram(np.array(counts) / epochs, epochs)
    assert sum(heights) == pytest.approx(1) and len(heights) <= visits.MAX_BINS


def test_visits_pool_the_seeds_and_classes_are_against_the_average():
    records = runs(0.5)
    table = rows(records)
    [own] = by_ratio(table).values()
    figure = visits.visits_figure(own, visits_of(records, pytest.fail), styles_of(table))
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert heights == [near([0, 50, 20, 10, 20])]  # random shows all examples equally often, so it has no panel
    assert "to within one visit: Random." in figure.get_supxlabel().replace("\n", " ")
    assert [axes.texts[-1].get_text() for axes in figure.axes] == ["never 0.0 %, always 20.0 %"]
    image = visits.classes_figure(own).axes[0].images[0].get_array()
    assert image.tolist() == [near([50, -50]), near([50, -50])]  # of 2 visits on average


def test_long_names_of_classes_leave_room_for_the_plot():
    names = ("x" * 300, "crane, " * 50, "$\\frac{")
    record = dataclasses.replace(run("random", 0.5, visits=[2] * N), class_visits=dict.fromkeys(names, 1.0))
    [own] = by_ratio(rows([record])).values()
    figure = visits.classes_figure(own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saving.as_bytes(figure, "svg")
    assert max(len(label.get_text()) for label in figure.axes[0].get_xticklabels()) == legends.MAX_CLASS


def test_pictures_show_the_extremes_of_the_mean_over_seeds():
    records = runs(0.5)
    table = rows(records)
    pixel_N = np.arange(N, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), dtype=np.uint8)
    images = pictures.Images(pixel_N, [number % 2 for number in range(N)], ("even", "odd"))
    [own] = by_ratio(table).values()
    figure = pictures.pictures_figure(own, visits_of(records, pytest.fail), images, styles_of(table))
    [axes] = figure.axes
    # random chose all alike, so it has no row; of sadp's visits 4, 4, 3, 2, 2, 1, 1, 1, 1, 1 ties go to the first
    assert [int(image.get_array()[0, 0]) for image in axes.images] == [0, 1, 2, 3, 4, 5] + [5, 6, 7, 8, 9, 3]
    assert [text.get_text() for text in axes.texts[3:5]] == ["even\n100 %", "odd\n100 %"]
    assert "All images equally often: Random." in figure.get_supxlabel().replace("\n", " ")


def test_visits_that_cannot_be_read_are_left_out_with_the_reason():
    records = [run("random", 0.5, 0, visits=[2] * N), run("random", 0.5, 1, visits=[2] * (N - 1))]
    warnings = []
    assert list(visits_of(records, warnings.append)) == [records[0].spec.key]
    assert len(warnings) == 1 and "random 50 %, seed 1" in warnings[0] and "damaged" in warnings[0]


def test_images_at_hand_are_those_whose_visits_the_record_counts(tmp_path):
    spec = make_spec("random", 0.5, train_examples=50)
    material = load_material(Digits(tmp_path, 1), spec.dataset, spec.evaluate_on, 50)
    images = pictures.at_hand(tmp_path)(make_record(spec, data_sha256=material.sha256))
    assert images.pixel_N.shape == (50, 8, 8) and images.pixel_N.max() == 255
    assert images.label_N == material.train.label_N.tolist() and images.class_names[3] == "3"
    assert np.array_equal(images.pixel_N, (material.train.input_N[:, 0].numpy() * (255 / 16)).round())


NOT_AT_HAND = {
    "digits": "not the data that the runs saw",
    "cifar10": "is not in",
    "nmnist": "not images",
    "os:path": "no registered",
}


def test_images_that_are_not_at_hand_are_left_out_with_the_reason(tmp_path):
    for dataset, why in NOT_AT_HAND.items():
        records = [run("sadp", 0.5, visits=[4, 3, 2, 2, 2, 2, 2, 1, 1, 1], dataset=dataset)]
        with pytest.raises(BadInput, match=why):
            pictures.at_hand(tmp_path)(records[0])
        warnings = []
        assert (
            plots._open_images(
                rows(records), visits_of(records, pytest.fail), pictures.at_hand(tmp_path), warnings.append
            )
            is None
        )
        assert len(warnings) == 1 and why in warnings[0]
