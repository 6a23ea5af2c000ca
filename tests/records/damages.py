"""Damaged records: the damage to each file, and the error message of its reader."""

from __future__ import annotations

import json


def nested(depth: int) -> list:
    return [nested(depth - 1)] if depth else []


def edited(**changed):
    """Puts other values in a record's file; None removes the field."""
    return lambda data: json.dumps({name: value for name, value in {**data, **changed}.items() if value is not None})


def in_table(table, **changed):
    return lambda data: json.dumps(data | {table: data[table] | changed})


def in_rows(**changed):
    return lambda data: json.dumps(data | {"epochs": [row | changed for row in data["epochs"]]})


DAMAGES = {
    "empty": (lambda data: "", "not JSON"),
    "truncated": (lambda data: json.dumps(data)[:200], "not JSON"),
    "nested too deep": (lambda data: "[" * 100_000, "not JSON"),
    "list": (lambda data: "[1, 2]", "not a record"),
    "string": (lambda data: '"schema"', "not a record"),
    "null": (lambda data: "null", "not a record"),
    "no schema": (edited(schema=None), "not a record"),
    "newer schema": (edited(schema=99), "schema 99; this version reads schema 1"),
    "schema that steers": (edited(schema="\x1b[2J"), "control characters"),
    "environment that steers": (in_table("environment", processor="a\nb"), "control characters"),
    "edited ratio": (in_table("spec", ratio=0.4), "does not fit its spec"),
    "edited key": (edited(key="0" * 12), "does not fit its spec"),
    "no accuracy": (edited(test_accuracy=None), "lacks test_accuracy"),
    "spec is a list": (edited(spec=[[]]), "wrong type"),
    "spec is null": (lambda data: json.dumps(data | {"spec": None}), "wrong type"),
    "unknown field": (in_table("spec", epoch=1), "mean.*epochs"),
    "accuracy in percent": (edited(test_accuracy=71.2), r"must be a share in \[0, 1\]"),
    "accuracy true": (edited(test_accuracy=True), r"must be a share in \[0, 1\]"),
    "accuracy NaN": (edited(test_accuracy=float("nan")), "not finite"),
    "accuracy huge": (edited(test_accuracy=10**400), "not finite"),
    "epochs huge": (in_table("spec", epochs=10**300), "--epochs is at most"),
    "seconds huge": (in_table("seconds", train=1e308), "seconds .* must be a duration"),
    "no time of evaluation": (edited(seconds={"prepare": 0, "select": 0, "train": 1}), "evaluate"),
    "no time": (in_table("seconds", train=0), "above 0 for train"),
    "deeply nested": (in_table("environment", x=nested(300)), "nested too deep"),
    "no epochs": (edited(epochs=[]), "epochs .* must be a list of rows"),
    "an epoch of negative time": (in_rows(seconds=-1.0), "epochs .* amounts"),
    "an epoch's accuracy in percent": (in_rows(test_accuracy=71.2), "epochs .* amounts"),
    "a negative firing rate": (edited(firing_rate=[-0.5]), "must be a list of amounts"),
    "a search of negative time": (edited(ticket={"seconds": -2.0}), "ticket .* without a negative number"),
    "no visits": (edited(examples_seen=0), "must be a count of at least 1"),
    "visits a number": (edited(visits=3), "visits is 3, and must be a text or null"),
    "visits by class a list": (edited(class_visits=[1]), "class_visits .* must be a table of amounts"),
    "accuracy by class in percent": (edited(class_accuracy={"cat": 71.2}), r"class_accuracy .* shares in \[0, 1\]"),
    "accuracy by class a list": (edited(class_accuracy=[0.5]), "class_accuracy .* must be a table of shares"),
    "fitted accuracy in percent": (edited(fitted_accuracy=93.0), r"fitted_accuracy .* a share in \[0, 1\] or null"),
    "fitted loss a text": (edited(fitted_loss="low"), "fitted_loss is low, and must be an amount or null"),
    "visits by class a text": (edited(class_visits={"cat": "many"}), "class_visits .* must be a table of amounts"),
}
