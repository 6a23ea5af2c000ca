"""The split for data sets that come without one: fixed, stratified, and independent of order and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence

from sadp_bench.core.errors import BadInput

HASHED = "sha1-9:1"  # the name of the split in specs
TEST_SHARE = 10  # examples for each test example


def hashed_split(names: Sequence[str], labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """Returns the places of the training and of the test examples, in ascending order.

    The test examples are a tenth of each class, rounded half up: those whose names have the lowest SHA-1 sums. A class of
    two or more has at least one, and a class of one has none. So new or removed files seldom change another file's part.

    Args:
        names: Names of the examples, distinct within a class.
        labels: Labels of the examples.
    """
    members: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        members.setdefault(label, []).append(place)
    test: list[int] = []
    for places in members.values():
        number = max(1, (len(places) + TEST_SHARE // 2) // TEST_SHARE) if len(places) > 1 else 0
        test += sorted(places, key=lambda place: (_sha1(names[place]), names[place]))[:number]
    held = set(test)
    return [place for place in range(len(names)) if place not in held], sorted(test)


def list_hash(names: Iterable[str]) -> str:
    """Returns 12 hex digits that identify a list of test examples in any order: of the SHA-256 of its sorted lines."""
    text = "\n".join(sorted(names))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def check_hashed(split: str) -> None:
    """Raises BadInput for a split other than `HASHED`, the only one of some data sets."""
    if split != HASHED:
        raise BadInput(f"dataset.split is {HASHED}, the only one of this data set, not '{split}'")


def checked_list(wanted: str, names: Collection[str]) -> str:
    """Returns the hash of a test list. Raises BadInput where the wanted hash differs, and so comes from other files."""
    found = list_hash(names)
    if wanted not in ("", found):
        raise BadInput(
            f"dataset.test_list is {wanted}, and the {len(names):,} test examples of the files that are there have {found}; "
            "get the other files, or leave dataset.test_list out"
        )
    return found


def _sha1(name: str) -> bytes:
    return hashlib.sha1(name.encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
