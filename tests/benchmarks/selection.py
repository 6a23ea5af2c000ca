"""CPU seconds of one epoch's selection by SADP's probabilities and draw, on one core.

    python tests/benchmarks/selection.py [--examples 50000 1281167 ...] [--ratio 0.5] [--repeats 5]

Log-normal scores; smoothing, water-filling, the draw balanced over epochs and the weights, as `SADP.select` makes
them with draw=balanced; the default draw is less work. 10^8 examples need about 4 GB. A script, not a test: it asserts
nothing.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch

from sadp_bench.pruners.sampling import balanced, inclusion_probability, smooth, systematic_sample, weights


def select(score_N: torch.Tensor, surplus_N: torch.Tensor, num_kept: int, generator: torch.Generator) -> int:
    p_N = inclusion_probability(smooth(score_N, 0.2), num_kept)
    index_K = systematic_sample(balanced(p_N, surplus_N, num_kept), generator)
    surplus_N -= p_N
    surplus_N[index_K] += 1
    weights(p_N, num_kept)[index_K].float()
    return len(index_K)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, nargs="+", default=[50_000, 1_281_167])
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    for num_examples in arguments.examples:
        score_N = torch.randn(num_examples, generator=generator).exp()
        surplus_N, seconds = torch.zeros(num_examples), []
        for _ in range(arguments.repeats):
            begun = time.process_time()
            kept = select(score_N, surplus_N, round((1 - arguments.ratio) * num_examples), generator)
            seconds.append(time.process_time() - begun)
        low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"N = {num_examples:>11,}  K = {kept:>11,}  {middle:.3f} s  ({low:.3f} to {high:.3f}, n = {len(seconds)})  "
            f"{peak:.1f} GiB at most so far"
        )


if __name__ == "__main__":
    main()
