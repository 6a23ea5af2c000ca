"""The cosine of SLTT's gradient with BPTT's, as panel, report and study show it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sadp_bench.cli.run_view import panel
from sadp_bench.cli.study_view import study_table
from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.measure import score_cost, study_file
from sadp_bench.measure.study import Study
from sadp_bench.records.comparison import compare
from sadp_bench.reports.formats.run_details import _result
from sadp_bench.runs.run import Outcome
from tests.example_records import make_record, make_spec
from tests.small_runs import SMALL

SLTT = make_spec("random", 0.5, backprop="sltt", loss="step")


def shown(thing: Any) -> str:
    console = Console(width=150)
    with console.capture() as capture:
        console.print(thing)
    return " ".join(capture.get().replace("│", " ").split())


def of(**cosine: Any) -> dict[str, Any]:
    return {"first": 0.9, "last": 0.9, "least": 0.17, "least_layer": "body.3", "examples": 64} | cosine


# Whether the panel warns, and the numbers that it shows, by content.
CASES: list[tuple[dict[str, Any], bool, list[str]]] = [
    ({}, False, []),
    (of(first=0.98, last=0.985), False, ["0.985", "least 0.170 in body.3", "first epoch 0.980"]),
    (of(last=0.8), False, ["0.800"]),
    (of(last=0.45), True, ["cosine 0.450 with BPTT's", "backbone.tau=1.1"]),
    (of(first=0.61), True, ["cosine 0.610 with BPTT's"]),
    (of(first=None, last=-0.2), True, ["cosine -0.200", "first epoch –"]),
    ({"first": None, "last": None, "least": None, "least_layer": None}, False, ["–"]),
]


def test_the_panel_warns_below_the_limit_and_the_report_has_the_numbers() -> None:
    for content, warns, parts in CASES:
        found = compare(make_record(SLTT, gradient_cosine=content), None)
        text = shown(panel(Outcome(found, Path("a.json"), None)))
        assert ("paper's regime" in text) == warns, content
        assert all(part in text for part in parts), (content, text)
        assert ("cosine with BPTT" in text) == bool(content)
        details = dict(_result(found))
        assert ("cosine with BPTT" in details) == bool(content)
        if content.get("least_layer"):
            assert "least 0.170 in body.3" in details["cosine with BPTT"]


@pytest.fixture(scope="module")
def studied() -> dict[str, Any]:
    """Returns a study of a run by SLTT, without its scores' costs."""
    spread = {"median": 0.0, "spread": 0.0}
    cost = {"scores": {}, "noise": spread, "calibration": {"first_batch": spread, "share_of_epoch": 0.0}}
    asked = {name: value for name, value in SMALL.items() if name not in ("method", "ratio")} | {"timesteps": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_cost, "measure_cost", lambda *_: cost | {"step_seconds": 0.1, "rounds": 1, "batches": 1})
        asked |= {"backprop": "sltt", "set": {"backbone.width": 4}}
        return Study(asked, "1,2", 10, None, Progress()).measure()


def test_a_study_of_sltt_has_the_cosine_of_each_layer_at_each_stop(studied: dict[str, Any], tmp_path: Path) -> None:
    path = study_file.write(tmp_path, studied)
    read = study_file.read_study(path)
    assert read == json.loads(path.read_text())
    text = shown(study_table(read))
    assert "statistics of each step, as in SLTT's training" in text and "batch 50 · sltt" in text
    for stop in read["stops"]:
        found = stop["gradient_cosine"]
        assert set(found["layers"]) == {*studied["layers"], "readout"} and found["batches"] == 3
        assert found["least"] == min(found["layers"].values()) == found["layers"][found["least_layer"]]
        assert -1 < found["norms_of_all_steps"] < found["whole"]
        shown_whole = f"{found['whole']:.3f} ({found['norms_of_all_steps']:.3f})"
        assert f"cosine {shown_whole}, least {found['least']:.3f} in {found['least_layer']}" in text
    assert len({stop["gradient_cosine"]["whole"] for stop in read["stops"]}) == 2
    older = json.loads(path.read_text())
    for stop in older["stops"]:
        del stop["gradient_cosine"]
    path.write_text(json.dumps(older))
    assert "SLTT" not in shown(study_table(study_file.read_study(path)))


def test_a_damaged_cosine_is_refused(studied: dict[str, Any], tmp_path: Path) -> None:
    for name, value in {"whole": "big", "layers": [1], "least_layer": 1.0, "batches": None}.items():
        damaged = json.loads(json.dumps(studied))
        damaged["stops"][0]["gradient_cosine"][name] = value
        with pytest.raises(BadInput, match="wrong type"):
            study_file.read_study(study_file.write(tmp_path, damaged))
