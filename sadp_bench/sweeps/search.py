"""The table `[search]` of a sweep file: the settings that are searched for every method and ratio, and their points.

The points are the first of a fixed sequence, the same for every method and ratio. More trials only add points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sadp_bench.core.errors import BadInput
from sadp_bench.core.registry import nearest
from sadp_bench.records.fields import MAX_EPOCHS, MAX_RATE
from sadp_bench.records.trials import SEARCHABLE

BASES = (2, 3)  # bases of the Halton sequence, by dimension
DIGITS = 3  # significant digits of a point's values
MAX_TRIALS = 1000  # points
MAX_SEED = 2**63 - 1
KEYS = (*SEARCHABLE, "trials", "on", "seed", "epochs")


@dataclass(frozen=True, slots=True)
class Search:
    """The search of a sweep for every method and ratio.

    Attributes:
        ranges: Lowest and highest value of each setting, by name.
        trials: The number of points. Each point is a trial for each seed.
        seeds: The seeds of the trials.
        epochs: The epochs of a trial; None for those of the run.
    """

    ranges: dict[str, tuple[float, float]]
    trials: int
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None

    def points(self) -> list[dict[str, float]]:
        """Returns the values of each point, by name: uniform on a logarithmic scale, rounded to three digits."""
        places = islice(_places(len(self.ranges)), self.trials)
        return [
            {name: _value(low, high, at) for (name, (low, high)), at in zip(self.ranges.items(), place, strict=True)}
            for place in places
        ]


def radical_inverse(number: int, base: int) -> float:
    """Returns the radical inverse of a number: its digits in a base, in reverse order after the point.

    The sequence for 1, 2, .. is van der Corput's.
    """
    inverse, share = 0.0, 1.0 / base
    while number:
        number, digit = divmod(number, base)
        inverse += digit * share
        share /= base
    return inverse


def _places(dimensions: int) -> Iterator[tuple[float, ...]]:
    """Yields points in the unit cube: the Halton sequence.

    In one dimension both ends of the range follow the first point: 1/2, 0, 1, 1/4, 3/4, 1/8, ..
    """
    number = 0
    while True:
        number += 1
        yield tuple(radical_inverse(number, base) for base in BASES[:dimensions])
        if number == 1 == dimensions:
            yield from [(0.0,), (1.0,)]


def _value(low: float, high: float, place: float) -> float:
    """Returns the value at a place of a range; place 0 is the low end, 1 the high end."""
    rounded = float(f"{low * (high / low) ** place:.{DIGITS}g}")
    return {0.0: low, 1.0: high}.get(place, min(max(rounded, low), high))


def search_of(where: str, table: Any) -> Search:
    """Returns the search of a table `[search]`. Raises BadInput, which names the place."""
    if not isinstance(table, dict):
        raise BadInput(f"{where} is not a table")
    for name in table:
        if name.replace("-", "_") not in KEYS:
            raise BadInput(f"{where}: unknown key '{name}'{nearest(name.replace('-', '_'), KEYS)}")
    given = {name.replace("-", "_"): value for name, value in table.items()}
    ranges = {name: _range(where, name, given[name]) for name in SEARCHABLE if name in given}
    if not ranges:
        raise BadInput(f"{where} searches nothing: write {' or '.join(SEARCHABLE)} = [lowest, highest]")
    if given.get("on", "validation") != "validation":
        raise BadInput(
            f"{where}: on is 'validation', a held-out part of the training images, not {shown(given['on'])}; test images "
            "must not choose settings"
        )
    seeds = given.get("seed", 0)
    seeds = tuple(_count(where, "seed", seed, 0, MAX_SEED) for seed in (seeds if isinstance(seeds, list) else [seeds]))
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadInput(f"{where}: seed is a whole number or a list of different ones, not {list(seeds)}")
    epochs = _count(where, "epochs", given["epochs"], 1, MAX_EPOCHS) if "epochs" in given else None
    search = Search(ranges, _count(where, "trials", given.get("trials"), 2, MAX_TRIALS), seeds, epochs)
    if len({tuple(point.values()) for point in search.points()}) < search.trials:
        raise BadInput(
            f"{where}: {search.trials} points of {given} are not all different at {DIGITS} digits; take fewer trials or a "
            "wider range"
        )
    return search


def _range(where: str, name: str, value: Any) -> tuple[float, float]:
    ends = value if isinstance(value, list) else []
    numbers = [end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(numbers) != 2 or len(ends) != 2 or not 0 < numbers[0] < numbers[1] <= MAX_RATE:
        raise BadInput(
            f"{where}: {name} is the range [lowest, highest], two numbers above 0 in that order, such as [0.025, 0.2], not "
            f"{shown(value)}"
        )
    return float(numbers[0]), float(numbers[1])


def _count(where: str, name: str, value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        what = "nothing" if value is None else shown(value)
        raise BadInput(f"{where}: {name} is a whole number from {least} to {most:,}, not {what}")
    return value


def shown(value: Any) -> str:
    """Returns the beginning of a value's text. Python does not convert numbers of thousands of digits."""
    try:
        return str(value)[:60]
    except ValueError:
        return "a number of thousands of digits"
