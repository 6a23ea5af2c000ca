"""The accuracy on the worst class: paired differences, and every rendering of records with and without it."""

from __future__ import annotations

import json

import pytest

from sadp_bench.reports import render
from sadp_bench.reports.contents import Contents
from tests.example_records import make_record, make_spec

CLASSES = {
    ("full", 0.0): ((0.6, 0.8, 0.7), (0.9, 0.5, 0.7)),
    ("drop", 0.3): ((0.8, 0.64, 0.7), (0.56, 0.8, 0.7)),
    ("random", 0.3): ((0.4, 0.9, 0.7), None),
}  # (method, ratio): the classes' accuracies of the seeds 0 and 1


def records():
    found = []
    for (method, ratio), runs in CLASSES.items():
        for seed, shares in enumerate(runs):
            own = {} if shares is None else {"class_accuracy": dict(zip("abc", shares, strict=True))}
            found.append(make_record(make_spec(method, ratio, seed), 0.7 + 0.01 * seed, **own))
    return found


def test_rows_equal_hand_worked_numbers():
    rows = {row.label: row for row in Contents(records()).rows}
    assert [(rows[name].worst_class_accuracy.mean, rows[name].worst_class_accuracy.n) for name in rows] == [
        (pytest.approx(0.55), 2), (pytest.approx(0.4), 1), (pytest.approx(0.6), 2),
    ]  # fmt: skip
    difference = rows["drop"].worst_class_difference
    assert (difference.mean, difference.n) == (pytest.approx((0.04 + 0.06) / 2), 2)
    assert difference.half == pytest.approx(12.706205 * 0.01)
    assert (rows["random"].worst_class_difference.mean, rows["random"].worst_class_difference.n) == (
        pytest.approx(-0.2), 1,
    )  # fmt: skip
    columns = rows["drop"].columns()
    assert columns["worst_class_accuracy_mean"] == pytest.approx(0.6) and columns["n_worst_class"] == 2


def test_other_data_gives_no_difference():
    full, drop = records()[0], records()[2]
    other = make_record(drop.spec, class_accuracy=drop.class_accuracy, data_sha256="1" * 64)
    [row] = [row for row in Contents([full, other]).rows if row.label == "drop"]
    assert row.worst_class_accuracy.n == 1 and row.worst_class_difference.n == 0


def test_every_format_shows_it_and_only_where_records_have_it():
    shown = render(records(), [], "markdown")
    assert "### Worst class: digits" in shown
    # 60 and 56 to 64, where 12.7 standard errors reach the ends of the scale
    assert "| drop 30 % | 70.50 ±6.35 (2) | 60.00" in shown and "| +5.00 (2)<br>[-7.71, +17.71] |" in shown
    text = render(records(), [], "text")
    assert max(map(len, text.splitlines())) <= 80 and "worst class" in text
    assert json.loads(render(records(), [], "json"))["rows"][0]["worst_class_accuracy_mean"] == pytest.approx(0.55)
    for format in ("latex", "html", "csv"):
        assert ("worst_class" if format == "csv" else "worst class") in render(records(), [], format).lower(), format
    old = [make_record(record.spec, record.test_accuracy) for record in records()]
    for format in ("text", "markdown", "latex", "html"):
        assert "worst class" not in render(old, [], format).lower(), format
