"""CPU seconds and peak memory of commands that train nothing, and the time until a run's first line.

    python tests/benchmarks/scale.py [--records 10000] [--runs 1000] [--repeats 3] [--only report]

Each command is a process of its own. The records are synthetic: 25 arms of each group, 20 seeds, 20 epochs.
A script, not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sadp_bench.records.record import Record
from sadp_bench.records.store import Store
from tests.example_records import make_record, make_spec

COMMAND = [sys.executable, "-m", "sadp_bench"]
METHODS = ("sadp", "random", "infobatch", "el2n", "grand", "forgetting")
RATIOS, SEEDS, EPOCHS = (0.2, 0.3, 0.5, 0.7), range(20), 20
RUN = "run --method sadp --ratio 0.3 --epochs 2 --train-examples 256 --threads 1 --set backbone.width=4 --quiet".split()


def synthetic_records() -> Iterator[Record]:
    """Yields records of which each has its reference, group by group."""
    arms = [("full", 0.0), *itertools.product(METHODS, RATIOS)]
    for group in itertools.count(1):
        settings = {"epochs": EPOCHS, "train_examples": 1000 * group}
        for (number, (method, ratio)), seed in itertools.product(enumerate(arms), SEEDS):
            spec = make_spec(method, ratio, seed, **settings)
            noise = (7 * seed + 3 * number + group) % 11 / 1000
            yield make_record(spec, 0.7 - ratio / 20 + noise, 100.0 * (1 - ratio) + 1000 * noise)


def write_records(folder: Path, number: int) -> None:
    """Writes as many records."""
    folder.mkdir()
    store = Store(folder)
    for record in itertools.islice(synthetic_records(), number):
        store.path(record.spec).write_text(json.dumps(record.to_json(), indent=1))


def write_sweep(path: Path, number: int) -> None:
    """Writes a sweep of about as many runs, the references included: 25 arms of each seed."""
    seeds = list(range(max(1, round(number / 25))))
    common = f'epochs = 20\ntrain_examples = 1000\nthreads = 1\nseed = {seeds}\n[common.set]\n"backbone.width" = 8\n'
    arms = f"[[sweep]]\nmethod = {json.dumps(METHODS)}\nratio = {list(RATIOS)}\n"
    path.write_text(f"[common]\n{common}\n{arms}")


def measured(words: list[str]) -> tuple[float, float]:
    """Returns CPU seconds and peak memory in MiB of a command, which must succeed."""
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with code {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def seconds_to_first_line(out: Path) -> float:
    """Returns the seconds from the start of a run until its first epoch's line."""
    words = [word for word in RUN if word != "--quiet"]
    begun = time.perf_counter()
    with subprocess.Popen([*COMMAND, *words, "--out", out], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if b"epoch 1/" in line:
                return time.perf_counter() - begun
    raise SystemExit("the run printed no line of its first epoch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name contains this text")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        place = Path(folder)
        records, runs, file = place / "records", place / "runs", place / "sweep.toml"
        write_sweep(file, arguments.runs)
        commands = {
            "--help": ["--help"],
            "list": ["list", "methods"],
            "run --help": ["run", "--help"],
            "run, done already": [*RUN, "--out", str(runs)],
            f"sweep --dry-run, {arguments.runs:,} runs": [
                "sweep",
                str(file),
                "--dry-run",
                "--out",
                str(place / "none"),
            ],
        }
        for format in ("text", "json", "csv", "html"):
            words = ["report", str(records), "--format", format, "--to", str(place / f"report.{format}")]
            commands[f"report of {arguments.records:,} records, {format}"] = words
        wanted = {name: words for name, words in commands.items() if arguments.only in name}
        if any("report" in name for name in wanted):
            write_records(records, arguments.records)
        first = "run, first line"
        if arguments.only in first:
            seconds = [seconds_to_first_line(place / f"first-{number}") for number in range(arguments.repeats)]
            print(f"{first:<40}{statistics.median(seconds):8.2f} s by the wall")
        if "run, done already" in wanted:
            measured(wanted["run, done already"])
        for name, words in wanted.items():
            found = [measured(words) for _ in range(arguments.repeats)]
            seconds, memory = [cpu for cpu, _ in found], max(peak for _, peak in found)
            spread = f"({min(seconds):.2f} to {max(seconds):.2f}, n = {len(seconds)})"
            print(f"{name:<40}{statistics.median(seconds):8.2f} s of CPU  {spread:<28}{memory:6.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
