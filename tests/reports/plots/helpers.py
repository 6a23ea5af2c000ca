"""Records whose plots can be worked out by hand, and functions that read a plot."""

import dataclasses

import pytest

from sadp_bench.records.visit_counts import pack
from sadp_bench.reports.grouping import rows
from sadp_bench.reports.plots.palette import method_styles
from tests.example_records import ENVIRONMENT, make_record, make_spec

EPOCHS, N = 4, 10


def run(method="full", ratio=0.0, seed=0, accuracy=0.7, seconds=10.0, visits=None, environment=ENVIRONMENT, **changed):
    """Returns a record of 10 examples and 4 epochs, evaluated after the second and the last. Scoring takes half the time."""
    spec = make_spec(method, ratio, seed, epochs=EPOCHS, train_examples=N, **changed)
    kept = round(N * (1 - ratio))
    row = {"kept": kept, "mean_weight": 1.0, "train_loss": 1.0, "learning_rate": 0.1, "seconds": seconds / 2 / EPOCHS}
    epochs = [{"epoch": epoch, **row} for epoch in range(EPOCHS)]
    epochs[1]["test_accuracy"], epochs[3]["test_accuracy"] = accuracy / 2, accuracy
    spent = {"prepare": seconds / 2, "select": seconds / 8, "train": 3 * seconds / 8, "evaluate": 1.0 + seed}
    result = {} if visits is None else {"visits": pack(visits), "class_visits": {"a": 3.0, "b": 1.0}}
    return make_record(spec, accuracy, seconds=spent, epochs=epochs, environment=environment, **result)


def runs(*ratios, seeds=(0, 1), methods=("random", "sadp"), **changed):
    """Returns records in which random is faster, sadp better and full the best. Every seed differs."""
    found = [run("full", 0.0, seed, 0.80 + seed / 100, 100.0 + seed, visits=[EPOCHS] * N, **changed) for seed in seeds]
    for number, method in enumerate(methods):
        for ratio in ratios:
            visits = [4, 4, 3, 2, 2, 1, 1, 1, 1, 1] if number else [2] * N
            share = dict(accuracy=0.7 + number / 50 - ratio / 10, seconds=100 * (1 - ratio) + 9 * number)
            for seed in seeds:
                more = {"accuracy": share["accuracy"] + seed / 50, "seconds": share["seconds"] + seed}
                found.append(run(method, ratio, seed, visits=visits, **more, **changed))
    return found


def styles_of(table):
    return method_styles({row.label: row.method for row in table})


def lines_of(axes):
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}


def bars_of(axes):
    """Returns the two ends, ((x, y), (x, y)), of every interval drawn."""
    return [tuple(map(tuple, segment)) for bar in axes.containers if hasattr(bar, "has_yerr")
            for collection in bar[2] for segment in collection.get_segments()]  # fmt: skip


def near(points):
    return [pytest.approx(point) for point in points]


def table_of(records):
    """Returns the rows of the records, each with intervals that no other has."""
    table = []
    for number, row in enumerate(rows(records)):
        wide = {}
        for name in ("accuracy", "seconds", "speedup", "random_difference"):
            estimate = getattr(row, name)
            low, high = estimate.mean * (0.99 - number / 1000), estimate.mean * (1.01 + number / 500)
            wide[name] = dataclasses.replace(estimate, low=low, high=high)
        table.append(dataclasses.replace(row, **wide))
    return table
