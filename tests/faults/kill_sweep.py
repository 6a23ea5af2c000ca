"""Kills a sweep, runs it again, and compares its records and report with those of an undisturbed one.

    python tests/faults/kill_sweep.py              # SIGKILL of the sweep and all of its processes, three times
    python tests/faults/kill_sweep.py --executor ray    # SIGKILL of one of a local Ray's workers, in the middle of a run
    python tests/faults/kill_sweep.py tests/faults/axes.toml    # runs of all three axes

The undisturbed sweep and the killed one must end with the same runs and, but for times, the same report; and a run that had
its record before a kill must still have that very record. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kill import numbers

ROOT = Path(__file__).resolve().parent.parent.parent
OF_TIME = (  # parts of the names of a report's entries that times, memory or an interruption change
    "seconds", "disturbed", "speedup", "efficiency", "environment", "n_timed", "mismatches", "interruptions",
    "to_accuracy", "n_reached", "n_cpu", "memory",
)  # fmt: skip


def sweep(out: Path, arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    words = ["sweep", str(arguments.file), "--jobs", "2", "--out", str(out), "--executor", arguments.executor]
    with (out.parent / f"{out.name}.log").open("ab") as log:
        command = [sys.executable, "-m", "sadp_bench", *words]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finished(process: subprocess.Popen[bytes], out: Path) -> None:
    assert process.wait() == 0, (out.parent / f"{out.name}.log").read_text()


def records(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in out.glob("*.json")}


def report(out: Path) -> list[dict[str, Any]]:
    """The report's rows without their times."""
    words = [sys.executable, "-m", "sadp_bench", "report", str(out), "--format", "json"]
    rows = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)["rows"]
    return [{name: v for name, v in row.items() if not any(part in name for part in OF_TIME)} for row in rows]


def processes(needle: str) -> list[int]:
    """Returns the processes whose command line contains the text, except this one."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and needle.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass
    return [number for number in found if number != os.getpid()]


def kill_all(out: Path, process: subprocess.Popen[bytes]) -> str:
    """Kills the sweep and all runs that write to its folder by SIGKILL."""
    there = processes(str(out))
    for number in there:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()
    return f"{len(there)} processes"


def kill_worker() -> str:
    """Kills one Ray worker that is at a run by SIGKILL."""
    [number, *_] = processes("ray::work")
    os.kill(number, signal.SIGKILL)
    return f"worker {number} of Ray"


def disturb(parts: Path, runs: int, kills: int, arguments: argparse.Namespace) -> dict[str, str]:
    """Sweeps with kills until all runs are done; returns the records that were there at the kills."""
    chance = random.Random(arguments.seed)
    before: dict[str, str] = {}
    process = sweep(parts, arguments)
    for kill in range(kills):
        done = (kill + chance.uniform(0.3, 0.9)) * runs / (kills + 1)
        while process.poll() is None and len(records(parts)) < done:
            time.sleep(0.01)
        time.sleep(chance.uniform(3, 6))  # a run starts for about four seconds
        victims = kill_worker() if arguments.executor == "ray" else kill_all(parts, process)
        before |= records(parts)
        print(f"kill {kill + 1}: {victims}, with {len(before)} of {runs} runs done", flush=True)
        if arguments.executor != "ray":
            process = sweep(parts, arguments)
    finished(process, parts)
    return before


def differing(whole: Path, parts: Path) -> list[str]:
    """Returns the names of the entries in which the two reports differ, times apart."""
    rows = list(zip(report(whole), report(parts), strict=True))
    return sorted({name for a, b in rows for name in a.keys() | b.keys() if a.get(name) != b.get(name)})


def same_runs(whole: Path, parts: Path) -> int:
    """Returns the number of runs whose records agree, times apart."""
    undisturbed, killed = ({n: numbers(json.loads(c)) for n, c in records(out).items()} for out in (whole, parts))
    for content in (*undisturbed.values(), *killed.values()):
        content.pop("scores_from")  # chance decides which run of a group makes the scores, and which the search
        content["ticket"].pop("from", None)
    return sum(killed.get(name) == content for name, content in undisturbed.items())


def main() -> None:
    """Kills a sweep as the command line requests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "experiments" / "smoke.toml")
    parser.add_argument("--executor", default="local")
    parser.add_argument("--kills", type=int, default=0, help="default: 3, on ray 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, help="append a line of JSON to this file, for the table of kill.py")
    arguments = parser.parse_args()
    kills = arguments.kills or (1 if arguments.executor == "ray" else 3)
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder) / "whole", Path(folder) / "parts"
        finished(sweep(whole, arguments), whole)
        runs = len(records(whole))
        print(f"undisturbed: {runs} runs done", flush=True)
        before = disturb(parts, runs, kills, arguments)
        after = records(parts)
        kept = all(after[name] == content for name, content in before.items())
        equal = same_runs(whole, parts)
        names = differing(whole, parts)
        same = equal == runs == len(after) and not names
        left = sorted({path.name for path in parts.rglob("*")} - {path.name for path in whole.rglob("*")})
    interrupted = sum(json.loads(content)["interruptions"] for content in after.values())
    print(f"then: {len(after)} runs done after {interrupted} interruptions; earlier records kept: {kept}")
    print(f"the report {'equals' if same else 'DIFFERS FROM'} the undisturbed one's, times apart; left over: {left}")
    if not same:
        print(f"{equal} of {runs} records are equal; the reports differ in {', '.join(names) or 'nothing'}")
    if arguments.to:
        row = {"method": f"sweeps ({arguments.executor})", "backprop": "all", "sparsity": "all", "processes": 2}
        row |= {"kills": kills, "places": {"in a sweep": kills}, "same": equal, "different": runs - equal}
        with arguments.to.open("a") as file:
            file.write(json.dumps(row) + "\n")
    sys.exit(not (kept and same and not left))


if __name__ == "__main__":
    main()
