"""A dataset whose items also contain their index: `with_index`."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset


class WithIndex(Dataset[Any]):
    """A dataset whose items also contain their index; see `with_index`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        item = self.dataset[index]
        return (*item, index) if isinstance(item, tuple | list) else (item, index)

    def __len__(self) -> int:
        return len(self.dataset)


def with_index(dataset: Any) -> WithIndex:
    """Returns the dataset's examples as (image, label, index), without a copy.

    Args:
        dataset: A dataset with a length and integer indices.
    """
    return WithIndex(dataset)
