"""Settings of data sets: they reach the class, are part of the spec and its key, and older keys stay as they were."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets.examples import Examples
from sadp_bench.datasets.loading import load
from sadp_bench.gate.rerun import request_of
from sadp_bench.records.naming import differing, settings_text
from sadp_bench.records.spec import Spec
from sadp_bench.runs.resolve import RunRequest, resolve
from sadp_bench.sweeps.sweep_file import read_sweep
from sadp_bench.testing import ContractBroken, check_dataset
from tests.commands import TINY, command, refused, the_record
from tests.datasets.helpers import refusal
from tests.datasets.strangers import Images, labels, pixels
from tests.example_records import make_spec
from tests.paths import ROOT

SIDED = "tests.datasets.test_settings:Sided"
RUN: dict[str, Any] = {
    "method": "random",
    "ratio": 0.5,
    "dataset": SIDED,
    "batch_size": 8,
    "threads": 1,
    "device": "cpu",
}
NETWORK = {"backbone.width": 4}


class Sided(Images):
    """64 random images of a given side: 40 to train, 24 to test, 4 classes.

    Source: generated.
    """

    def __init__(self, root: Path, timesteps: int, *, side: int = 8, folder: str = "here", sha256: str = "") -> None:
        self.train = Examples(pixels(40, 1, side, side), labels(40))
        self.test = Examples(pixels(24, 1, side, side), labels(24))
        found = hashlib.sha256(b"%d" % side).hexdigest()
        if sha256 not in ("", found):
            raise BadInput(f"the files are others: {found}")
        self.found = {"sha256": found}

    @classmethod
    def locate(cls, root: Path, *, side: int = 8, folder: str = "here", sha256: str = "") -> Path | None:
        return root / folder


def resolved(**settings: Any) -> Spec:
    named = {f"dataset.{name}": value for name, value in settings.items()}
    return resolve({**RUN, "set": NETWORK | named}, Path("nowhere"))[0]


def test_settings_reach_the_class_and_those_that_the_files_decide_enter_the_spec() -> None:
    spec, material = resolve({**RUN, "set": NETWORK | {"dataset.side": "16"}}, Path("nowhere"))
    assert material.train.input_shape == (1, 16, 16)
    assert spec.dataset_options == {"side": 16, "folder": "here", "sha256": hashlib.sha256(b"16").hexdigest()}
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert resolve(request_of(spec), Path("nowhere"))[0] == spec
    assert "dataset.side=16" in spec.words() and "dataset.folder=here" in spec.words()
    assert spec.reference().dataset_options == spec.plain().dataset_options == spec.dataset_options


def test_the_key_is_made_of_the_content_and_of_every_setting_but_the_place() -> None:
    assert resolved().key == resolved(side=8).key == resolved(folder="there").key
    assert resolved(side=9).key != resolved().key
    tables = [resolved(side=8).flat(), resolved(side=9, folder="there").flat()]
    assert settings_text(tables[1], differing(tables)) == ["dataset.side=9", "dataset.folder=there"]
    assert differing([resolved(side=8).flat(), resolved(side=9).flat()]) == {"dataset.side", "dataset.sha256"}


def test_a_data_set_without_settings_has_none_in_its_key() -> None:
    assert make_spec().dataset_options == {} and make_spec().key == "1b25266b06f1"
    assert dataclasses.replace(make_spec(), dataset_options={"side": 8}).key != make_spec().key
    request = RunRequest.of({"method": "full", "ratio": 0.0, "dataset": "cifar10", "device": "cpu"})
    assert request.fields["dataset_options"] == {}


def test_a_wrong_setting_is_refused_in_one_line() -> None:
    for settings, words in (
        ({"dataset.sdie": 8}, f"dataset {SIDED} has no setting 'sdie'; did you mean 'side'?"),
        ({"dataset.side": "large"}, "setting 'side' is a whole number, not 'large'"),
        ({"dataset.sha256": "0" * 64}, "the files are others"),
    ):
        assert words in refusal(resolve, {**RUN, "set": settings}, Path("nowhere"))
    request = {"method": "full", "ratio": 0.0, "set": {"dataset.side": 8}}
    assert "dataset digits has no setting 'side'; allowed: none" in refusal(RunRequest.of, request)


def test_a_sweep_file_takes_settings_of_the_data_set(tmp_path: Path) -> None:
    for number, line in enumerate(("set.dataset.side = [8, 16]", 'set = { "dataset.side" = [8, 16] }')):
        path = tmp_path / f"{number}.toml"
        path.write_text(f'[[sweep]]\nmethod = "full"\nratio = 0.0\n{line}\n')
        assert [run.fields["set"] for run in read_sweep(path)] == [{"dataset.side": 8}, {"dataset.side": 16}]


def test_a_run_with_a_setting_trains_is_recorded_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = ["run", "--method", "random", "--ratio", 0.5, "--dataset", SIDED, *TINY, "--train-examples", 32]
    answer = command(*words, "--set", "dataset.side=16", "--quiet", "--out", tmp_path)
    assert answer.code == 0, answer.err
    _, record = the_record(tmp_path, "random")
    assert record["spec"]["dataset_options"]["side"] == 16
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        f'[[sweep]]\ndataset = "{SIDED}"\nmethod = "random"\nratio = 0.5\nset.dataset.side = [8, 16]\nepochs = 2\n'
        "set.backbone.width = 4\ntrain_examples = 32\nthreads = 1\n"
    )
    planned = command("sweep", sweep, "--dry-run", "--allow-imports", "--out", tmp_path)
    assert planned.code == 0 and "4 runs" in planned.out + planned.err, planned  # two runs and their references
    assert command("report", tmp_path).code == 0
    refused(command(*words, "--set", "dataset.sdie=16", "--out", tmp_path), "did you mean 'side'?")


class Moody(Sided):
    def __init__(self, root: Path, timesteps: int, *, side: int = 8, mood: str = "") -> None:
        super().__init__(root, timesteps, side=side)
        self.found = {"mood": f"after {mood}"}

    @classmethod
    def locate(cls, root: Path, *, side: int = 8, mood: str = "") -> Path | None:  # type: ignore[override]
        return root


class Unknowing(Sided):
    def __init__(self, root: Path, timesteps: int, *, side: int = 8) -> None:
        super().__init__(root, timesteps, side=side)


def test_check_dataset_takes_settings_and_finds_breaches_of_their_rules() -> None:
    check_dataset(SIDED)
    check_dataset(SIDED, {"side": 12})
    with pytest.raises(ContractBroken, match="loads other examples"):
        check_dataset(f"{SIDED.partition(':')[0]}:Moody")
    line = refusal(load, Unknowing, "unknowing", Path("nowhere"), 2, {"side": 8})
    assert "`found` has settings of `__init__`, and 'sha256' is none" in line
