"""Bad input: one line with the given and the allowed values, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sadp_bench.core.text import printable
from sadp_bench.records.store import Store
from tests.commands import RANDOM, TINY, command, complaint, refused, tiny_run
from tests.example_records import make_record, make_spec

ENDLESS, LONG, HUGE = "9" * 5000, "x" * 300, "9" * 30

# Words of the refusal by the words after `run --method random --ratio 0.5` and small sizes; a last option counts.
VALUES = {
    "--ratio -0.1": "at least 0 and below 1",
    "--ratio 1": "at least 0 and below 1",
    "--ratio nan": "at least 0 and below 1",
    "--ratio=-inf": "at least 0 and below 1",
    "--ratio 0.9999999999": "keeps 0, less than one batch",
    "--method full": "its ratio is 0",
    "--batch-size 200": "less than one batch of 200",
    "--batch-size 1000000000": "less than one batch of 1000000000",
    "--batch-size 0": "--batch-size is at least 1",
    "--epochs 0": "--epochs is at least 1, not 0",
    f"--epochs {HUGE}": "--epochs is at most 100,000",
    "--epochs 9223372036854775807": "--epochs is at most 100,000",
    "--epochs 60000 --protocol updates": "more than 100,000 epochs",
    "--timesteps 0": "--timesteps is at least 1",
    "--timesteps 9223372036854775807": "--timesteps is at most 1,000,000",
    "--timesteps 1000000 --set backbone.width=512": "GiB of memory, and there are",
    "--timesteps 9223372036854775807 --backprop sltt-k --k 9223372036854775807": "--timesteps is at most 1,000,000",
    "--threads 0": "--threads is at least 1",
    "--threads 1000000": "--threads is at most 1,024, not 1000000",
    "--seed -1": "--seed",
    f"--seed {HUGE}": "--seed is at most",
    "--train-examples 0": "--train-examples is at least 1",
    "--train-examples 1": "less than one batch",
    f"--train-examples {HUGE}": "at most 9,223,372,036,854,775,807",
    "--evaluate-every 0": "--evaluate-every is at least 1",
    "--learning-rate -1": "--learning-rate",
    "--learning-rate nan": "--learning-rate is a number of at least 0",
    "--learning-rate 1e39": "at most 1e+38, not 1e+39",
    "--weight-decay inf": "--weight-decay",
    "--checkpoint-seconds -1": "--checkpoint-seconds is at least 0",
    "--checkpoint-seconds nan": "--checkpoint-seconds is at least 0",
    "--concurrent-jobs 0": "--concurrent-jobs is at least 1",
    f"--concurrent-jobs {HUGE}": "--concurrent-jobs is at most 1,024",
    # of another type: the option, what is allowed and what came
    "--ratio half": "--ratio",
    "--ratio ''": "not a number",
    "--ratio 0,5": "below 1 (the share of visits to save), not 5.0",
    "--epochs 2.5": "--epochs",
    "--epochs=many": "'--epochs': Input should be a valid integer",
    f"--epochs {ENDLESS}": "--epochs",
    "--seed 0xff": ": '0xff'",
    "--train-examples 10%": ": '10%'",
    "--checkpoint-seconds often": ": 'often'",
}
NAMES = {
    "--method sdap": "did you mean 'sadp'",
    "--method zzz": ", el2n, ",
    "--method ''": "unknown method ''",
    "--method random,sdap": "did you mean 'sadp'",
    "--method :": "no module named ''",
    "--method ../../x:Y": "no module named '../../x'",
    "--method 'random\n\x00'": "unknown method 'random",
    "--method nomodule.at.all:Mine": "no module named",
    "--method sadp_bench.pruners.sadp:SDAP": "no class",
    "--method sadp_bench.records.record:Record": "no subclass of",
    "--method sadp_bench.pruners.base:Pruner": "abstract",
    "--backbone resnet17": "did you mean 'resnet19'",
    "--backbone sadp_bench.records.record:Record": "no subclass of",
    "--method full --ratio 0 --backbone torch.nn:ReLU": "no setting 'width'",
    "--dataset cifar11": "did you mean 'cifar10'",
    "--dataset DIGITS": "allowed: braille, ",
    "--dataset os:path": "no class 'path'",
    "--dataset sadp_bench.records.record:Record": "no subclass of",
    "--dataset sadp_bench.datasets.base:Dataset": "abstract",
    "--optimizer adam": "sgd, adamw",
    "--schedule step": "cosine, constant",
    "--augment flip": "such as crop-flip,cutout, not 'flip'",
    "--augment crop,crop-flip": "crop-flip crops too",
    "--augment cutout,cutout": "not 'cutout,cutout'",
    "--augment nda": "--augment nda moves recordings of events, and digits has images",
    "--dataset braille --augment crop,mixup": "the inputs of braille are vectors; take none or mixup",
    "--augment none,cutout": "not 'none,cutout'",
    "--loss l2": "mean, step, step-mse, step-mse-onehot",
    "--loss step --mse-weight 0.1": "--loss step-mse or step-mse-onehot; step has none",
    "--loss step-mse --mse-weight 1.5": "from 0 to 1, not 1.5",
    "--label-smoothing 1": "at least 0 and below 1 (the uniform share of the target), not 1",
    "--warmup-epochs 3 --epochs 3": "at least 0 and below --epochs (3), not 3",
    "--momentum nan": "--momentum is a number of at least 0 and below 1",
    "--optimizer adamw --nesterov": "those of --optimizer sgd; adamw has its own",
    "--optimizer adamw --momentum 0.5": "those of --optimizer sgd; adamw has its own",
    "--momentum 0 --nesterov": "--nesterov needs a --momentum above 0",
    "--momentum 0 --sparsity pq --density 0.5": "regrows by momentum, needs a --momentum above 0",
    "--clip-norm -1": "--clip-norm is a number of at least 0",
    "--clip-norm 1 --sparsity random --density 0.5": "--clip-norm serves --sparsity dense alone, not random",
    "--ema 0.9 --sparsity random --density 0.5": "--ema serves --sparsity dense alone, not random",
    "--ema 1": "--ema is a number of at least 0 and below 1",
    "--loss mean --backprop sltt": "needs a loss of each step",
    "--precision fp16": "fp32, bf16, fp64",
    "--protocol steps": "epochs, updates",
    "--method infobatch --protocol updates": "--protocol epochs",
    "--evaluate-on train": "test, validation",
    "--device tpu": "auto, cpu, cuda",
    "--device cuda:99": "--device",
    "--device ''": "auto, cpu, cuda, cuda:N or mps, not ''",
    "--device cuda:-1": "auto, cpu, cuda, cuda:N or mps",
    "--device meta": "auto, cpu, cuda, cuda:N or mps",
    "--epoch 3": "--epoch",
}
SETTINGS = {
    "--method sadp --set smothing=0.2": "did you mean 'smoothing'",
    "--method sadp --set smoothing=much": "is a number",
    "--method sadp --set smoothing=nan": "is a number",
    "--method sadp --set smoothing=0": "above 0 and at most 1",
    "--method sadp --set smoothing=2": "above 0 and at most 1",
    "--method el2n --set score_epochs=1.5": "a whole number",
    f"--method el2n --set score_runs={HUGE}": "score_runs is from 1 to 1,000",
    "--sparsity imp --density 0.01 --set sparsity.prune_share=1e-12": "more than 1,000 rounds",
    "--sparsity imp --density 1e-300 --set sparsity.prune_share=1e-320": "more than 1,000 rounds",
    f"--sparsity eb --density 0.5 --set sparsity.window={HUGE}": "window is from 2 to 1,000",
    "--method el2n --set offset=0.6": "between 0 and the ratio",
    "--method grand --set score_epochs=9": "at most the run's 2 epochs",
    "--method infobatch --set delta=0": "delta",
    "--method infobatch --ratio 0.95 --batch-size 10": "at most 0.9",
    "--set fresh=perhaps": "true or false",
    "--set fresh=1": "true or false, not '1'",
    "--set backbone.widht=8": "did you mean 'width'",
    "--set backbone.width=0": "at least 1 channel",
    "--set backbone.width=": "a whole number, not ''",
    "--set backbone.width=4=5": "a whole number, not '4=5'",
    "--set backbone.width=1e400": "a whole number, not '1e400'",
    "--set backbone.width=9223372036854775807": "out of memory on cpu",
    "--set backbone.width=1000000000": "out of memory on cpu",
    "--set backbone.threshold=1e400": "a number, not '1e400'",
    "--set backbone.threshold=-1": "above 0",
    "--set backbone.norm=layer": "batch, weighted, group, sync, none, not 'layer'",
    "--set backbone.tau=1": "backbone.tau is above 1",
    "--set backbone.surrogate=relu": "atan, sigmoid, triangle",
    "--set smoothing": "KEY=VALUE",
    "--set ''": "KEY=VALUE, not ''",
    "--set '=1'": "KEY=VALUE, not '=1'",
    "--set backbone.=1": "has no setting ''",
    "--set backbone.backbone.width=4": "no setting 'backbone.width'",
    "--set Backbone.width=4": "no setting 'Backbone.width'",
    "--set --epochs=3": "no setting '--epochs'",
    "--set prune_ratio=0.9": "no setting 'prune_ratio'",
    "--set self=1": "no setting 'self'",
    "--set größe=1": "no setting 'größe'",
}
PLACES = {
    "--out file": "can't write file/",
    "--out file/runs": "choose another folder",
    "--out /dev/null": "can't write /dev/null/",
    f"--out {LONG}": "File name too long",
    "--out 'a\0b'": "null byte",
    "--data file": "file is not a folder; give one with --data",
    "--data ~no-such-user/x": "write the whole path",
    "--out ~no-such-user/x": "write the whole path",
    "--data 'a\0b'": "null byte",
}
OTHERS = {
    "run --method full --ratio 0 --backbone torch.nn:ReLU --out runs": "is not built from (input_shape, num_classes",
    "run --method full --ratio 0 --backbone torch.nn:Identity --out runs": "no parameters",
    "run --method sadp": "--ratio",
    "runn": "runn",
    "RUN": "No such command 'RUN'",
    "''": "No such command",
    "--epochs 3 run": "No such option: --epochs",
    "report nowhere": "no folder nowhere",
    "report records nowhere": "no folder nowhere",
    "report file": "no folder file",
    f"report {LONG}": "no folder xxx",
    "report empty": "no records here",
    "report . --format pdf": "--format is one of",
    "report records --format ''": "--format is one of",
    "report records --format CSV": "--format is one of",
    "report records --to": "'--to' requires an argument",
    "report records --to empty": "can't write empty",
    "report records --to ''": "can't write .",
    "report records --to file/report.md": "can't write file/report.md",
    "report records --to /proc/x/report.md": "can't write /proc/x",
    "report records --to pipe": "can't write pipe: it is there and no regular file",
    f"report records --to {LONG}": "File name too long",
    "report records --to 'a\0b'": "null byte",
    "report records --plots file": "can't write file/",
    "report records --plots /proc/x": "can't write /proc/x",
    "report records --json": "No such option: --json",
    "list methods sdap": "did you mean 'sadp'?",
    "list methods sadp extra": "extra",
    "list recipes tet": "unknown recipe 'tet'",
    "list ''": "allowed: backbones, backprop, datasets, methods",
    "list method": "did you mean 'methods'",
    "list methods datasets": "there is no 'datasets' in the list of methods",
    "list methods --format csv": "No such option: --format",
    "doctor methods": "unexpected extra argument",
    "doctor --data file": "not a folder",
    "doctor --data ~no-such-user": "write the whole path",
    "check 'a\0b' --against records": "null byte",
    "check records --against 'a\0b'": "null byte",
    "study --from 'a\0b'": "null byte",
    "sweep 'a\0b'": "null byte",
}
# Words of the refusal by the words after `speed` and small sizes.
SPEED = {
    "--rounds 1": "--rounds is at least 2",
    "--rounds 5 --epochs 2": "--epochs is at least 6",
    "--rounds x": ": 'x'",
    f"--rounds {HUGE}": "--rounds is at most 10,000",
    "--timesteps 1000000 --set backbone.width=512": "GiB of memory, and there are",
    "--ratios a,b": "separated by commas",
    "--ratios ''": "separated by commas, not ''",
    "--ratios 0.5,": "separated by commas, not '0.5,'",
    "--ratios nan": "at least 0 and below 1",
    "--ratios 0.5,1": "at least 0 and below 1",
    "--methods sdap": "did you mean 'sadp'",
    "--sparsity channels --density 0.5": "take --sparsity narrow",
    "--methods ''": "unknown method ''",
    "--methods full": "its ratio is 0",
    "--methods fewer-epochs": "leave it out of --methods",
    "--methods random --set nope=1": "no setting 'nope'",
    "--protocol updates": "No such option: --protocol",
    "--methods random --learning-rate 1e30": "try a lower one",
    "--data file": "not a folder",
}


def swept(block, *, common="threads = 1", method='"random"', ratio="0.5"):
    """Returns a sweep file on digits with further lines."""
    return f"[common]\n{common}\n[[sweep]]\nmethod = {method}\nratio = {ratio}\n{block}\n"


FILES = {
    "": "has no [[sweep]]",
    "{": "is not TOML: Invalid statement (at line 1",
    '[sweep]\nmethod = "random"\nratio = 0.5': "double brackets",
    "[common]\nepochs = 1": "has no [[sweep]]",
    "sweep = [1, 2]": "[[sweep]] 1 is not a table",
    'common = 1\n[[sweep]]\nmethod = "random"\nratio = 0.5': "[common] is not a table",
    swept("[runs]\na = 1"): "unknown table 'runs'",
    "[[sweep]]\nratio = 0.5": "[[sweep]] 1 lacks method",
    '[[sweep]]\nmethod = "random"': "[[sweep]] 1 lacks ratio",
    swept("epoch = 3"): "unknown key 'epoch'; did you mean 'epochs'?",
    swept("processes = 2"): "unknown key 'processes'",
    swept("epochs = 3\nepochs = 4"): "is not TOML: Cannot overwrite a value",
    swept("batch-size = 32\nbatch_size = 32"): "batch_size is there twice",
    swept("seed = []"): "seed is an empty list",
    swept("seed = [[1]]"): "seed is a whole number or a list of such",
    swept('seed = [1, "a"]'): "seed is a whole number or a list of such, not 'a'",
    swept("seed = " + "[" * 5000): "is not TOML",
    swept("seed = true"): "not 'True'",
    swept('epochs = "2"'): "epochs is a whole number or a list of such, not '2'",
    swept("epochs = 2.5"): "epochs is a whole number",
    swept("seed = 2020-01-01"): "not '2020-01-01'",
    swept("", method="3"): "method is a name or a list of such, not '3'",
    swept("epochs = " + "9" * 400): "epochs is at most 9,223,372,036,854,775,807",
    swept(f"epochs = {ENDLESS}"): "is not TOML",
    swept("", ratio="nan"): "at least 0 and below 1",
    swept("", ratio="[0.5, 1]"): "[[sweep]] 1: --ratio is at least 0 and below 1",
    swept("learning_rate = inf"): "at most 1e+38, not inf",
    swept("epochs = 0"): "[[sweep]] 1: --epochs is at least 1",
    swept("seed = -1"): "[[sweep]] 1: --seed is at least 0",
    swept("", method='"sdap"'): "did you mean 'sadp'",
    swept("", method='"os:path"'): "would import that module and so run its code",
    swept('dataset = "\\u001b[2J"'): r"unknown dataset '\x1b[2J'",
    swept("", method='"full"'): "its ratio is 0",
    swept("set = 1"): "set is a table",
    swept("set.nope = 1"): "no setting 'nope'",
    swept("set.backbone.tau = nan"): "a number, not 'nan'",
    swept('set.fresh = "maybe"'): "true or false, not 'maybe'",
    swept('set.backbone.width = 8\nset."backbone.width" = 9'): "is there twice",
    swept(f"seed = {list(range(100_001))}"): "at most 100,000",
    swept("timesteps = 9223372036854775807"): "--timesteps is at most 1,000,000",
}
SWEEP = {
    "nowhere.toml": "can't read nowhere.toml: No such file",
    "empty": "can't read empty: no regular file",
    "x" * 5000: "File name too long",
    "good.toml --jobs 0": "--jobs is at least 1",
    "good.toml --jobs all": ": 'all'",
    f"good.toml --jobs {'9' * 400}": "--jobs is at most 1,024",
    "good.toml --retries -1": "--retries is at least 0",
    f"good.toml --retries {HUGE}": "--retries is at most 1,000",
    f"good.toml --shard {ENDLESS}/{ENDLESS}": "--shard is i/n",
    "good.toml --shard 0/2": "--shard is i/n",
    "good.toml --shard 3/2": "--shard is i/n",
    "good.toml --shard ''": "--shard is i/n",
    "good.toml --shard a/b": "--shard is i/n",
    "good.toml --data file": "file is not a folder",
    "good.toml --checkpoint-seconds nan": "--checkpoint-seconds is at least 0",
    "good.toml --epochs 3": "No such option: --epochs",
    "": "Missing argument 'FILE'",
}
FAST = ["speed", "--rounds", "2", *TINY[2:], "--quiet"]
CALLS = {
    "values": [([*RANDOM, *shlex.split(words)], expected) for words, expected in VALUES.items()],
    "names": [([*RANDOM, *shlex.split(words)], expected) for words, expected in NAMES.items()],
    "settings": [([*RANDOM, *shlex.split(words)], expected) for words, expected in SETTINGS.items()],
    "places": [([*RANDOM, *shlex.split(words)], expected) for words, expected in PLACES.items()],
    "speed": [([*FAST, *shlex.split(words)], expected) for words, expected in SPEED.items()],
    "sweep": [(["sweep", *shlex.split(words), "--out", "runs"], expected) for words, expected in SWEEP.items()],
    "others": [(shlex.split(words), expected) for words, expected in OTHERS.items()],
}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("group", CALLS)
def test_bad_input_is_one_line_and_code_2(group, place):
    Path("good.toml").write_text(swept("epochs = 2"))
    before, wrong = files(place), {}
    for words, expected in CALLS[group]:
        problem = complaint(command(*words), expected) or ("it writes files" if files(place) != before else "")
        wrong |= {" ".join(words)[-200:]: problem} if problem else {}
    assert not wrong


def test_a_bad_sweep_file_is_one_line_that_names_it(place):
    wrong = {}
    for text, expected in FILES.items():
        Path("bad.toml").write_text(text)
        before = files(place)
        problem = complaint(command("sweep", "bad.toml", "--out", "runs"), expected, "bad.toml")
        problem = problem or ("it writes files" if files(place) != before else "")
        wrong |= {text[:200]: problem} if problem else {}
    assert not wrong


def test_json_of_bad_input_prints_nothing_on_stdout(place):
    for words in ("--method sdap", "--ratio nan", "--epochs many", "--batch-size 200", "--data file", "--out file"):
        refused(command(*RANDOM, *shlex.split(words), "--json"))
    for words in ("--ratios a,b", "--methods sdap", "--methods random --learning-rate 1e30"):
        refused(command(*FAST, *shlex.split(words), "--json"))
    for words in ("list ''", "list recipes x", "doctor --data file"):
        refused(command(*shlex.split(words), "--json"))


def test_every_path_begins_at_home_where_it_begins_with_a_tilde(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    Path("good.toml").write_text(swept("epochs = 2"))
    for words in (
        "report ~/nowhere",
        "report records ~/nowhere",
        "report records --to=~/pipe",
        "report records --plots=~/file",
        "check ~/nowhere --against records",
        "check records --against=~/nowhere",
        "check records --against empty --junit=~/pipe",
        "sweep ~/nowhere.toml",
        "sweep good.toml --out=~/file",
        "sweep good.toml --dry-run --data=~/file",
        "run --method random --ratio 0.5 --out ~/file --no-reference",
        "speed --data=~/file",
        "study --from=~/nowhere.json",
        "study --data=~/file",
        "doctor --data=~/file",
    ):
        answer = command(*shlex.split(words))
        assert answer.code == 2 and f"{place}/" in answer.err and "~" not in answer.err, words
    assert not Path("~").exists()


def test_odd_names_of_folders_work(place):
    for name in ("with space", "größe 日本 ☃", "-dash", "a'b\"c", "new\nline", "per%cent [bold]"):
        folder = place / name
        Store(folder).write(make_record(make_spec()))
        answer = command("report", folder, "--to", folder / name / f"{name}.md", "--plots", folder / "plots")
        assert answer.code == 0 and "full" in (folder / name / f"{name}.md").read_text(), name
        answer = command("doctor", "--data", folder)
        assert answer.code == 0 and printable(str(folder)) in answer.out, name
    answer = tiny_run("full", 0, place / "-a\n'ß [b]", "--data", place / "-a\n'ß [b]" / "data")
    assert answer.code == 0 and len(list((place / "-a\n'ß [b]").glob("*.json"))) == 1
