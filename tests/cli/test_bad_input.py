"""Bad input: one line that says what came and what is allowed, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sadp_bench.records.record import Failure
from sadp_bench.records.store import Store
from tests.commands import TINY, command, refused, tiny_run
from tests.example_records import make_record, make_spec
from tests.records.test_store import DAMAGES

ENDLESS = "9" * 5000


def run(*words, method="random", ratio="0.5"):
    return ["run", "--method", method, "--ratio", ratio, *TINY, *words]


def speed(*words):
    return ["speed", "--rounds", "2", *TINY[2:], *words]


CASES = {
    "method": (run(method="sdap"), "did you mean 'sadp'"),
    "method, nothing near": (run(method="zzz"), "allowed: el2n, "),
    "dataset": (run("--dataset", "cifar11"), "did you mean 'cifar10'"),
    "backbone": (run("--backbone", "resnet19"), "did you mean 'resnet18'"),
    "ratio below": (run(ratio="-0.1"), "at least 0 and below 1"),
    "ratio 1": (run(ratio="1"), "at least 0 and below 1"),
    "ratio above": (run(ratio="1.5"), "at least 0 and below 1"),
    "ratio nan": (run(ratio="nan"), "at least 0 and below 1"),
    "ratio no number": (run(ratio="half"), "--ratio"),
    "under one batch": (run("--batch-size", "200"), "less than one batch of 200"),
    "epochs 0": (run("--epochs", "0"), "--epochs is at least 1, not 0"),
    "epochs no number": (run("--epochs", "many"), "--epochs"),
    "batch 0": (run("--batch-size", "0"), "--batch-size is at least 1"),
    "timesteps 0": (run("--timesteps", "0"), "--timesteps is at least 1"),
    "threads many": (run("--threads", "1000000"), "--threads is at most 1,024, not 1000000"),
    "epochs huge": (run("--epochs", "9" * 400), "--epochs is at most"),
    "out of memory": (run("--timesteps", "1000000000"), "out of memory on cpu"),
    "a layer as backbone": (
        ["run", "--method", "full", "--ratio", "0", "--backbone", "torch.nn:ReLU"],
        "is not built from (input_shape, num_classes",
    ),
    "a network of nothing": (
        ["run", "--method", "full", "--ratio", "0", "--backbone", "torch.nn:Identity"],
        "no parameters",
    ),
    "threads 0": (run("--threads", "0"), "--threads is at least 1"),
    "seed -1": (run("--seed", "-1"), "--seed"),
    "train-examples 0": (run("--train-examples", "0"), "--train-examples is at least 1"),
    "train-examples too many": (run("--train-examples", "9999"), "has 1437 to train on"),
    "evaluate-every 0": (run("--evaluate-every", "0"), "--evaluate-every is at least 1"),
    "learning rate below 0": (run("--learning-rate", "-1"), "--learning-rate"),
    "learning rate nan": (run("--learning-rate", "nan"), "--learning-rate"),
    "learning rate beyond float32": (run("--learning-rate", "1e39"), "at most 1e+38"),
    "weight decay": (run("--weight-decay", "inf"), "--weight-decay"),
    "optimizer": (run("--optimizer", "adam"), "sgd, adamw"),
    "schedule": (run("--schedule", "step"), "cosine, constant"),
    "augment": (run("--augment", "flip"), "none, crop, crop-flip"),
    "loss": (run("--loss", "mse"), "mean, step"),
    "precision": (run("--precision", "fp16"), "fp32, bf16, fp64"),
    "protocol": (run("--protocol", "steps"), "epochs, updates"),
    "evaluate-on": (run("--evaluate-on", "train"), "test, validation"),
    "device": (run("--device", "tpu"), "auto, cpu, cuda"),
    "device not there": (run("--device", "cuda:99"), "--device"),
    "setting of the method": (run("--set", "smothing=0.2", method="sadp"), "did you mean 'smoothing'"),
    "setting of the backbone": (run("--set", "backbone.widht=8"), "did you mean 'width'"),
    "setting without value": (run("--set", "smoothing"), "KEY=VALUE"),
    "setting of another type": (run("--set", "smoothing=much", method="sadp"), "is a number"),
    "setting not finite": (run("--set", "smoothing=nan", method="sadp"), "is a number"),
    "setting not whole": (run("--set", "score_epochs=1.5", method="el2n"), "a whole number"),
    "setting not boolean": (run("--set", "fresh=perhaps"), "true or false"),
    "smoothing 0": (run("--set", "smoothing=0", method="sadp"), "above 0 and at most 1"),
    "smoothing 2": (run("--set", "smoothing=2", method="sadp"), "above 0 and at most 1"),
    "offset above ratio": (run("--set", "offset=0.6", method="el2n"), "between 0 and the ratio"),
    "more scoring than run": (run("--set", "score_epochs=9", method="grand"), "at most the run's 2 epochs"),
    "infobatch delta": (run("--set", "delta=0", method="infobatch"), "delta"),
    "infobatch too much": (run("--batch-size", "10", method="infobatch", ratio="0.95"), "at most 0.9"),
    "full with a ratio": (run(method="full"), "its ratio is 0"),
    "updates of infobatch": (run("--protocol", "updates", method="infobatch"), "--protocol epochs"),
    "width 0": (run("--set", "backbone.width=0"), "at least 1 channel"),
    "norm": (run("--set", "backbone.norm=layer"), "batch, sync, none, not 'layer'"),
    "tau": (run("--set", "backbone.tau=1"), "backbone.tau is above 1"),
    "surrogate": (run("--set", "backbone.surrogate=relu"), "atan, sigmoid, triangle"),
    "no such module": (run(method="nomodule.at.all:Mine"), "no module named"),
    "no such class": (run(method="sadp_bench.pruners.sadp:SDAP"), "no class"),
    "no pruner": (run(method="sadp_bench.records.record:Record"), "no subclass of"),
    "abstract": (run(method="sadp_bench.pruners.base:Pruner"), "abstract"),
    "no backbone": (run("--backbone", "sadp_bench.records.record:Record"), "no subclass of"),
    "no dataset": (run("--dataset", "sadp_bench.records.record:Record"), "no subclass of"),
    "missing option": (["run", "--method", "sadp"], "--ratio"),
    "unknown option": (run("--epoch", "3"), "--epoch"),
    "unknown command": (["runn"], "runn"),
    "report of no folder": (["report", "nowhere"], "no folder nowhere"),
    "report format": (["report", ".", "--format", "pdf"], "--format is one of"),
    "list what": (["list", "method"], "did you mean 'methods'"),
    "speed rounds": (["speed", "--rounds", "1", *TINY], "--rounds is at least 2"),
    "speed ratios": (["speed", "--ratios", "a,b", *TINY], "separated by commas"),
    "speed method": (["speed", "--methods", "sdap", "--rounds", "2"], "did you mean 'sadp'"),
    "speed epochs": (["speed", "--rounds", "5", *TINY], "--epochs is at least 6"),
    # of another type: the option, what is allowed and what came
    "ratio empty": (run(ratio=""), "valid number"),
    "ratio with a comma": (run(ratio="0,5"), "valid number, unable to parse string as a number: '0,5'"),
    "epochs with a point": (run("--epochs", "2.5"), "--epochs"),
    "epochs after an equals sign": (run("--epochs=many"), "'--epochs': Input should be a valid integer"),
    "epochs endless": (run("--epochs", ENDLESS), "--epochs"),
    "batch size a word": (run("--batch-size", "big"), ": 'big'"),
    "timesteps a fraction": (run("--timesteps", "1.5"), ": '1.5'"),
    "threads a word": (run("--threads", "all"), ": 'all'"),
    "seed a fraction": (run("--seed", "0.5"), ": '0.5'"),
    "seed hexadecimal": (run("--seed", "0xff"), ": '0xff'"),
    "train-examples a share": (run("--train-examples", "10%"), ": '10%'"),
    "evaluate-every a word": (run("--evaluate-every", "never"), ": 'never'"),
    "learning rate a word": (run("--learning-rate", "fast"), ": 'fast'"),
    "weight decay a word": (run("--weight-decay", "little"), ": 'little'"),
    "checkpoint-seconds a word": (run("--checkpoint-seconds", "often"), ": 'often'"),
    "concurrent-jobs a word": (run("--concurrent-jobs", "two"), ": 'two'"),
    "no argument": (["report", "records", "--to"], "'--to' requires an argument"),
    # absurd
    "ratio infinite": (run(ratio="-inf"), "at least 0 and below 1"),
    "ratio just below 1": (run(ratio="0.9999999999"), "keeps 0, less than one batch"),
    "epochs beyond counting": (run("--epochs", "9" * 30), "--epochs is at most 9,223,372,036,854,775,807"),
    "batch larger than the data": (run("--batch-size", "1000000000"), "less than one batch of 1000000000"),
    "batch beyond counting": (run("--batch-size", "9" * 30), "--batch-size is at most"),
    "timesteps beyond counting": (run("--timesteps", "9" * 30), "--timesteps is at most"),
    "threads beyond counting": (run("--threads", "9" * 30), "--threads is at most"),
    "seed beyond counting": (run("--seed", "9" * 30), "--seed is at most"),
    "train-examples beyond counting": (run("--train-examples", "9" * 30), "has 1437 to train on"),
    "one training example": (run("--train-examples", "1"), "less than one batch"),
    "evaluate-every beyond counting": (run("--evaluate-every", "9" * 30), "--evaluate-every is at most"),
    "learning rate infinite": (run("--learning-rate", "inf"), "--learning-rate is a number of at least 0"),
    "weight decay beyond float32": (run("--weight-decay", "1e39"), "at most 1e+38, not 1e+39"),
    "weight decay below 0": (run("--weight-decay", "-1"), "--weight-decay is a number of at least 0"),
    "checkpoint-seconds below 0": (run("--checkpoint-seconds", "-1"), "--checkpoint-seconds is at least 0"),
    "checkpoint-seconds nan": (run("--checkpoint-seconds", "nan"), "--checkpoint-seconds is at least 0"),
    "concurrent-jobs 0": (run("--concurrent-jobs", "0"), "--concurrent-jobs is at least 1"),
    "width infinite": (run("--set", "backbone.width=1e400"), "a whole number, not '1e400'"),
    "threshold infinite": (run("--set", "backbone.threshold=1e400"), "a number, not '1e400'"),
    "threshold below 0": (run("--set", "backbone.threshold=-1"), "above 0"),
    # names
    "method empty": (run(method=""), "unknown method ''"),
    "method of two": (run(method="random,sadp"), "did you mean 'random'"),
    "method of a colon": (run(method=":"), "no module named ''"),
    "method of a path": (run(method="../../x:Y"), "no module named '../../x'"),
    "method that would steer the terminal": (run(method="random\n\x00"), "unknown method 'random"),
    "dataset in capitals": (run("--dataset", "DIGITS"), "allowed: cifar10, "),
    "dataset that is a module": (run("--dataset", "os:path"), "no class 'path'"),
    "dataset abstract": (run("--dataset", "sadp_bench.datasets.base:Dataset"), "abstract"),
    "device empty": (run("--device", ""), "auto, cpu, cuda or cuda:N, not ''"),
    "device below 0": (run("--device", "cuda:-1"), "auto, cpu, cuda or cuda:N"),
    "device not for training": (run("--device", "meta"), "auto, cpu, cuda or cuda:N"),
    # --set
    "set empty": (run("--set", ""), "KEY=VALUE, not ''"),
    "set without a key": (run("--set", "=1"), "KEY=VALUE, not '=1'"),
    "set of an equals sign": (run("--set", "="), "KEY=VALUE, not '='"),
    "set with an empty backbone key": (run("--set", "backbone.=1"), "has no setting ''"),
    "set with two prefixes": (run("--set", "backbone.backbone.width=4"), "no setting 'backbone.width'"),
    "set with another prefix": (run("--set", "Backbone.width=4"), "no setting 'Backbone.width'"),
    "set of an option": (run("--set", "--epochs=3"), "no setting '--epochs'"),
    "set of the ratio": (run("--set", "prune_ratio=0.9"), "no setting 'prune_ratio'"),
    "set of self": (run("--set", "self=1"), "no setting 'self'"),
    "set empty value": (run("--set", "backbone.width="), "a whole number, not ''"),
    "set two equals signs": (run("--set", "backbone.width=4=5"), "a whole number, not '4=5'"),
    "set boolean as number": (run("--set", "fresh=1"), "true or false, not '1'"),
    "set unicode": (run("--set", "größe=1"), "no setting 'größe'"),
    # files and folders
    "out is a file": (run("--out", "file"), "can't write file/"),
    "out below a file": (run("--out", "file/runs"), "choose another folder"),
    "out is a device": (run("--out", "/dev/null"), "can't write /dev/null/"),
    "out with a name too long": (run("--out", "x" * 300), "File name too long"),
    "out with a null byte": (run("--out", "a\0b"), "null byte"),
    "data is a file": (run("--data", "file"), "file is not a folder; give one with --data"),
    "data of nobody": (run("--data", "~no-such-user/x"), "give one with --data"),
    "data with a null byte": (run("--data", "a\0b"), "null byte"),
    "report of a file": (["report", "file"], "no folder file"),
    "report of nothing but text": (["report", "empty"], "no records here"),
    "report of one good and one bad folder": (["report", "records", "nowhere"], "no folder nowhere"),
    "report of a name too long": (["report", "x" * 5000], "no folder xxx"),
    "report format empty": (["report", "records", "--format", ""], "--format is one of"),
    "report format in capitals": (["report", "records", "--format", "CSV"], "--format is one of"),
    "report to a folder": (["report", "records", "--to", "empty"], "can't write empty"),
    "report to nothing": (["report", "records", "--to", ""], "can't write ."),
    "report to a file's inside": (["report", "records", "--to", "file/report.md"], "can't write file/report.md"),
    "report to where nothing can be made": (["report", "records", "--to", "/proc/x/report.md"], "can't write /proc/x"),
    "report to a pipe": (["report", "records", "--to", "pipe"], "can't write pipe: it is there and no regular file"),
    "report to a name too long": (["report", "records", "--to", "x" * 300], "File name too long"),
    "report with a null byte": (["report", "records", "--to", "a\0b"], "null byte"),
    "plots into a file": (["report", "records", "--plots", "file"], "can't write file/"),
    "plots where nothing can be made": (["report", "records", "--plots", "/proc/x"], "can't write /proc/x"),
    "report has no json option": (["report", "records", "--json"], "No such option: --json"),
    # the other commands
    "no command": ([""], "No such command"),
    "command in capitals": (["RUN"], "No such command 'RUN'"),
    "option before the command": (["--epochs", "3", "run"], "No such option: --epochs"),
    "list nothing": (["list"], "Missing argument 'kind'"),
    "list empty": (["list", ""], "allowed: backbones, datasets, methods"),
    "list twice": (["list", "methods", "datasets"], "unexpected extra argument"),
    "list with another option": (["list", "methods", "--format", "csv"], "No such option: --format"),
    "doctor of something": (["doctor", "methods"], "unexpected extra argument"),
    "doctor's data is a file": (["doctor", "--data", "file"], "not a folder"),
    "doctor's data of nobody": (["doctor", "--data", "~no-such-user"], "give one with --data"),
    "speed ratios empty": (speed("--ratios", ""), "separated by commas, not ''"),
    "speed ratios with an end": (speed("--ratios", "0.5,"), "separated by commas, not ''"),
    "speed ratio nan": (speed("--ratios", "nan"), "at least 0 and below 1"),
    "speed ratio 1": (speed("--ratios", "0.5,1"), "at least 0 and below 1"),
    "speed methods empty": (speed("--methods", ""), "unknown method ''"),
    "speed of full at a ratio": (speed("--methods", "full"), "its ratio is 0"),
    "speed of a shorter run": (speed("--methods", "fewer-epochs"), "leave it out of --methods"),
    "speed rounds a word": (speed("--rounds", "x"), ": 'x'"),
    "speed rounds beyond counting": (speed("--rounds", "9" * 30), "is at most"),
    "speed setting": (speed("--methods", "random", "--set", "nope=1"), "no setting 'nope'"),
    "speed takes no protocol": (speed("--protocol", "updates"), "No such option: --protocol"),
    "speed that diverges": (speed("--methods", "random", "--learning-rate", "1e30"), "try a lower one"),
    "speed's data is a file": (speed("--data", "file"), "not a folder"),
}


def swept(block, *, common="threads = 1", method='"random"', ratio="0.5"):
    """A sweep file of digits with a line or more of its own."""
    return f"[common]\n{common}\n[[sweep]]\nmethod = {method}\nratio = {ratio}\n{block}\n"


FILES = {
    "empty": ("", "has no [[sweep]]"),
    "no TOML": ("{", "is not TOML: Invalid statement (at line 1"),
    "single brackets": ('[sweep]\nmethod = "random"\nratio = 0.5', "double brackets"),
    "no block": ("[common]\nepochs = 1", "has no [[sweep]]"),
    "blocks are numbers": ("sweep = [1, 2]", "[[sweep]] 1 is not a table"),
    "common is a number": ('common = 1\n[[sweep]]\nmethod = "random"\nratio = 0.5', "[common] is not a table"),
    "another table": (swept("[runs]\na = 1"), "unknown table 'runs'"),
    "no method": ("[[sweep]]\nratio = 0.5", "[[sweep]] 1 lacks method"),
    "no ratio": ('[[sweep]]\nmethod = "random"', "[[sweep]] 1 lacks ratio"),
    "unknown key": (swept("epoch = 3"), "unknown key 'epoch'; did you mean 'epochs'?"),
    "key of torchrun": (swept("processes = 2"), "unknown key 'processes'"),
    "key twice": (swept("epochs = 3\nepochs = 4"), "is not TOML: Cannot overwrite a value"),
    "key in two spellings": (swept("batch-size = 32\nbatch_size = 32"), "batch_size is there twice"),
    "empty list": (swept("seed = []"), "seed is an empty list"),
    "list in a list": (swept("seed = [[1]]"), "seed is a whole number or a list of such"),
    "mixed list": (swept('seed = [1, "a"]'), "seed is a whole number or a list of such, not 'a'"),
    "nested too deep": (swept("seed = " + "[" * 5000), "is not TOML"),
    "boolean for a number": (swept("seed = true"), "not 'True'"),
    "text for a number": (swept('epochs = "2"'), "epochs is a whole number or a list of such, not '2'"),
    "fraction for a count": (swept("epochs = 2.5"), "epochs is a whole number"),
    "date for a number": (swept("seed = 2020-01-01"), "not '2020-01-01'"),
    "number for a name": (swept("", method="3"), "method is a name or a list of such, not '3'"),
    "count beyond counting": (swept("epochs = " + "9" * 400), "epochs is at most 9,223,372,036,854,775,807"),
    "number endless": (swept(f"epochs = {ENDLESS}"), "is not TOML"),
    "ratio nan": (swept("", ratio="nan"), "at least 0 and below 1"),
    "ratio 1 among others": (swept("", ratio="[0.5, 1]"), "[[sweep]] 1: --ratio is at least 0 and below 1"),
    "learning rate infinite": (swept("learning_rate = inf"), "at most 1e+38, not inf"),
    "epochs 0": (swept("epochs = 0"), "[[sweep]] 1: --epochs is at least 1"),
    "seed below 0": (swept("seed = -1"), "[[sweep]] 1: --seed is at least 0"),
    "unknown method": (swept("", method='"sdap"'), "did you mean 'sadp'"),
    "code": (swept("", method='"os:path"'), "would import that module and so run its code"),
    "dataset that would steer the terminal": (swept('dataset = "\\u001b[2J"'), r"unknown dataset '\x1b[2J'"),
    "full at a ratio": (swept("", method='"full"'), "its ratio is 0"),
    "settings that are no table": (swept("set = 1"), "set is a table"),
    "setting unknown": (swept("set.nope = 1"), "no setting 'nope'"),
    "setting nan": (swept("set.backbone.tau = nan"), "a number, not 'nan'"),
    "setting of another type": (swept('set.fresh = "maybe"'), "true or false, not 'maybe'"),
    "setting in two spellings": (swept('set.backbone.width = 8\nset."backbone.width" = 9'), "is there twice"),
    "too many runs": (swept(f"seed = {list(range(100_001))}"), "at most 100,000"),
}
SWEEP = {
    "no file": (["nowhere.toml"], "can't read nowhere.toml: No such file"),
    "a folder": (["empty"], "can't read empty: Is a directory"),
    "a name too long": (["x" * 5000], "File name too long"),
    "jobs 0": (["good.toml", "--jobs", "0"], "--jobs is at least 1"),
    "jobs a word": (["good.toml", "--jobs", "all"], ": 'all'"),
    "retries below 0": (["good.toml", "--retries", "-1"], "--retries is at least 0"),
    "shard 0": (["good.toml", "--shard", "0/2"], "--shard is i/n"),
    "shard beyond": (["good.toml", "--shard", "3/2"], "--shard is i/n"),
    "shard empty": (["good.toml", "--shard", ""], "--shard is i/n"),
    "shard of words": (["good.toml", "--shard", "a/b"], "--shard is i/n"),
    "data is a file": (["good.toml", "--data", "file"], "file is not a folder"),
    "checkpoint-seconds below 0": (["good.toml", "--checkpoint-seconds", "-1"], "--checkpoint-seconds is at least 0"),
    "checkpoint-seconds nan": (["good.toml", "--checkpoint-seconds", "nan"], "--checkpoint-seconds is at least 0"),
    "unknown option": (["good.toml", "--epochs", "3"], "No such option: --epochs"),
    "no file named": ([], "Missing argument 'file'"),
}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quietly(words):
    out = [] if "--out" in words else ["--out", "runs"]
    return [*words, *{"run": [*out, "--quiet"], "speed": ["--quiet"]}.get(words[0], [])]


@pytest.mark.parametrize(("words", "says"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_one_line_and_code_2(words, says, place):
    before = files(place)
    refused(command(*quietly(words)), says)
    assert files(place) == before


@pytest.mark.parametrize(("text", "says"), FILES.values(), ids=FILES.keys())
def test_a_bad_sweep_file_is_one_line_that_names_it(text, says, place):
    Path("bad.toml").write_text(text)
    before = files(place)
    answer = command("sweep", "bad.toml", "--out", "runs")
    refused(answer, says)
    assert "bad.toml" in answer.err and files(place) == before


@pytest.mark.parametrize(("words", "says"), SWEEP.values(), ids=SWEEP.keys())
def test_a_bad_call_of_sweep_is_one_line(words, says, place):
    Path("good.toml").write_text(swept("epochs = 2"))
    before = files(place)
    refused(command("sweep", *words, "--out", "runs"), says)
    assert files(place) == before


@pytest.mark.parametrize(
    "name",
    ["method", "dataset", "ratio nan", "epochs 0", "epochs no number", "under one batch", "data is a file", "out is a file",
     "setting not finite", "speed ratios", "speed method", "speed that diverges", "list empty", "list nothing",
     "doctor's data is a file", "unknown option"],
)  # fmt: skip
def test_json_of_bad_input_prints_nothing_on_stdout(name, place):
    words, says = CASES[name]
    refused(command(*quietly(words), "--json"), says)


@pytest.mark.parametrize("name", ["with space", "größe 日本 ☃", "-dash", "a'b\"c", "new\nline", "per%cent [bold]"])
def test_odd_names_of_folders_work(name, place):
    folder = place / name
    answer = tiny_run("full", 0, folder, "--data", folder / "data")
    assert answer.code == 0 and len(list(folder.glob("*.json"))) == 1
    answer = command("report", folder, "--to", folder / name / f"{name}.md", "--plots", folder / "plots")
    assert answer.code == 0 and "full" in (folder / name / f"{name}.md").read_text()
    assert command("doctor", "--data", folder).code == 0


def test_a_run_that_diverges_says_so_leaves_no_record_and_is_told_by_the_report(place):
    refused(command(*quietly(run("--learning-rate", "1e30", "--no-reference"))), "try a lower one")
    [path] = Path("runs").glob("*.json")
    assert path.name.endswith(".failed.json")
    refused(command("report", "runs"), "every run failed (1): random 50 %, seed 0: training diverged")
    answer = command("report", "runs", "records")
    assert answer.code == 0 and "1 failed" in answer.out and "training diverged" in answer.out


def test_a_report_of_failures_alone_is_one_line(place):
    Store(place / "failures").write_failure(Failure(make_spec("sadp", 0.3), "killed by signal 9", "2025"))
    for format in ("text", "markdown", "csv", "json"):
        refused(command("report", "failures", "--format", format), "sadp 30 %, seed 0: killed by signal 9")


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES.values()], ids=DAMAGES.keys())
def test_a_damaged_record_among_good_ones_is_named_and_skipped(damage, place):
    (place / "records" / "bad.json").write_text(damage(make_record(make_spec("sadp", 0.3)).to_json()))
    answer = command("report", "records")
    assert answer.code == 0 and "random" in answer.out and "sadp" not in answer.out.replace("sadp-bench", "")
    assert answer.err.count("\n") == 1 and answer.err.startswith("sadp-bench: skipped records/bad.json: ")
    assert answer.err.rstrip("\n").isprintable()


def test_an_edited_record_no_longer_fits_its_key(tmp_path):
    assert tiny_run("full", 0, tmp_path).code == 0
    (path,) = tmp_path.glob("*.json")
    data = json.loads(path.read_text())
    data["spec"]["epochs"] = 3
    path.write_text(json.dumps(data))
    answer = command("report", tmp_path)
    assert answer.code == 2 and "does not fit its spec" in answer.err


def test_a_run_whose_own_record_is_broken_says_so_and_keeps_it(tmp_path):
    assert tiny_run("full", 0, tmp_path).code == 0
    (path,) = tmp_path.glob("*.json")
    path.write_text("{")
    answer = tiny_run("full", 0, tmp_path)
    refused(answer, "--again")
    assert Path(path).read_text() == "{"


def test_report_without_records_says_how_to_make_some(tmp_path):
    refused(command("report", tmp_path), "sadp-bench run")
