"""Records for the page, harmless and hostile, and the page made of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from sadp_bench.records.record import Failure
from sadp_bench.reports import render
from tests.example_records import ENVIRONMENT, make_record, make_spec

BAD = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>\"'`&lt;"
LOST = "training diverged: the mean loss is nan in epoch 3"


def example() -> tuple[list[Any], list[Failure]]:
    """Returns runs in two groups: a method with several settings, one without a reference, and a failed run."""
    epochs = [{"epoch": e, "kept": 700, "train_loss": 2 / (e + 1), "test_accuracy": 0.07 * e} for e in range(10)]
    full = [make_record(make_spec(seed=seed), 0.70 + 0.01 * seed, 100 + seed, epochs=epochs) for seed in range(3)]
    pruned = [
        make_record(make_spec(name, ratio, seed), 0.70 + 0.01 * seed - loss * (1 + 0.01 * seed), train)
        for name, ratio, loss, train in (("random", 0.3, 0.03, 75), ("el2n", 0.3, 0.001, 95), ("random", 0.9, 0.2, 9))
        for seed in range(3)
    ]
    settings = [
        make_record(make_spec("sadp", 0.3, 0, method_options={"smoothing": smoothing}), 0.71, 80)
        for smoothing in (0.1, 0.5)
    ]
    other = make_record(make_spec("sadp", 0.3, timesteps=2), 0.5, 40, environment=ENVIRONMENT | {"threads": 2})
    lost = Failure(make_spec("random", 0.3, 7), LOST, "2025-01-01T00:00:00+00:00", 3, 0.1, ["loss is nan"], 2)
    return [*full, *pruned, *settings, other], [lost]


def hostile() -> tuple[list[Any], list[Failure]]:
    """Returns runs with hostile text in every field that takes text."""
    spec = make_spec(
        f"evil:{BAD}", 0.5, dataset=BAD, backbone=BAD, method_options={BAD: BAD}, backbone_options={BAD: BAD}
    )
    environment: dict[str, Any] = {name: BAD for name in ENVIRONMENT} | {BAD: [BAD, {BAD: 1}]}
    odd = {"num_parameters": BAD, "test_examples": [BAD], "peak_memory_bytes": None, "firing_rate": [BAD, 1e99]}
    epochs = [{"kept": 1, "train_loss": BAD, "test_accuracy": 1e300}, {"kept": 1, "train_loss": True}, {"kept": 1}]
    record = make_record(
        spec, environment=environment, epochs=epochs, finished=BAD, data_sha256=BAD, scores_from=BAD,
        seconds={"prepare": 1e99, "select": 0, "train": 1, "evaluate": 0, BAD: 3}, class_visits={BAD: 1e99}, **odd,
    )  # fmt: skip
    lost = Failure(dataclasses.replace(spec, seed=1), BAD, BAD, last_lines=[BAD])
    return [record], [lost]


@functools.cache
def whole() -> str:
    """Returns the page of the example. Drawing its plots takes seconds."""
    records, failures = example()
    return render(records, ["a.json: not JSON"], "html", failures=failures)
