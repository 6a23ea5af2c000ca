"""A sweep file becomes the runs that it describes, and what cannot work is refused before anything trains."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.core.errors import BadInput
from sadp_bench.records.store import Store
from sadp_bench.sweeps import planning
from sadp_bench.sweeps.sweep_file import read_sweep
from tests.commands import command, refused
from tests.paths import ROOT
from tests.sweeps.helpers import GOOD, TINY, planned, written


def chosen(requested):
    """Returns the settings of the runs, without their place in the file."""
    return [{**one.fields, "set": dict(one.fields["set"])} for one in requested]


def test_a_block_is_the_product_of_its_lists(tmp_path):
    text = """
    [common]
    seed = [0, 1]
    [[sweep]]
    method = ["random", "sadp"]
    ratio = [0.3, 0.5, 0.7]
    set.x = [1, 2]
    """
    expected = [
        {"seed": seed, "method": method, "ratio": ratio, "set": {"x": x}}
        for seed in (0, 1)
        for method in ("random", "sadp")
        for ratio in (0.3, 0.5, 0.7)
        for x in (1, 2)
    ]
    assert chosen(read_sweep(written(tmp_path, text))) == expected


@given(
    st.dictionaries(st.sampled_from(["seed", "epochs", "threads"]), st.lists(st.integers(1, 9), min_size=1), max_size=3)
)
def test_there_are_as_many_runs_as_the_lists_lengths_multiply_to(tmp_path_factory, lists):
    text = "\n".join(["[[sweep]]", 'method = "sadp"', "ratio = 0.3", *(f"{k} = {v}" for k, v in lists.items())])
    runs = read_sweep(written(tmp_path_factory.mktemp("sweep"), text))
    assert len(runs) == len(list(itertools.product(*lists.values())))


def test_a_block_replaces_commons_keys_and_adds_to_its_settings(tmp_path):
    text = """
    [common]
    method = "random"
    ratio = [0.3, 0.5]
    epochs = 3
    set = { fresh = false, "backbone.width" = 4 }
    [[sweep]]
    [[sweep]]
    method = "sadp"
    ratio = 0.7
    set.smoothing = 0.5
    set.backbone.tau = 3.0
    set.backbone.width = 8
    """
    plain = {"fresh": False, "backbone.width": 4}
    assert chosen(read_sweep(written(tmp_path, text))) == [
        {"method": "random", "ratio": 0.3, "epochs": 3, "set": plain},
        {"method": "random", "ratio": 0.5, "epochs": 3, "set": plain},
        {
            "method": "sadp",
            "ratio": 0.7,
            "epochs": 3,
            "set": {**plain, "backbone.width": 8, "smoothing": 0.5, "backbone.tau": 3.0},
        },
    ]


def test_hyphens_are_underscores(tmp_path):
    [run] = read_sweep(written(tmp_path, '[[sweep]]\nmethod = "sadp"\nratio = 0.3\nbatch-size = 7'))
    assert run.fields["batch_size"] == 7


BAD_FILES = {
    "no TOML": ("method = [", "is not TOML"),
    "not UTF-8": (b"\xff\xfe", "no UTF-8 text"),
    "bottomless": ("a = " + "[" * 100_000, "is not TOML"),
    "empty": ("", "has no [[sweep]]"),
    "single brackets": ('[sweep]\nmethod = "sadp"', "has no [[sweep]]"),
    "unknown table": (GOOD + "[comon]\n", "did you mean 'common'"),
    "key outside": ('epochs = 3\n[[sweep]]\nmethod = "sadp"', "unknown table 'epochs'"),
    "common no table": ("common = 3\n" + GOOD, "[common] is not a table"),
    "unknown key": (GOOD + "epoch = 3", "[[sweep]] 1: unknown key 'epoch'; did you mean 'epochs'?"),
    "unknown key in common": ("[common]\nbatchsize = 3\n" + GOOD, "[common]: unknown key 'batchsize'; did you mean 'batch"),
    "torchrun's": (GOOD + "processes = 2", "unknown key 'processes'"),
    "twice": (GOOD + "batch-size = 3\nbatch_size = 4", "batch_size is there twice"),
    "setting twice": (GOOD + 'set = { "backbone.width" = 4, backbone = { width = 8 } }', "set.backbone.width is there twice"),
    "no method": ("[[sweep]]\nratio = 0.5", "[[sweep]] 1 lacks method"),
    "no ratio": (GOOD + '[[sweep]]\nmethod = "sadp"', "[[sweep]] 2 lacks ratio"),
    "empty list": (GOOD + "seed = []", "seed is an empty list"),
    "text for a number": (GOOD + 'epochs = "many"', "epochs is a whole number or a list of such, not 'many'"),
    "fraction": (GOOD + "epochs = [1, 1.5]", "epochs is a whole number or a list of such, not '1.5'"),
    "true for a number": (GOOD + "seed = true", "seed is a whole number"),
    "a date": (GOOD + "epochs = 2020-01-01", "epochs is a whole number"),
    "a list of lists": (GOOD + "seed = [[1]]", "seed is a whole number"),
    "a number for a name": ('[[sweep]]\nmethod = 3\nratio = 0.5', "method is a name"),
    "too large": (GOOD + f"seed = 0x{'f' * 20_000}", "seed is at most"),
    "set no table": (GOOD + "set = 3", "set is a table"),
    "set too deep": (GOOD + "set.smoothing.more = 3", "set.smoothing is a setting's value"),
    "set a date": (GOOD + "set.fresh = 2020-01-01", "set.fresh is a setting's value"),
    "too many": (GOOD + f"seed = {list(range(400))}\nepochs = {list(range(1, 400))}", "159,600 runs"),
    "code": ('[[sweep]]\nmethod = ["sadp", "os:abort"]\nratio = 0.5', "method 'os:abort' would import that module"),
    "code as backbone": (GOOD + 'backbone = "os:abort"', "--allow-imports"),
    "code as data set": (GOOD + 'dataset = "os:abort"', "--allow-imports"),
    "method in the last block": (GOOD * 2 + '[[sweep]]\nmethod = "sdap"\nratio = 0.5', "[[sweep]] 3: unknown method 'sdap'"),
    "ratio for the method": (GOOD + '[[sweep]]\nmethod = "full"\nratio = 0.5', "[[sweep]] 2: "),
    "ratio for the data": (GOOD + '[[sweep]]\nmethod = "sadp"\nratio = 0.99', "[[sweep]] 2: ratio 0.99 of 1437 examples"),
    "ratio 1": (GOOD + '[[sweep]]\nmethod = "sadp"\nratio = [0.3, 1.0]', "[[sweep]] 2: --ratio is at least 0 and below 1"),
    "seed": (GOOD + "seed = [0, -1]", "[[sweep]] 1: --seed is at least 0, not -1"),
    "setting": (GOOD + "set.frehs = true", "did you mean 'fresh'"),
    "setting of the network": (GOOD * 2 + 'set.backbone.norm = ["batch", "layer"]', "[[sweep]] 2: backbone.norm"),
    "examples": (GOOD + "train_examples = 9999", "digits has 1437"),
    "device": (GOOD + 'device = "tpu"', "auto, cpu, cuda"),
}  # fmt: skip


def test_a_bad_file_is_one_line_that_names_it_before_anything_trains(tmp_path):
    path = tmp_path / "a.toml"
    for name, (content, expected) in BAD_FILES.items():
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        refused(command("sweep", path, "--out", tmp_path / "runs", "--quiet"), expected)
        assert [child.name for child in tmp_path.iterdir()] == ["a.toml"], name


BAD_OPTIONS = {
    "jobs": (["--jobs", "0"], "--jobs is at least 1"),
    "retries": (["--retries", "-1"], "--retries is at least 0"),
    "checkpoint": (["--checkpoint-seconds", "nan"], "--checkpoint-seconds is at least 0"),
    "executor": (["--executor", "pbs"], "local, ray, slurm"),
    "address": (["--address", "1.2.3.4:5"], "belongs to --executor ray"),
    "gpus": (["--gpus-per-run", "0.5"], "belongs to --executor ray"),
    "gpus 0": (["--executor", "ray", "--gpus-per-run", "0"], "--gpus-per-run is above 0"),
    **{f"shard {text}": (["--shard", text], "--shard is i/n") for text in ("0/3", "4/3", "1", "1/", "a/b", "-1/2", "1/2/3")},
}  # fmt: skip


def test_bad_options_are_refused_before_anything_trains(tmp_path):
    for name, (words, expected) in BAD_OPTIONS.items():
        refused(command("sweep", written(tmp_path, GOOD), "--out", tmp_path / "runs", "--quiet", *words), expected)
        assert not list(tmp_path.rglob("*.json")), name


def test_a_file_that_is_not_there_is_named(tmp_path):
    refused(command("sweep", tmp_path / "no.toml"), "no.toml", "No such file")
    refused(command("sweep", tmp_path), "no regular file")


@pytest.mark.usefixtures("no_network")
def test_a_missing_data_set_in_the_last_block_stops_the_sweep(tmp_path):
    path = written(tmp_path, GOOD + GOOD + 'dataset = "cifar10"')
    answer = command("sweep", path, "--data", tmp_path / "no data", "--out", tmp_path / "runs")
    assert answer.code == 2 and "[[sweep]] 2: " in answer.err.splitlines()[-1]
    assert "no data" in answer.err and "Traceback" not in answer.err and not (tmp_path / "runs").exists()


def test_a_disk_that_is_too_small_stops_the_sweep(tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr("sadp_bench.records.store.shutil.disk_usage", lambda path: Usage)
    refused(command("sweep", written(tmp_path, TINY + GOOD), "--out", tmp_path / "runs", "--quiet"), "MiB left")


@pytest.mark.parametrize(
    ("name", "kinds", "seeds"),
    [("smoke", {0.3, 0.5}, 1), ("cifar10-cpu", {0.3, 0.5, 0.7}, 3), ("cifar10", {0.3, 0.5, 0.7}, 5)],
)
def test_the_experiments_hold_their_methods_at_every_ratio(name, kinds, seeds, request, monkeypatch):
    if name != "smoke":
        request.getfixturevalue("real_data")
    monkeypatch.setattr("sadp_bench.runs.trainer.expected", lambda specs, material: [1.0])
    plan = planning.make_plan(ROOT / "experiments" / f"{name}.toml", Store(ROOT / "nowhere"))
    networks = len({spec.backbone for spec in plan.runs})
    result = [(spec.method, spec.ratio) for spec in plan.runs]
    methods = {"fewer-epochs", "random", "el2n", "grand", "forgetting", "infobatch", "sadp"}
    wanted = {*itertools.product(methods, kinds), ("full", 0)}
    assert set(result) == wanted and all(result.count(one) == seeds * networks for one in wanted)


def test_the_example_of_the_documents_is_a_sweep_file(tmp_path):
    text = (ROOT / "docs" / "sweeps.md").read_text().partition("```toml\n")[2].partition("```")[0]
    result = [
        (one.fields["method"], one.fields["ratio"], one.fields["seed"]) for one in read_sweep(written(tmp_path, text))
    ]
    assert len(result) == 2 * 2 * 3 + 2 * 2 * 3 and set(result) == set(
        itertools.product(("random", "infobatch", "sadp"), (0.3, 0.5), (0, 1, 2))
    )


def test_a_name_with_a_colon_is_taken_where_the_file_is_trusted(tmp_path):
    text = '[[sweep]]\nmethod = "sadp_bench.pruners.sadp:SADP"\nratio = 0.5\n'
    assert len(planned(tmp_path, TINY + text, allow_imports=True).runs) == 2
    with pytest.raises(BadInput, match="--allow-imports"):
        planned(tmp_path, TINY + text)
