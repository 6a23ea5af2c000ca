"""Kills runs with SIGKILL at random moments, starts them again until they are done, and compares the records.

    python tests/faults/kill.py                                    # CIFAR-10, every method, five kills each
    python tests/faults/kill.py --dataset digits --methods sadp --kills 2
    python tests/faults/kill.py --dataset digits --train-examples 500 --width 8 --backprops bptt,sltt-k \
        --sparsities dense,imp,eb,pq --processes 1,2 --kills 8 --to kills.jsonl
    python tests/faults/kill.py --table kills.jsonl                # the table of all invocations

Each combination is first trained undisturbed. Then the same command is started and killed again and again, and at last left
to finish: half of the kills come at a random moment of the work, the others while a file is half-written. A run of two
processes loses the first, the second or both; the process that is left must end within a minute. The processes are forked
from this process, which has imported PyTorch: the import takes seconds and is not worth killing. The two records must agree
in every number but times, memory and the count of interruptions, which must be that of the kills. No other file may be
left. Where the run is done before all kills are spent, they go on with another run. Exit code 1 if any record differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sadp_bench.runs.run  # noqa: F401  imported by a run
from sadp_bench.cli import app, run_view  # noqa: F401  imported by a run

FORK = multiprocessing.get_context("fork")
DIFFER = (
    "seconds",
    "cpu_seconds",
    "data_seconds",
    "finished",
    "peak_memory_bytes",
    "train_memory_bytes",
    "interruptions",
    "environment",
)
MAX_SECONDS_LEFT = 60.0  # seconds that a process may live after the other process was killed
PLACES = ("before its first epoch", "in the scoring", "between epochs", "while a file was half-written", "in a sweep")


@dataclass(frozen=True)
class Case:
    """One combination of method and axes.

    Args:
        method: Name of the pruning method.
        backprop: Name of the time axis.
        sparsity: Name of the weight axis.
        processes: Number of processes of the run.
    """

    method: str
    backprop: str
    sparsity: str
    processes: int

    def __str__(self) -> str:
        axes = [name for name in (self.backprop, self.sparsity) if name not in ("bptt", "dense")]
        return " ".join([self.method, *axes, *(["2 processes"] if self.processes == 2 else [])])

    def command(self, out: Path, arguments: argparse.Namespace) -> list[str]:
        """Returns the words of the command whose records go to `out`."""
        k = ["--k", "2"] if self.backprop == "sltt-k" else []
        density = [] if self.sparsity == "dense" else ["--density", "0.4"]
        return [
            *("run", "--method", self.method, "--ratio", "0" if self.method == "full" else "0.5", "--no-reference"),
            *("--dataset", arguments.dataset, "--train-examples", str(arguments.train_examples), "--epochs", "4"),
            *("--backprop", self.backprop, *k, "--sparsity", self.sparsity, *density),
            *(
                "--evaluate-every",
                "1",
                "--threads",
                str(arguments.threads),
                "--set",
                f"backbone.width={arguments.width}",
            ),
            *("--checkpoint-seconds", "0", "--out", str(out)),
        ]


def record_in(out: Path) -> dict[str, Any]:
    """Returns the content of the only record of a folder."""
    [path] = out.glob("*.json")
    return json.loads(path.read_text())


def numbers(value: Any) -> Any:
    """Returns a record without the entries that an interruption may change, at every depth."""
    if isinstance(value, dict):
        return {name: numbers(entry) for name, entry in value.items() if name not in DIFFER}
    return [numbers(entry) for entry in value] if isinstance(value, list) else value


def launched(command: list[str], processes: int) -> list[Any]:
    """Returns the started processes of a command."""
    group: list[dict[str, str]] = [{}]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        group = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    started = [FORK.Process(target=run, args=(command, variables)) for variables in group]
    for process in started:
        process.start()
    return started


def run(command: list[str], variables: dict[str, str]) -> None:
    """Runs a command in this process, whose output goes to a log beside the records."""
    os.environ.update(variables)
    with (Path(command[-1]) / f"log{variables.get('RANK', '')}").open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    app.main(command)


def text_of(out: Path) -> str:
    """Returns the output of all processes that worked in a folder."""
    return "".join(path.read_text() for path in sorted(out.glob("log*")))


def at_work(command: list[str], case: Case, starts: int) -> list[Any]:
    """Returns the processes once they are at work: the run's lock then has a line for each start."""
    group = launched(command, case.processes)
    while all(process.is_alive() for process in group):
        locks = [path.read_bytes() for path in Path(command[-1]).glob("*.lock")]
        if locks and locks[0].count(b"\n") == starts:
            break
        time.sleep(0.001)
    return group


def undisturbed(command: list[str], case: Case) -> float:
    """Runs the command and returns the seconds from its lock to its end."""
    group = at_work(command, case, 1)
    since = time.monotonic()
    for process in group:
        process.join()
    assert all(process.exitcode == 0 for process in group), text_of(Path(command[-1]))
    return time.monotonic() - since


def kill_once(
    command: list[str], case: Case, starts: int, seconds: float, mid_write: bool, chance: random.Random
) -> str | None:
    """Returns the place where the run was when it was killed; None where it was done before."""
    out = Path(command[-1])
    before = len(text_of(out))
    group = at_work(command, case, starts)
    moment = time.monotonic() + chance.uniform(0, seconds)
    writes = chance.randint(1, 3)  # which of the coming writes is cut off
    seen: set[str] = set()
    while all(process.is_alive() for process in group):
        if mid_write:
            seen |= {path.name for path in out.rglob("*.part")}
            if len(seen) >= writes:
                break
        elif time.monotonic() >= moment:
            break
        time.sleep(0.0002)
    victims = chance.choice([group, *[[process] for process in group]]) if len(group) > 1 else group
    for process in victims:
        process.kill()
    half_written = bool(list(out.rglob("*.part")))
    for process in group:
        process.join(MAX_SECONDS_LEFT)
        if process.is_alive():
            process.kill()
            raise AssertionError(
                f"{case}: a process lived {MAX_SECONDS_LEFT:.0f} s after the other was killed\n{text_of(out)}"
            )
    if all(process.exitcode != -signal.SIGKILL for process in victims):
        return None
    return PLACES[3] if half_written else whereabouts(text_of(out)[before:])


def whereabouts(log: str) -> str:
    """Returns the place of a run by the last line of its log that names one."""
    place = PLACES[0]
    for line in log.splitlines():
        if "expected to take" in line or "goes on from" in line:
            place = PLACES[0]
        elif re.match(r"\S+ ?\S*: (scoring|round|searching|probing)", line):
            place = PLACES[1]
        elif re.match(r"\S+ \S+  epoch (\d+)/", line):
            place = PLACES[2]
    return place


def torture(case: Case, arguments: argparse.Namespace, folder: Path, chance: random.Random) -> dict[str, Any]:
    """Returns the outcomes of the kills of one combination."""
    whole = folder / f"{case}-whole"
    whole.mkdir()
    seconds = undisturbed(case.command(whole, arguments), case)
    places: Counter[str] = Counter()
    same: list[bool] = []
    while places.total() < arguments.kills:
        out = folder / f"{case}-{len(same)}"
        out.mkdir()
        interruptions = starts = 0
        while places.total() < arguments.kills and not list(out.glob("*.json")):
            starts += 1
            mid_write = places.total() % 2 == 1
            place = kill_once(case.command(out, arguments), case, starts, seconds, mid_write, chance)
            if place is not None:
                places[place] += 1
                interruptions += not list(out.glob("*.json"))
                if arguments.kills <= 5:
                    print(f"{case}: kill {places.total()} {place}", flush=True)
        for process in launched(case.command(out, arguments), case.processes):
            process.join()
        same.append(agree(case, whole, out, interruptions))
    row = {"method": case.method, "backprop": case.backprop, "sparsity": case.sparsity, "processes": case.processes}
    return row | {
        "kills": places.total(),
        "places": dict(places),
        "same": sum(same),
        "different": len(same) - sum(same),
    }


def agree(case: Case, whole: Path, parts: Path, interruptions: int) -> bool:
    """Compares the record of a killed run with the undisturbed run's and prints the outcome."""
    if not list(parts.glob("*.json")):
        print(f"{case}: NO RECORD\n{text_of(parts)}", flush=True)
        return False
    full, resumed = record_in(whole), record_in(parts)
    left = sorted({path.name for path in parts.rglob("*")} - {path.name for path in whole.rglob("*")})
    before, after = numbers(full), numbers(resumed)
    differ = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    good = not differ and resumed["interruptions"] == interruptions and not left
    print(
        f"{case}: {'the same record' if good else 'ANOTHER RECORD'}: accuracy {100 * full['test_accuracy']:.2f} and "
        f"{100 * resumed['test_accuracy']:.2f} %, last loss {full['epochs'][-1]['train_loss']!r} and "
        f"{resumed['epochs'][-1]['train_loss']!r}, interruptions {resumed['interruptions']} of {interruptions}"
        f"{f', DIFFERENT {differ}' if differ else ''}{f', LEFT OVER {left}' if left else ''}",
        flush=True,
    )
    return good


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Returns the kills as a Markdown table: a row for each method, a column for each place."""
    rows = list(rows)
    lines = [
        f"| method | combinations | kills | {' | '.join(PLACES)} | records the same | not |",
        "|---|" + "---:|" * (len(PLACES) + 4),
    ]
    for method in [*dict.fromkeys(row["method"] for row in rows), "all"]:
        chosen = [row for row in rows if method in (row["method"], "all")]
        combinations = {(row["method"], row["backprop"], row["sparsity"], row["processes"]) for row in chosen}
        places = [sum(row["places"].get(place, 0) for row in chosen) for place in PLACES]
        figures = [len(combinations), sum(row["kills"] for row in chosen), *places]
        ends = [sum(row[name] for row in chosen) for name in ("same", "different")]
        lines.append(f"| {method} | " + " | ".join(map(str, [*figures, *ends])) + " |")
    return "\n".join(lines)


def main() -> None:
    """Kills runs as the command line requests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--methods", default="full,fewer-epochs,random,el2n,grand,forgetting,infobatch,sadp")
    parser.add_argument("--backprops", default="bptt", help="bptt, sltt, sltt-k; separated by commas")
    parser.add_argument("--sparsities", default="dense", help="dense, imp, eb, pq; separated by commas")
    parser.add_argument("--processes", default="1", help="1 or 2, or 1,2")
    parser.add_argument("--kills", type=int, default=5, help="kills of each combination")
    parser.add_argument("--train-examples", type=int, default=1000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, help="append a line of JSON for each combination to this file")
    parser.add_argument("--table", type=Path, help="print the table of such a file and kill nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(map(json.loads, arguments.table.read_text().splitlines())))
        return
    names = (arguments.methods, arguments.backprops, arguments.sparsities)
    chosen = itertools.product(map(int, arguments.processes.split(",")), *(text.split(",") for text in names))
    rows = []
    for processes, method, backprop, sparsity in chosen:
        case = Case(method, backprop, sparsity, processes)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(torture(case, arguments, Path(folder), random.Random(f"{arguments.seed} {case}")))
        if arguments.to:
            with arguments.to.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    kills, same, different = (sum(row[name] for row in rows) for name in ("kills", "same", "different"))
    print(f"{kills} kills over {len(rows)} combinations: {same} records the same, {different} not")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
