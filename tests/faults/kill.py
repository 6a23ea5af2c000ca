"""Kills runs with SIGKILL at random moments, starts them again until they are done, and compares the records.

    python tests/faults/kill.py                                    # CIFAR-10, every method, five kills each
    python tests/faults/kill.py --dataset digits --methods sadp --kills 2

Every method is first trained undisturbed. Then the same command is started and killed again and again, and at last left to
finish: half of the kills come at a random moment of the work, the others the moment that a file is half-written. Each is a
process of its own, forked from this one, which has imported PyTorch: that takes seconds and is not worth killing. The two
records must agree in every number but times, memory and the count of interruptions, which must be that of the kills; and
nothing else may be left. Where the run is done before all kills are spent, they go on with another. Exit code 1 if any
record is another one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import sadp_bench.runs.run  # noqa: F401  what a run imports
from sadp_bench.cli import app, run_view  # noqa: F401  what a run imports

FORK = multiprocessing.get_context("fork")
DIFFER = ("seconds", "finished", "peak_memory_bytes", "train_memory_bytes", "interruptions", "environment")


def words(method: str, out: Path, arguments: argparse.Namespace) -> list[str]:
    ratio = "0" if method == "full" else "0.5"
    return [
        *("run", "--method", method, "--ratio", ratio, "--no-reference"),
        *("--dataset", arguments.dataset, "--train-examples", str(arguments.train_examples), "--epochs", "4"),
        *("--evaluate-every", "1", "--threads", str(arguments.threads), "--set", "backbone.width=16"),
        *("--checkpoint-seconds", "0", "--out", str(out)),
    ]


def record_in(out: Path) -> dict[str, Any]:
    [path] = [path for path in out.glob("*.json")]
    return json.loads(path.read_text())


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    """All that must be the same."""
    same = {name: value for name, value in record.items() if name not in DIFFER}
    same["epochs"] = [{name: value for name, value in row.items() if name != "seconds"} for row in record["epochs"]]
    return same


def begun(command: list[str]) -> Any:
    process = FORK.Process(target=run, args=(command,))
    process.start()
    return process


def run(command: list[str]) -> None:
    with (Path(command[-1]) / "log").open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    app.main(command)


def started(command: list[str], starts: int) -> Any:
    """The process once it is at work, for which it takes the run's lock."""
    process = begun(command)
    while process.is_alive():
        locks = [path.read_bytes() for path in Path(command[-1]).glob("*.lock")]
        if locks and locks[0].count(b"\n") == starts:  # a line for each start
            break
        time.sleep(0.001)
    return process


def work_seconds(command: list[str]) -> float:
    """Runs the command undisturbed; the seconds from its lock to its end."""
    process = started(command, 1)
    since = time.monotonic()
    process.join()
    assert process.exitcode == 0, (Path(command[-1]) / "log").read_text()
    return time.monotonic() - since


def kill_once(command: list[str], starts: int, seconds: float, mid_write: bool, chance: random.Random) -> str | None:
    """Where the run was when it was killed; None where it was done before."""
    out = Path(command[-1])
    log = out / "log"
    said = len(log.read_text()) if log.exists() else 0
    process = started(command, starts)
    moment = time.monotonic() + chance.uniform(0, seconds)
    writes = chance.randint(1, 3)  # which of the writes to come is cut off
    seen: set[str] = set()
    while process.is_alive():
        if mid_write:
            seen |= {path.name for path in out.rglob("*.part")}
            if len(seen) >= writes:
                break
        elif time.monotonic() >= moment:
            break
        time.sleep(0.0002)
    process.kill()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        return None
    return whereabouts(log.read_text()[said:], bool(list(out.rglob("*.part"))))


def whereabouts(log: str, writing: bool) -> str:
    """The last that a run said of itself before it was killed."""
    place = "before its first epoch"
    for line in log.splitlines():
        if "expected to take" in line or "goes on from" in line:
            place = "before its first epoch"
        if found := re.match(r"\S+ ?\S*: scoring  epoch (\d+)", line):
            place = f"in prepare after scoring epoch {found[1]}"
        elif found := re.match(r"\S+ \S+  epoch (\d+)/", line):
            place = f"after epoch {found[1]}"
    return place + (", while a file was half-written" if writing else "")


def torture(method: str, arguments: argparse.Namespace, folder: Path, chance: random.Random) -> tuple[int, list[bool]]:
    """(kills, whether the record of each killed run is that of the undisturbed one) of one method."""
    whole = folder / f"{method}-whole"
    whole.mkdir()
    seconds = work_seconds(words(method, whole, arguments))
    kills, same = 0, []
    while kills < arguments.kills:
        out = folder / f"{method}-{len(same)}"
        out.mkdir()
        interruptions = 0
        while kills < arguments.kills and not list(out.glob("*.json")):
            place = kill_once(words(method, out, arguments), interruptions + 1, seconds, kills % 2 == 1, chance)
            if place is not None:
                kills += 1
                interruptions += not list(out.glob("*.json"))
                print(f"{method:13} kill {kills}: {place}", flush=True)
        begun(words(method, out, arguments)).join()
        same.append(agree(method, whole, out, interruptions))
    return kills, same


def agree(method: str, whole: Path, parts: Path, interruptions: int) -> bool:
    one, other = record_in(whole), record_in(parts)
    left = sorted({path.name for path in parts.rglob("*")} - {path.name for path in whole.rglob("*")})
    good = numbers(one) == numbers(other) and other["interruptions"] == interruptions and not left
    print(
        f"{method:13} {'the same record' if good else 'ANOTHER RECORD'}: accuracy {100 * one['test_accuracy']:.2f} and "
        f"{100 * other['test_accuracy']:.2f} %, last loss {one['epochs'][-1]['train_loss']!r} and "
        f"{other['epochs'][-1]['train_loss']!r}, interruptions {other['interruptions']} of {interruptions}"
        f"{f', LEFT OVER {left}' if left else ''}",
        flush=True,
    )
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--methods", default="full,fewer-epochs,random,el2n,grand,forgetting,infobatch,sadp")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--train-examples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # the first imports PyTorch's compiler
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in arguments.methods.split(","):
            results[method] = torture(method, arguments, Path(folder), random.Random(f"{arguments.seed} {method}"))
    kills, good = sum(kills for kills, _ in results.values()), Counter(s for _, all in results.values() for s in all)
    print(f"{kills} kills over {len(results)} methods: {good[True]} records the same, {good[False]} not")
    sys.exit(good[False] > 0)


if __name__ == "__main__":
    main()
