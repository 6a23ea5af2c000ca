"""Command lines and sweep files, made from the options and fields that there are."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch
from urllib.error import URLError

import typer
from hypothesis import strategies as st

from sadp_bench.cli import inspect as inspect_
from sadp_bench.cli import measure, run_view, train
from sadp_bench.cli.check import check
from sadp_bench.cli.claim import claim
from sadp_bench.core.progress import Progress
from sadp_bench.records.store import Store
from sadp_bench.sweeps.search import KEYS as SEARCH_KEYS
from sadp_bench.sweeps.sweep_file import FIELDS
from tests.commands import command
from tests.example_records import make_record, make_spec
from tests.fuzz.edits import NUMBERS, PAYLOADS
from tests.fuzz.oracles import check_answer, check_record
from tests.odd_files import ODD_PLACES

MAX_BATCHES = 6  # after which a run is interrupted, so that a large --epochs ends
NAMES = {
    "method": ["full", "random", "sadp", "el2n", "infobatch", "fewer-epochs", "forgetting", "os:path", "x:Y", "sadp,"],
    # No list that would start processes.
    "ratio": ["0.5", "0", "0.3", "nan", "1", "1e3", "-0.5", "0.5,", "0.3,x", "", "٣"],
    "seed": ["0", "1", "-1", "0,", "0,x", "2.5", "", "٣", "9" * 30, "9223372036854775807", "0x10"],
    "dataset": ["digits", "cifar10", "nmnist", "mnist", "braille", "dvs-gesture", "sadp_bench.records.record:Record", "x:Y"],
    "backbone": ["cnn", "mlp", "resnet19", "resnet18", "torch.nn:ReLU", "torch.nn:Identity", "x:Y"],
    "device": ["cpu", "cuda", "cuda:0", "cuda:99", "mps", "mps:0", "meta", "auto", "xpu", "hpu:1", "cuda:-1"],
    "optimizer": ["sgd", "adamw", "adam"],
    "schedule": ["cosine", "constant"],
    "augment": ["none", "crop", "crop-flip", "cutout", "cutout,crop", "crop,crop-flip", "cutout,", ","],
    "loss": ["mean", "step", "step-mse", "step-mse-onehot"],
    "precision": ["auto", "fp32", "bf16", "fp64", "fp16"],
    "protocol": ["epochs", "updates"],
    "evaluate_on": ["test", "validation", "train"],
    "backprop": ["bptt", "sltt", "sltt-k", "local"],
    "sparsity": ["dense", "imp", "eb", "pq", "random", "channels", "narrow"],
    "format": ["text", "markdown", "latex", "csv", "json", "html"],
    "kind": ["methods", "backbones", "datasets"],
    "methods": ["random", "sadp,random", "full", ",", "random,", "sadp,x"],
    "ratios": ["0.5", "0.3,0.5", "nan", "1", "0.5,", "a"],
    "shard": ["1/1", "2/3", "0/1", "9/1", "1/0", "/", "1/1/1", "١/٢"],
    "at": ["1", "1,2", "0", "-1", "a", "1,,2", "99"],
    "set": [
        "smoothing=0.2", "smoothing=nan", "backbone.width=4", "backbone.width=0", "backbone.tau=1e400", "backbone.norm=none",
        "sparsity.p=0.5", "score_epochs=1", "x", "=", "a=b=c", "--x=1", "größe=1", "backbone.=", "fresh=true",
    ],
}  # fmt: skip
# Counts that are refused or small: a large one that fits into memory is a long run, and no fault.
COUNTS = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "9" * 30,
    "9223372036854775807",
    "1000000000000",
    "2.5",
    "x",
    "",
    "1e3",
    "٣",
    "0x10",
]
REALS = ["0", "0.5", "1", "-0.5", "1e-30", "0.1", "nan", "inf", "-inf", "1e400", "1e39", "x", "", "0,5", "1_0", "٠.٥"]
PATHS = [
    "records",
    "file",
    "empty",
    "nowhere",
    "/dev/null",
    "/proc/x",
    "a\0b",
    "~nobody-here/x",
    "~/x",
    "",
    ".",
    "x" * 300,
]
PATHS += ["pipe", "loop", "new/a/b", "file/x", "größe ☃", "-dash", "new\nline", "[bold]x"]
SMALL = {"epochs": "1", "train-examples": "64", "batch-size": "32", "timesteps": "2", "threads": "1", "device": "cpu"}
CALLS: dict[str, tuple[list[str], Any]] = {
    "run": (
        ["--method", "random", "--ratio", "0.5", *(f"--{name}={value}" for name, value in SMALL.items())],
        train.run,
    ),
    "sweep": (["sweep.toml", "--dry-run"], train.sweep),
    "report": (["records"], inspect_.report),
    "power": (["records"], inspect_.power),
    "check": (["records", "--against", "records2"], check),
    "claim": (["hardest-subset", "--from", "records"], claim),
    "speed": (
        ["--rounds=2", "--methods=random", "--ratios=0.5", "--epochs=2", "--train-examples=128", "--threads=1"],
        measure.speed,
    ),
    "study": (["--examples=16", *(f"--{name}={value}" for name, value in SMALL.items()), "--epochs=2"], measure.study),
    "list": ([], inspect_.list_),
    "doctor": ([], inspect_.doctor),
}
# Options that end no command by themselves, or reach for the network.
LEFT_OUT = {"run", "executor", "address", "gpus_per_run"}


def _values(parameter: inspect.Parameter) -> st.SearchStrategy[list[str]]:
    """Returns the words of an option or an argument: of its type, or odd."""
    kind, info = get_args(parameter.annotation)[:2]
    declared = [word for word in getattr(info, "param_decls", None) or () if word.startswith("--")]
    option = declared[0] if declared else f"--{parameter.name.replace('_', '-')}"
    if bool in (kind, *get_args(kind)):
        return st.just([option])
    types = (kind, *get_args(kind), *(item for part in get_args(kind) for item in get_args(part)))
    pools = [NAMES[parameter.name]] if parameter.name in NAMES else []
    pools += [pool for of, pool in ((Path, PATHS), (int, COUNTS), (float, REALS), (str, PAYLOADS)) if of in types]
    value = st.one_of(st.sampled_from(pools[0]), st.sampled_from(pools[0]), st.sampled_from(PAYLOADS))
    if isinstance(info, typer.models.ArgumentInfo):
        return value.map(lambda text: [text])
    return value.map(lambda text: [f"{option}={text}"]) | value.map(lambda text: [option, text])


def _lines() -> st.SearchStrategy[list[str]]:
    calls = []
    for name, (base, function) in CALLS.items():
        parameters = inspect.signature(function, eval_str=True).parameters.values()
        further = st.lists(st.one_of([_values(p) for p in parameters if p.name not in LEFT_OUT]), max_size=4)
        as_json = st.sampled_from([[], ["--json"]] if any(p.name == "as_json" for p in parameters) else [[]])
        calls.append(
            st.tuples(st.just([name, *base]), further, as_json).map(
                lambda parts: [*parts[0], *sum(parts[1], []), *parts[2]]
            )
        )
    return st.one_of(calls) | st.lists(
        st.sampled_from([*PAYLOADS, *CALLS, "--json", "--version", "--help"]), max_size=4
    )


lines = _lines()


class Interrupts(Progress):
    """Interrupts a run, as a user does."""

    def __init__(self) -> None:
        self.count = 0

    def advance(self, visits: int) -> None:
        self.count += 1
        if self.count > MAX_BATCHES:
            raise KeyboardInterrupt


def _no_network(url: str, timeout: float) -> None:
    raise URLError(OSError(-3, "Temporary failure in name resolution"))


def check_line(line: list[str]) -> None:
    """Gives a command line a folder to work in, and checks its answer."""
    for folder in ("records", "records2"):
        for spec in (make_spec(), make_spec("random", 0.5)):
            Store(Path(folder)).write(make_record(spec))
    Path("file").write_text("text")
    Path("empty").mkdir()
    ODD_PLACES["a pipe"](Path("pipe"))
    ODD_PLACES["a link to itself"](Path("loop"))
    Path("sweep.toml").write_text(toml({"common": {"epochs": 1, "train_examples": 64, "threads": 1}, "sweep": [GOOD]}))
    here = {"SADP_BENCH_DATA": str(Path("data").absolute()), "HOME": str(Path("home").absolute())}
    with (
        patch.dict(os.environ, here),
        patch.object(run_view, "reporter", lambda quiet: Interrupts()),
        patch("sadp_bench.datasets.base.urlopen", _no_network),
    ):
        answer = command(*line)
    as_json = "--json" in line and line[0] in CALLS and line[0] != "report"
    check_answer(answer, as_json=as_json and "--help" not in line and "--version" not in line)
    if line[0:1] == ["run"] and answer.code == 0:
        for path in Path().rglob("*random*.json"):
            found = Store(path.parent).find(make_spec()) if path.is_file() else None
            assert found is None or not check_record(found)


# ------------------------------------------------------------------------------------------- sweep files

GOOD = {"method": "random", "ratio": 0.5, "seed": [0, 1]}
toml_values = st.one_of(
    st.sampled_from([value for value in NUMBERS if isinstance(value, float) or abs(value) < 2**63]),
    st.sampled_from(PAYLOADS),
    st.booleans(),
)
keys = st.sampled_from([*FIELDS, "set", "epoch", "seeds", "processes", "common", *PAYLOADS[:8]])


def _fields(draw: Any) -> dict[str, Any]:
    table: dict[str, Any] = dict(GOOD) if draw(st.booleans()) else {}
    for key in draw(st.lists(keys, max_size=3)):
        known = st.sampled_from(NAMES[key]) if key in NAMES and key != "set" else toml_values
        if key == "set":
            known = st.dictionaries(
                st.sampled_from(["smoothing", "backbone", "sparsity", "x", ""]), toml_values, max_size=2
            )
        # Counts that would train for hours are planned in no time, but rehearsed: these sizes stay small.
        if key in ("timesteps", "batch_size", "train_examples"):
            known = st.sampled_from([0, 1, 2, 3, 64, -1, 2**62, 10**12, True, "x", 0.5])
        table[key] = draw(st.one_of(known, known, toml_values, st.lists(known, max_size=3)))
    return table


def _search(draw: Any) -> dict[str, Any]:
    """Returns a table `[search]`, which is valid before its changes."""
    table: dict[str, Any] = {"learning_rate": [0.05, 0.2], "trials": 2}
    for key in draw(st.lists(st.sampled_from([*SEARCH_KEYS, "steps", *PAYLOADS[:4]]), max_size=3)):
        few = st.sampled_from([1, 2, 3]) if key in ("trials", "epochs") else toml_values
        table[key] = draw(st.one_of(few, toml_values, st.lists(toml_values, max_size=3)))
    return table


@st.composite
def _sweeps(draw: Any) -> dict[str, Any]:
    common = {"epochs": 1, "train_examples": 64, "timesteps": 2, "threads": 1, "device": "cpu"}
    tables: dict[str, Any] = {"common": common | _fields(draw) if draw(st.booleans()) else common}
    tables["sweep"] = [_fields(draw) for _ in range(draw(st.integers(0, 2)))]
    if draw(st.integers(0, 3)) == 0:
        tables["search"] = _search(draw)
    if draw(st.integers(0, 9)) == 0:
        tables[draw(keys)] = draw(toml_values)
    return tables


sweep_tables = _sweeps()


def toml(tables: dict[str, Any]) -> str:
    """Returns tables as TOML."""
    plain = [f"{_quoted(key)} = {_written(value)}" for key, value in tables.items() if not _is_table(value)]
    for key, value in tables.items():
        for table in value if isinstance(value, list) and _is_table(value) else [value] if _is_table(value) else []:
            plain.append(f"[{_quoted(key)}]" if isinstance(value, dict) else f"[[{_quoted(key)}]]")
            plain += [f"{_quoted(name)} = {_written(item)}" for name, item in table.items()]
    return "\n".join(plain) + "\n"


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, dict)
        or isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) for item in value)
    )


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)} = {_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    escaped = (f"\\u{ord(sign):04x}" if ord(sign) < 32 or sign in '"\\\x7f' else sign for sign in text)
    return f'"{"".join(escaped)}"'
