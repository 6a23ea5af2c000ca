"""The split by hashed names agrees with its definition, is stratified, and follows from the names alone."""

from __future__ import annotations

import random
import subprocess
from collections import Counter

from sadp_bench.datasets.splits import hashed_split, list_hash

SIZES = {0: 100, 1: 1, 2: 2, 3: 14, 4: 15, 5: 25}  # examples by class
NAMES = [(f"class {label}/übung {number}.png", label) for label, size in SIZES.items() for number in range(size)]


def split(pairs: list[tuple[str, int]]) -> tuple[set[str], set[str]]:
    names, labels = zip(*pairs, strict=True)
    train, test = hashed_split(names, labels)
    assert train == sorted(train) and test == sorted(test) and sorted(train + test) == list(range(len(names)))
    return {names[place] for place in train}, {names[place] for place in test}


def test_the_tenth_of_each_class_with_the_lowest_sums_is_held_out() -> None:
    def coreutils(name: str) -> str:
        return subprocess.run(["sha1sum"], input=name.encode(), capture_output=True, check=True).stdout.decode()

    _, test = split(NAMES)
    sums = {name: coreutils(name) for name, label in NAMES if label in (3, 5)}
    for label, number in ((3, 1), (5, 3)):
        ranked = sorted((name for name, of in NAMES if of == label), key=sums.__getitem__)
        assert {name for name in test if name.startswith(f"class {label}")} == set(ranked[:number])
    assert Counter(name[6] for name in test) == {"0": 10, "2": 1, "3": 1, "4": 2, "5": 3}  # none of a class of one


def test_neither_order_nor_other_classes_change_the_split() -> None:
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    assert split(shuffled) == split(NAMES)
    train, test = split([pair for pair in NAMES if pair[1] != 0])
    assert train < split(NAMES)[0] and test < split(NAMES)[1]


def test_the_hash_of_a_list_follows_from_its_names_alone() -> None:
    names = [name for name, _ in NAMES]
    assert list_hash(names) == list_hash(reversed(names)) != list_hash(names[1:])
    text = "\n".join(sorted(names))
    found = subprocess.run(["sha256sum"], input=text.encode(), capture_output=True, check=True).stdout.decode()
    assert list_hash(names) == found[:12] and list_hash(["\udcff"])
