"""Fuzzes the command for some minutes, reports every different fault with an input, and ends with code 1 if there is one.

python tests/fuzz/run.py --minutes 30 --seed 7
python tests/fuzz/run.py --minutes 5 --only records checkpoints
python tests/fuzz/run.py --only records --input "(0, [Edit(...)], True, None, 'html')"
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz import edits
from tests.fuzz.oracles import SECONDS
from tests.fuzz.targets import TARGETS, Target
from tests.odd_files import within

MEMORY_BYTES = 12 << 30  # bytes of address space: an input that takes more is a fault, and no danger to the machine
QUIET = settings(
    database=None, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)


def checked(target: Target, given: Any) -> None:
    """Checks one input in a new folder, and the time it takes."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="sadp-bench-fuzz-") as folder:
        os.chdir(folder)
        try:
            with within(SECONDS):
                target.check(given)
        finally:
            os.chdir(before)


def signature(error: BaseException) -> str:
    """Returns a signature that faults of one cause share: the kind of error and the deepest line of the package."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "sadp_bench/" in f.filename]
    where = f"{frames[-1].filename.rpartition('sadp_bench/')[2]}:{frames[-1].lineno}" if frames else ""
    what = str(error).split(":")[0][:60] if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} {where} {what}".strip()


def fuzz(name: str, number: int, end: float, faults: dict[str, str]) -> Counter[str]:
    """Checks a round of inputs until the end, and adds new faults with their first input."""
    counts: Counter[str] = Counter()

    @seed(number)
    @settings(QUIET, max_examples=TARGETS[name].round)
    @given(TARGETS[name].inputs)
    def one_round(given: Any) -> None:
        if time.monotonic() >= end:
            return
        counts["inputs"] += 1
        try:
            checked(TARGETS[name], given)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            counts["faults"] += 1
            known = f"{name}: {signature(error)}"
            if known not in faults:
                faults[known] = f"{''.join(traceback.format_exception(error))[-3000:]}\ninput: {given!r}"
                print(f"FAULT {known}", file=sys.stderr, flush=True)

    one_round()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--input", help="check this one input, as a fault shows it")
    given = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    if given.input:
        names = {"Edit": edits.Edit, "nan": float("nan"), "inf": float("inf")}
        checked(TARGETS[given.only[0]], eval(given.input, names))
        return 0
    end, faults, counts = time.monotonic() + 60 * given.minutes, dict[str, str](), Counter[str]()
    for number in itertools.count():
        for name in given.only:
            for kind, count in fuzz(name, given.seed * 1_000_003 + number, end, faults).items():
                counts[f"{kind} of {name}"] += count
        if time.monotonic() >= end:
            break
    for known, text in faults.items():
        print(f"\n=== {known}\n{text}")
    print(f"\nseed {given.seed}, {given.minutes:g} minutes: {len(faults)} different faults")
    print("\n".join(f"{count:8,} {kind}" for kind, count in counts.items()))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
