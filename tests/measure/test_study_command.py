"""The study as a command: its table, its file, its figures, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from sadp_bench.backbones.plain import CNN
from sadp_bench.cli.study_view import study_table
from sadp_bench.core.errors import BadInput
from sadp_bench.core.text import compact
from sadp_bench.measure import score_cost, study_file
from sadp_bench.measure.score_collectors import COLLECTED_SCORES
from sadp_bench.measure.study import Study
from sadp_bench.records.store import read_all
from sadp_bench.reports.plots.study import scores_figure, variance_figure
from tests.commands import Answer, command, complaint, refused
from tests.paths import ROOT

WORDS = "--train-examples 130 --batch-size 50 --timesteps 2 --threads 1 --set backbone.width=4".split()
STUDY = ["study", *WORDS, "--epochs", "3", "--at", "1, 3", "--examples", "60", "--quiet"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answer, Path, Path]:
    """Returns the command line's answer, its file, and its folder of plots."""
    folder = tmp_path_factory.mktemp("kept")
    answer = command(*STUDY, "--out", folder / "studies", "--plots", folder / "plots")
    (path,) = (folder / "studies").iterdir()
    return answer, path, folder / "plots"


def test_the_table_states_what_the_file_holds(kept: tuple[Answer, Path, Path]) -> None:
    answer, path, _ = kept
    assert answer.code == 0 and "digits · cnn · 60 of 130 examples" in answer.out and str(path.name) in answer.out
    found = study_file.read_study(path)
    labels = study_file.labels(found)
    assert all(f"\n{label} " in answer.out for label in labels.values()) and labels[study_file.OWN] == "SADP at 0.2"
    assert max(map(len, answer.out.splitlines()[:-1])) <= 104
    last = found["stops"][-1]["scores"]["layers"]
    rows = [line for line in answer.out.splitlines() if line.startswith("layers  ")]
    now, collected, tau = rows[3:6]  # of the second stop

    def cells(source: str) -> list[float | None]:
        overs = [last[source][over] for over in ("over_uniform", "over_optimum")]
        return [
            last[source]["spearman"],
            last[source]["pearson"],
            *(o[f"{k:g}"] for o in overs for k in study_file.KEEPS),
        ]

    assert now.split()[1:] == [compact(v) for v in [*cells("frozen"), last["training"]["over_optimum"]["0.5"]]]
    aged = [last.get(f"age {age}", {}).get("over_uniform", {}).get("0.5") for age in (1, 2, 5)]
    assert collected.split()[1:] == [compact(v) for v in cells("age 0")]
    taus = [last[source]["tau"][f"{keep:g}"] for source in ("frozen", "age 0") for keep in study_file.KEEPS]
    assert tau.split()[1:] == [compact(v) for v in [*taus, *aged]] and tau.endswith("–")
    for width in (80, 104):  # every table fits a terminal of 80 columns: rich neither cuts nor folds its rows
        lines = shown(found, width).splitlines()
        assert [line.rstrip() for line in lines if line.startswith("layers  ")] == rows and max(
            map(len, lines)
        ) <= width


def test_a_study_says_what_it_found_before_the_numbers() -> None:
    paths = sorted((ROOT / "results" / "studies").rglob("*.study.json"))
    for path in paths:
        found = study_file.read_study(path)
        last = found["stops"][-1]
        left = {name: cell["age 0"]["over_uniform"]["0.5"] for name, cell in last["scores"].items() if "age 0" in cell}
        rivals = {name: value for name, value in left.items() if name in study_file.RIVALS}
        text = shown(found, 160)
        sentence = text.split("\n\n")[1]
        assert text.index(sentence) < text.index("\nafter epoch ") and sentence.endswith(".")
        shares = [f"{100 * of:.0f} %" for of in (0.5, left["sadp"], last["optimum_over_uniform"]["coming"]["0.5"])]
        least = min(rivals.values())
        best = [] if rivals["sadp"] == least else [f"{100 * least:.0f} %"]
        assert re.findall(r"\d+ %", sentence) == [*shares[:2], *best, shares[2]], path.name
        assert ("least of all" in sentence) is (not best)
        if best:
            winner = min(rivals, key=lambda name: rivals[name])
            assert f"the best, {study_file.labels(found)[winner]}," in sentence


def shown(found: dict[str, Any], width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(study_table(found))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_studies_of_earlier_versions_show_v_alone() -> None:
    later = {ROOT / "results" / "studies" / name for name in ("bias", "networks")}
    paths = [path for path in (ROOT / "results" / "studies").rglob("*.study.json") if not later & set(path.parents)]
    assert len(paths) > 2
    for path in paths:
        found = study_file.read_study(path)
        text = shown(found, 80)
        assert "tau" not in text and "SADP at" not in text and "under" not in text.splitlines()[0], path.name
        cell = found["stops"][-1]["scores"]["sadp"]["age 0"]
        last = [line for line in text.splitlines() if line.startswith("SADP ")]
        assert any(compact(cell["over_uniform"]["0.5"]) in line for line in last), path.name


def test_json_is_one_object_and_comes_back_from_its_file(kept: tuple[Answer, Path, Path], tmp_path: Path) -> None:
    answer = command(*STUDY[:-1], "--json", "--out", tmp_path)
    (path,) = tmp_path.iterdir()
    assert answer.code == 0 and json.loads(answer.out) == json.loads(path.read_text()) == study_file.read_study(path)
    assert answer.out.count("\n") == 1 and "exact gradient norms" in answer.err and "timing" in answer.err
    assert path.name == kept[1].name == f"digits-cnn-s0-{study_file.read_study(path)['key']}.study.json"
    assert command("study", "--from", path, "--json").out == answer.out
    same = {
        name: value
        for name, value in study_file.read_study(kept[1]).items()
        if name not in ("finished", "cost", "rows")
    }
    assert same.items() <= study_file.read_study(path).items()


def test_a_kept_study_is_shown_and_drawn_again_the_same(kept: tuple[Answer, Path, Path], tmp_path: Path) -> None:
    answer, path, plots = kept
    again = command("study", "--from", path, "--plots", tmp_path)
    assert again.code == 0 and again.out.splitlines()[:-1] == answer.out.splitlines()[:-1]
    names = sorted(drawn.name for drawn in plots.iterdir())
    assert [name.rpartition("-")[2] for name in names] == ["scores.png", "scores.svg", "variance.png", "variance.svg"]
    for name in names:
        assert (plots / name).read_bytes() == (tmp_path / name).read_bytes() and (plots / name).stat().st_size > 10_000


def test_the_figures_show_what_the_file_holds(kept: tuple[Answer, Path, Path]) -> None:
    found = study_file.read_study(kept[1])
    norms = found["stops"][-1]["examples"]["exact"]["frozen"]
    panels = [axes for axes in scores_figure(found).axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == [study_file.LABELS[name] for name in COLLECTED_SCORES]
    for axes, name in zip(panels, COLLECTED_SCORES, strict=True):
        x_n, y_n = axes.collections[-1].get_offsets().T
        wanted = torch.tensor(found["stops"][-1]["examples"][name]["frozen"]).double()
        wanted *= torch.tensor(norms).double().mean() / wanted.mean()
        low, high = axes.get_ylim()
        assert x_n.tolist() == norms and y_n.tolist() == pytest.approx(wanted.clamp(low, high).tolist(), rel=1e-4)
    for axes, source in zip(variance_figure(found).axes, ("frozen", "age 0"), strict=True):
        lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
        for name in (*COLLECTED_SCORES, "uniform"):
            cells = [stop["scores"][name][source]["over_optimum"]["0.5"] for stop in found["stops"]]
            assert ([1, 3], cells) in lines


def test_reports_leave_studies_alone(kept: tuple[Answer, Path, Path]) -> None:
    assert read_all([kept[1].parent]) == ([], [], [])


def test_ctrl_c_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(score_cost, "measure_cost", interrupted)
    assert command(*STUDY, "--out", tmp_path / "out").code == 130 and not list((tmp_path / "out").iterdir())


class Unknown(CNN):
    """Has a layer without a rule for exact gradient norms."""

    def __init__(self, *given: Any, width: int = 4) -> None:
        super().__init__(*given, width=width)
        self.body.append(nn.PReLU())


BAD = {
    "--at 1,4": "--at takes rising epochs, each from 1 to the run's 3 and once, not '1,4'",
    "--at 0,1": "from 1 to the run's 3",
    "--at 3,1": "rising",
    "--at 1,1": "and once",
    "--at first": "--at takes epochs separated by commas, such as 1,5,10, not 'first'",
    "--at ''": "separated by commas",
    "--at 1.5": "separated by commas",
    "--examples 131": "--examples is from 10 to the training set's 130, not 131",
    "--examples 9": "--examples is from 10",
    "--examples all": "--examples",
    "--method sadp": "--method sadp needs --ratio",
    "--ratio 0.5": "name a method too",
    "--method full --ratio 0.5": "ratio",
    "--method sadpp --ratio 0.5": "did you mean 'sadp'",
    "--method sadp --ratio 1": "--ratio is at least 0 and below 1",
    f"--backbone {__name__}:Unknown": "exact gradient norms support",
    "--epochs 0": "--epochs is at least 1",
    "--backprop local": "through all blocks and connections",
    "--sparsity eb --density 0.5": "leave --backprop local and --sparsity out",
    "--set backbone.widht=8": "did you mean 'width'",
    "--out file": "can't write file/",
    "--from nowhere.json": "leave the options of training out",
}
BAD_FILES = {
    "{": "not JSON",
    "[]": "not a study",
    '{"schema": 1}': "not a study",
    '{"schema": 1, "kind": "study"}': "this version reads schema 3",
    '{"schema": 2, "kind": "study"}': "the study lacks at, cost, ",
}


def test_bad_input_is_one_line_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("text")
    monkeypatch.setattr(Study, "measure", lambda self: pytest.fail("it trains"))
    wrong = {words: complaint(command(*STUDY, *shlex.split(words)), expected) for words, expected in BAD.items()}
    assert not any(wrong.values()), wrong
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_no_study_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.study.json"
    refused(command("study", "--from", path), "unreadable")
    for text, expected in BAD_FILES.items():
        path.write_text(text)
        refused(command("study", "--from", path), expected)


def test_committed_studies_of_schema_2_are_read_under_the_names_of_schema_3() -> None:
    paths = sorted((ROOT / "results" / "studies").glob("*.json"))
    assert paths and {json.loads(path.read_text())["schema"] for path in paths} == {2}
    for path in paths:
        raw, found = json.loads(path.read_text()), study_file.read_study(path)
        assert found["schema"] == study_file.STUDY_SCHEMA and found["key"] == raw["key"]
        for stop, before in zip(found["stops"], raw["stops"], strict=True):
            assert stop["bound_ratio"] == before["tightness"] and "tightness" not in stop
        assert command("study", "--from", path).code == 0


def damaged(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns studies by name, each whole but for one thing."""

    def but(change: Any) -> dict[str, Any]:
        copy = json.loads(json.dumps(found))
        change(copy)
        return copy

    return {
        "an example too few": but(lambda s: s["stops"][0]["examples"]["loss"]["frozen"].pop()),
        "no stops": but(lambda s: s["stops"].clear()),
        "steering the terminal": but(lambda s: s["spec"].update(dataset="\x1b[2J")),
        "text for a number": but(lambda s: s["stops"][1].update(norm_mean="big")),
        "a cell without its keeps": but(lambda s: s["stops"][1]["scores"]["loss"]["age 0"]["over_optimum"].clear()),
        "lag of a wrong type": but(lambda s: s["stops"][0].update(lag={"spearman": 1})),
        "cost without noise": but(lambda s: s["cost"].pop("noise")),
        "an impossible spec": but(lambda s: s["spec"].update(epochs=-1)),
        "no list of layers": but(lambda s: s.update(layers="conv")),
    }


def test_a_damaged_study_is_refused_and_never_a_traceback(kept: tuple[Answer, Path, Path], tmp_path: Path) -> None:
    for name, content in damaged(json.loads(kept[1].read_text())).items():
        path = tmp_path / f"{name}.study.json"
        path.write_text(json.dumps(content))
        with pytest.raises(BadInput, match=name):
            study_file.read_study(path)
