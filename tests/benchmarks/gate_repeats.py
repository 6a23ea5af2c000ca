"""Measures how often `sadp-bench check` fails a package in which nothing changed.

    python tests/benchmarks/gate_repeats.py results/ci --times 20 --out runs/repeats
    python tests/benchmarks/gate_repeats.py results/ci --times 20 --out runs/repeats --redraw 1000

The check repeats its runs to the last bit on one machine and always passes. The bands are for another machine, and allow
the differences of new seeds. So each repeat trains the reference's runs with new seeds and labels them as the reference's.
It compares all but what is exact on the same machine only. This is harder than any other machine, which shares the seeds.

All times are held against one reference. `--redraw N` then draws the seeds of both sides anew, N times, from all that were
made, and so measures the rate over references as well. `--out` keeps the runs; the same command goes on from there. The data
lie in $SADP_BENCH_DATA. A script, not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sadp_bench.cli import run_view
from sadp_bench.gate.compare import Result, compare_runs, read_reference
from sadp_bench.gate.findings import FAILED
from sadp_bench.gate.rerun import rerun
from sadp_bench.records.record import Record
from sadp_bench.records.store import Store
from sadp_bench.runs import environment


def with_seed(record: Record, seed: int) -> Record:
    return dataclasses.replace(record, spec=dataclasses.replace(record.spec, seed=seed))


def trained(reference: Sequence[Record], seeds: Mapping[int, int], store: Store) -> list[Record]:
    """Trains the reference's runs with other seeds. Returns their records, relabelled with the reference's seeds."""
    wanted = [with_seed(record, seeds[record.spec.seed]) for record in reference]
    failed = rerun(wanted, store, None, run_view.reporter(quiet=True))
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {next(iter(failed.values()))}")
    made = [store.find(record.spec) for record in wanted]
    return [with_seed(new, old.spec.seed) for new, old in zip(made, reference, strict=True) if new is not None]


def redrawn(pool: Sequence[Sequence[Record]], seeds: Sequence[int], times: int) -> Iterable[Result]:
    """Draws both sides from `pool`, which has all runs of each seed, without a seed in common."""
    draw = random.Random(0)
    for _ in range(times):
        chosen = draw.sample(range(len(pool)), 2 * len(seeds))
        one, other = chosen[: len(seeds)], chosen[len(seeds) :]
        sides = [
            [with_seed(record, seed) for seed, place in zip(seeds, side, strict=True) for record in pool[place]]
            for side in (one, other)
        ]
        yield compare_runs(sides[0], {record.spec.key: record for record in sides[1]}, exact=False)


def print_rates(what: str, results: Iterable[Result]) -> None:
    results = list(results)
    print(f"{what}: {sum(result.passed for result in results)} of {len(results)} passed")
    failures = Counter(f"{finding.run}: {finding.name}" for result in results for finding in result.of(FAILED))
    for name, count in failures.most_common():
        print(f"  {count:4}  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--redraw", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.redraw and arguments.times < 2:
        parser.error("--redraw takes the seeds of two --times at least: one for either side")
    environment.keep_freed_memory()
    reference = read_reference(arguments.reference)
    own = sorted({record.spec.seed for record in reference})
    results, pool = [], []
    for time in range(1, arguments.times + 1):
        made = trained(reference, {seed: seed + time * (own[-1] + 1) for seed in own}, Store(arguments.out))
        results.append(compare_runs(reference, {record.spec.key: record for record in made}, exact=False))
        pool += [[record for record in made if record.spec.seed == seed] for seed in own]
        print(f"{time}: {'passed' if results[-1].passed else 'FAILED'}", flush=True)
    print_rates("other seeds against the reference", results)
    if arguments.redraw:
        print_rates("both sides drawn from the other seeds", redrawn(pool, own, arguments.redraw))


if __name__ == "__main__":
    main()
