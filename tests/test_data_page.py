"""The table of runs on page Data follows from the committed records.

`python -m tests.test_data_page` prints the table.
"""

from __future__ import annotations

from pathlib import Path

from sadp_bench.core.text import number
from sadp_bench.records.record import Record
from sadp_bench.records.statistics import Quantity, estimate
from sadp_bench.records.store import read_all

ROOT = Path(__file__).parents[1]
ARMS = {"full": 0.0, "random": 0.5, "sadp": 0.5, "infobatch": 0.5}
# The page's name of each data set, and its number of classes, by the data set's name.
SETS = {
    "braille": ("`braille`", 27),
    "dvs-gesture": ("objects as `dvs-gesture`", 5),
    "shd": ("digits as `shd`", 10),
    "imagefolder": ("10 classes of Tiny-ImageNet as `imagefolder`", 10),
}


def committed() -> list[Record]:
    """Returns the records of the four data sets."""
    return [record for _, record in read_all([ROOT / "results" / "datasets"]).records]


def lines() -> list[str]:
    """Returns a line for each data set: each arm's mean, least and largest accuracy, chance, test examples, seeds."""
    records = committed()
    found = []
    for dataset, (name, classes) in SETS.items():
        cells, seeds, tests = [], set(), set()
        for method, ratio in ARMS.items():
            runs = [
                run
                for run in records
                if (run.spec.dataset, run.spec.method, run.spec.ratio) == (dataset, method, ratio)
            ]
            accuracies = [100 * run.test_accuracy for run in runs]
            mean = estimate(accuracies, Quantity.AMOUNT)
            assert mean is not None
            cells.append(f"{number(mean.mean)} ({min(accuracies):.2f} to {max(accuracies):.2f})")
            seeds |= {run.spec.seed for run in runs}
            tests |= {run.test_examples for run in runs}
        [of_test] = tests
        found.append(f"| {name} | {' | '.join(cells)} | {number(100 / classes)} | {of_test} | {len(seeds)} |")
    return found


def test_the_table_of_runs_is_what_the_records_give_and_every_arm_is_above_chance() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for line in lines():
        assert line in page, f"missing: {line}"
    for run in committed():
        assert run.test_accuracy > 1 / SETS[run.spec.dataset][1], run.spec


if __name__ == "__main__":
    print(*lines(), sep="\n")
