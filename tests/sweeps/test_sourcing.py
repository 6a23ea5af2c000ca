"""`from` in a sweep file: runs that train on the scores of other runs of the sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sadp_bench.records.record import Record
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store, read_all
from sadp_bench.runs import exporting
from sadp_bench.sweeps import scheduler
from sadp_bench.sweeps.executors import Ended, Executor, Options, run_words
from sadp_bench.sweeps.sourcing import joined
from tests.commands import Answer, command, refused, tiny_run

COMMON = """
[common]
epochs = 2
train_examples = 256
threads = 1
set.backbone.width = 4
[[sweep]]
"""
ROW = 'method = "subset"\nratio = [0.25, 0.5]\nfrom = {method = "sadp", ratio = 0.5, set = {"backbone.width" = 5}}\n'


class Here(Executor):
    """Makes each run in this process, with the arguments that its own process would get."""

    shares_folder = True

    def __init__(self, store: Store, options: Options, failing: str = "") -> None:
        self.store, self.options, self.failing, self.ends = store, options, failing, list[Ended]()

    def capacity(self) -> int:
        return 1

    def start(self, spec: Spec, earlier: int) -> None:
        fails = spec.method == self.failing
        answer = Answer(2, "", "no") if fails else command(*run_words(spec, self.store.folder, self.options))
        self.ends.append(Ended(spec, answer.code, answer.err.splitlines()))

    def ended(self) -> list[Ended]:
        ends, self.ends = self.ends, []
        return ends

    def latest(self, spec: Spec) -> str:
        return ""

    def stop(self) -> None:
        pass


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Lets sweeps make their runs in this process. A run of the method `failing` fails."""
    how = {"failing": ""}
    monkeypatch.setattr(scheduler, "Local", lambda store, options, devices: Here(store, options, how["failing"]))
    monkeypatch.setattr(scheduler, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(scheduler, "RECHECK_SECONDS", 0.0)
    return how


def sweep(folder: Path, row: str, *words: Any) -> Answer:
    (folder / "a.toml").write_text(COMMON + row)
    return command("sweep", folder / "a.toml", "--out", folder / "runs", "--quiet", *words)


def records(folder: Path) -> dict[str, tuple[Path, Record]]:
    """Returns the records and their paths by method, ratio and width."""
    found = read_all([folder / "runs"]).records
    return {f"{of.spec.method} {of.spec.ratio:g} {of.spec.backbone_options['width']}": (at, of) for at, of in found}


def test_rows_train_on_the_scores_of_the_run_that_from_names(here: dict[str, str], tmp_path: Path) -> None:
    planned = json.loads(sweep(tmp_path, ROW, "--dry-run", "--json").out)["runs"]
    states = {(run["spec"]["method"], run["key"] is None, run["state"]) for run in planned}
    assert states == {("full", False, "to do"), ("sadp", False, "to do"), ("subset", True, "after its scores")}
    answer = sweep(tmp_path, ROW)
    assert answer.code == 0, answer.err
    found = records(tmp_path)
    assert set(found) == {"full 0 4", "full 0 5", "sadp 0.5 5", "subset 0.25 4", "subset 0.5 4"}
    assert answer.out.splitlines()[-1].startswith("5 runs: 5 done, 0 failed")
    score_N = exporting.scores(*found["sadp 0.5 5"])
    for ratio, num_kept in ((0.25, 192), (0.5, 128)):
        kept = exporting.visits(found[f"subset {ratio:g} 4"][1]) == 2
        assert kept.sum() == num_kept and score_N[kept].min() >= score_N[~kept].max()
    assert "5 runs: all done" in sweep(tmp_path, ROW, "--dry-run").out, "the keys are made of the scores"
    path = found["sadp 0.5 5"][0]
    other = f'method = "subset"\nratio = 0.5\nset.keep = "easiest"\nfrom = "{path}"\n'
    assert sweep(tmp_path, other).code == 0
    [lowest] = [r for _, r in read_all([tmp_path / "runs"]).records if r.spec.method_options.get("keep") == "easiest"]
    kept = exporting.visits(lowest) == 2
    assert score_N[kept].max() <= score_N[~kept].min()


def test_scores_that_a_former_run_shared_serve_without_another_training(here: dict[str, str], tmp_path: Path) -> None:
    tiny_run("el2n", 0.5, tmp_path / "runs", "--no-reference", "--quiet")
    [former] = (tmp_path / "runs").glob("*el2n*.json")
    content = former.read_bytes()
    row = 'method = "subset"\nratio = 0.5\nfrom = {method = "el2n", ratio = 0.5}\n'
    assert sweep(tmp_path, row).code == 0
    one, other = (records(tmp_path)[f"{method} 0.5 4"] for method in ("el2n", "subset"))
    assert one[0].read_bytes() == content and one[1].visits == other[1].visits
    assert one[1].test_accuracy == other[1].test_accuracy


def test_where_the_scores_fail_their_rows_are_not_trained(here: dict[str, str], tmp_path: Path) -> None:
    here["failing"] = "sadp"
    answer = sweep(tmp_path, ROW)
    assert answer.code == 1
    assert "not trained: 2 runs, because the run that makes their scores left none" in answer.out
    assert answer.out.splitlines()[-1].startswith("5 runs: 2 done, 1 failed")
    here["failing"] = ""
    assert sweep(tmp_path, ROW).code == 0 and len(records(tmp_path)) == 5


def test_a_shard_never_divides_scores_from_their_rows() -> None:
    group = {"full": "a", "maker": "b", "taker": "c", "alike": "c", "other": "d"}
    assert joined(group, {"taker": "maker"}) == group | {"taker": "b", "alike": "b"}


def test_what_from_can_not_name_is_one_line(here: dict[str, str], tmp_path: Path) -> None:
    tiny_run("sadp", 0.5, tmp_path / "runs", "--no-reference", "--quiet")
    [record] = (tmp_path / "runs").glob("*.json")
    subset, search = 'method = "subset"\nratio = 0.5\n', "\n[search]\nlearning_rate = [0.1, 0.2]\ntrials = 2\n"
    faults = {
        'method = "random"\nratio = 0.5\nfrom = "a.json"': 'from gives scores to method = "subset"',
        subset + 'set.file = "a"\nfrom = "a.json"': "in place of set.file",
        subset + 'from = "a.json"': "from = 'a.json': unreadable",
        subset + f'from = "{record}"': "kept no scores",
        subset + "from = 3": "from is not a table",
        subset + "from = {ratio = 0.5}": "from names the method that makes the scores",
        subset + 'from = {method = "sadp", seed = 1}': "its seed is that of each run",
        subset + 'from = {method = ["sadp", "el2n"]}': "method is a list, and from names one run",
        subset + 'from = {methods = "sadp"}': "unknown key 'methods'",
        subset + 'from = {method = "random"}': "from: random has no scores for --save-scores to keep",
        subset + 'from = {method = "mine:Own"}': "would import that module",
        subset + 'set.keep = "best"\nfrom = {method = "el2n"}': "subset's keep is one of",
        subset + 'from = {method = "sadp", ratio = 0.5}': "kept no scores; remove it",
        subset + 'from = {method = "el2n"}' + search: "from is for files without [search]",
    }
    for row, fault in faults.items():
        refused(sweep(tmp_path, row), fault)
    refused(sweep(tmp_path, subset + 'from = {method = "el2n"}', "--executor", "ray"), "take --executor local or slurm")
    assert np.array_equal(list((tmp_path / "runs").iterdir()), [record])
