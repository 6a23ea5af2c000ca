"""The differences that docs/axes.md and README.md state are those of the records in results/axes and results/tickets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from statistics import fmean, median

import pytest

from sadp_bench.records.record import Record
from sadp_bench.records.statistics import t_interval
from sadp_bench.records.store import read_all
from tests.paths import ROOT

Arm = dict[int, Record]  # by seed
Value = Callable[[Record, Record], float]
STATED = re.compile(r"[+-]?\d+(?:\.\d+)? ± \d+(?:\.\d+)?")


@cache
def arms(folder: str) -> dict[str, Arm]:
    """Returns the runs by a short name: 'full sltt dense', 'sadp bptt eb early', 'full bptt dense, SLTT'."""
    found: dict[str, Arm] = {}
    for _, record in read_all([ROOT / "results" / folder]).records:
        spec = record.spec
        words = [spec.method, spec.backprop, spec.sparsity, *(["early"] if spec.early_time else [])]
        words += ["half"] if spec.sparsity_options.get("search_ratio") else []
        words += ["fixed"] if spec.sparsity_options.get("adaptive") is False else []
        name = " ".join(words) + (", SLTT" if spec.backbone_options["tau"] == 1.1 else "")
        found.setdefault(name, {})[spec.seed] = record
    return found


def points(run: Record, other: Record) -> float:
    return 100 * (run.test_accuracy - other.test_accuracy)


def cpu(run: Record, other: Record) -> float:
    return charged(run.cpu_seconds) / charged(other.cpu_seconds)


def wall(run: Record, other: Record) -> float:
    return charged(run.seconds) / charged(other.seconds)


def charged(seconds: dict[str, float]) -> float:
    return sum(seconds.get(phase, 0.0) for phase in ("prepare", "select", "train"))


def percent_of(value: Callable[[Record], float | None]) -> Value:
    def change(run: Record, other: Record) -> float:
        return 100 * (float(value(run) or 0) / float(value(other) or 0) - 1)

    return change


memory = percent_of(lambda run: run.train_memory_bytes)
energy = percent_of(lambda run: run.operations["energy_joules"])
search = percent_of(lambda run: run.ticket["seconds"])


def interval(values: Iterable[float]) -> tuple[float, float]:
    found = t_interval(list(values))
    assert found is not None
    low, high = found
    return (high + low) / 2, (high - low) / 2


def paired(folder: str, one: str, other: str, value: Value) -> tuple[float, float]:
    of, to = arms(folder)[one], arms(folder)[other]
    seeds = sorted(of.keys() & to.keys())
    assert len(seeds) >= 5
    return interval(value(of[seed], to[seed]) for seed in seeds)


def mean_of_pairs(suffix: str, number: int) -> tuple[float, float]:
    """Returns SADP minus random, paired by seed: the mean over all such pairs of arms."""
    pairs = [
        (arm, arms("axes")["random" + name.removeprefix("sadp")])
        for name, arm in arms("axes").items()
        if name.startswith("sadp") and name.endswith(", SLTT") == bool(suffix)
    ]
    assert len(pairs) == number
    return interval(sum(points(of[s], to[s]) for of, to in pairs) / number for s in range(5))


def spellings(mean: float, half: float, decimals: int) -> set[str]:
    """Returns the estimate with and without its sign, and a share of time below 1 as a saving."""
    texts = {f"{value:{sign}.{decimals}f} ± {half:.{decimals}f}" for value in (mean, -mean) for sign in ("", "+")}
    return texts | {text.replace("+0.0 ±", "-0.0 ±") for text in texts}


PLAIN, SLTT = "full bptt dense", "full bptt dense, SLTT"
AXES: list[tuple[str, str, Value, int]] = [
    *(
        (f"{arm}{end}", plain, value, decimals)
        for end, plain in (("", PLAIN), (", SLTT", SLTT))
        for arm in ("full sltt dense", "full sltt-k dense", "random bptt dense", "sadp bptt dense", "random sltt-k dense")
        for value, decimals in ((points, 1), (cpu, 2), (memory, 0))
    ),
    *((arm, PLAIN, value, d) for arm in ("full local dense", "full bptt eb early")
      for value, d in ((points, 1), (cpu, 2), (memory, 0), (energy, 0))),
    *((f"sadp {rest}", f"random {rest}", points, 1)
      for rest in ("bptt dense", "sltt dense", "sltt-k eb early", "sltt-k dense, SLTT")),
]  # fmt: skip
TICKETS: list[tuple[str, str, Value, int]] = [
    *((f"full bptt {arm}", PLAIN, points, 1)
      for arm in ("imp", "imp early", "eb", "eb early", "eb half", "random", "pq", "pq fixed", "channels", "narrow")),
    *((f"full bptt {arm}", "full bptt random", points, 1) for arm in ("imp", "eb")),
    *((f"full bptt {arm} early", f"full bptt {arm}", value, d)
      for arm in ("imp", "eb") for value, d in ((points, 1), (search, 0))),
    ("full bptt eb half", "full bptt eb", points, 1),
    ("full bptt eb half", "full bptt eb", search, 0),
    ("full bptt pq", "full bptt pq fixed", points, 1),
    ("full bptt channels", "full bptt narrow", points, 1),
]  # fmt: skip


@cache
def stated_by_records() -> set[str]:
    found: set[str] = set()
    for folder, rows in (("axes", AXES), ("tickets", TICKETS)):
        for one, other, value, decimals in rows:
            mean, half = paired(folder, one, other, value)
            found |= spellings(mean, half, decimals)
            if value is cpu:  # also as a percentage of change
                found |= spellings(100 * (mean - 1), 100 * half, 0)
    found |= spellings(*mean_of_pairs("", 7), 1) | spellings(*mean_of_pairs("SLTT", 3), 1)
    for arm in ("pq", "pq fixed"):
        found |= spellings(
            *interval(100 * run.test_accuracy for run in arms("tickets")[f"full bptt {arm}"].values()), 1
        )
    speedup = paired("tickets", "full bptt channels", PLAIN, cpu)
    return found | spellings(100 * (1 - speedup[0]), 100 * speedup[1], 0)


@pytest.mark.parametrize(
    ("document", "begin", "end"),
    [
        ("docs/axes.md", "## Do the savings multiply?", "## What was wrong before"),
        ("README.md", "6. The other axes", "[Results]"),
    ],
)
def test_every_stated_difference_is_one_of_the_records(document: str, begin: str, end: str) -> None:
    page = (ROOT / document).read_text(encoding="utf-8")
    part = page[page.index(begin) : page.index(end)]
    part = re.sub(r"<!-- (\w[^>]*), from results/README.md -->.*?<!-- end \1 -->", "", part, flags=re.DOTALL)
    part = part.replace("(this page had 36 ± 6 % by a wrong rule)", "")
    stated = STATED.findall(" ".join(part.split()))
    assert len(stated) >= 2 and not [text for text in stated if text not in stated_by_records()]


def test_charged_seconds_of_the_tickets_table_are_those_of_the_records() -> None:
    page = (ROOT / "docs" / "axes.md").read_text(encoding="utf-8")
    rows = {
        "`imp`": "imp", "`imp` with early time": "imp early", "`eb`": "eb", "`eb` with early time": "eb early",
        "`eb`, searched on half of the visits": "eb half", "`random` masks": "random", "`pq`": "pq",
        "`pq` with a fixed share of 0.11, its control": "pq fixed", "`channels`, half of them": "channels",
        "`narrow`, as many products, its control": "narrow",
    }  # fmt: skip
    for label, arm in rows.items():
        accuracy, times = re.findall(rf"^\| {re.escape(label)} \| (\S+) ± \S+ \| (\S+) x \|$", page, re.MULTILINE)[0]
        mean = paired("tickets", f"full bptt {arm}", PLAIN, wall)[0]
        assert times in (f"{mean:.1f}", f"{mean:.2f}"), label
        assert float(accuracy) == pytest.approx(paired("tickets", f"full bptt {arm}", PLAIN, points)[0], abs=0.051), (
            label
        )


def test_the_stated_saving_of_a_cut_is_that_of_the_epochs_before_and_after_it() -> None:
    ratios = []
    for run in arms("tickets")["full bptt channels"].values():
        seconds, cut = [row["seconds"] for row in run.epochs], run.ticket["cut_epoch"]
        ratios.append(median(seconds[1:cut]) / median(seconds[cut:]))  # The first epoch warms up.
    page = " ".join((ROOT / "docs" / "axes.md").read_text(encoding="utf-8").split())
    assert (
        f"takes {median(ratios):.2f} times as long as one after it (median; {min(ratios):.2f} to {max(ratios):.2f})"
        in page
    )


def test_the_stated_cosines_are_those_of_the_study_and_the_records() -> None:
    page = (ROOT / "docs" / "axes.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| .*\| (default|SLTT's) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+|–) \|$", page, re.MULTILINE)
    wanted = []
    for neuron, tau in (("default", 2.0), ("SLTT's", 1.1)):
        [study] = (
            json.loads(path.read_text(encoding="utf-8"))
            for path in (ROOT / "results" / "studies" / "sltt").glob("*.study.json")
            if json.loads(path.read_text(encoding="utf-8"))["spec"]["backbone_options"]["tau"] == tau
        )
        found = study["stops"][-1]["gradient_cosine"]
        wanted.append((neuron, found["whole"], found["least"], found["norms_of_all_steps"]))
    for neuron, tau in (("default", 2.0), ("SLTT's", 1.1)):
        runs = [r.gradient_cosine for _, r in read_all([ROOT / "results" / "cosine"]).records
                if r.spec.backbone_options["tau"] == tau]  # fmt: skip
        assert len(runs) == 3
        wanted.append((neuron, fmean(run["last"] for run in runs), fmean(run["least"] for run in runs), None))
    assert shown == [
        (name, *("–" if value is None else f"{value:.2f}" for value in values)) for name, *values in wanted
    ]
