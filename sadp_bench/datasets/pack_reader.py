"""Reads batches of a pack: rows by index, decoded by threads of this process.

Threads are better than processes here. Torchvision decodes without Python's lock, the pixels need no copy between
processes, and the run's CPU seconds include decoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from sadp_bench.datasets.pack_file import Pack

AHEAD = 2  # batches that are decoded before they are needed


class _Batch(NamedTuple):
    """A batch that is being decoded."""

    row_B: Tensor
    pixels: Tensor
    parts: list[Future[None]]

    def wait(self) -> Tensor:
        for part in self.parts:
            part.result()
        return self.pixels


class PackReader:
    """The images of a pack as batches of pixels. It implements `examples.Source`.

    The number of decoding threads is torch's number of threads. With one thread and without `ahead`, `read` decodes itself.

    Args:
        pack: The open pack.

    Attributes:
        num_decoded: Images that were decoded so far.
    """

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self.sha256 = pack.sha256
        self.num_decoded = 0
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 0
        self._planned: deque[Tensor] = deque()
        self._begun: deque[_Batch] = deque()
        self._last: tuple[Tensor, Tensor] | None = None

    def expect(self, rows: Iterable[Tensor]) -> None:
        """Announces the coming batches, in order. They replace the batches that were announced before."""
        for batch in self._begun:
            for part in batch.parts:
                part.cancel()
        self._begun.clear()
        self._planned, self._last = deque(rows), None

    def read(self, row_B: Tensor, ahead: bool) -> Tensor:
        """Returns the pixels of some images, uint8 [B, H, W, 3].

        A part of the last batch is not decoded again, because some methods pass a batch forward, then train on a part of it.

        Args:
            row_B: Places of the images in the pack.
            ahead: Whether to decode the next expected batches meanwhile, and to return pinned memory. It is for a GPU: on
                a CPU the decoding of the next batch would take the cores of the step.
        """
        again = self._part_of_last(row_B)
        if again is not None:
            return again
        if self._begun and torch.equal(self._begun[0].row_B, row_B):
            batch = self._begun.popleft()
        else:
            if self._planned and torch.equal(self._planned[0], row_B):
                self._planned.popleft()
            batch = self._begin(row_B, ahead)
        while ahead and self._planned and len(self._begun) < AHEAD:
            self._begun.append(self._begin(self._planned.popleft(), ahead))
        self._last = row_B, batch.wait()
        return self._last[1]

    def _begin(self, row_B: Tensor, ahead: bool) -> _Batch:
        side, threads = self._pack.facts.side, torch.get_num_threads()
        pixels = torch.empty(
            len(row_B), side, side, 3, dtype=torch.uint8, pin_memory=ahead and torch.cuda.is_available()
        )
        rows = row_B.tolist()
        self.num_decoded += len(rows)
        if threads == 1 and not ahead:
            self._decode(rows, pixels, 0, 1)
            return _Batch(row_B, pixels, [])
        if self._pool is None or threads != self._threads:
            self._pool, self._threads = ThreadPoolExecutor(threads, "decode"), threads
        parts = [self._pool.submit(self._decode, rows, pixels, first, threads) for first in range(threads)]
        return _Batch(row_B, pixels, parts)

    def _decode(self, rows: list[int], pixels: Tensor, first: int, step: int) -> None:
        """Decodes every `step`-th of the rows."""
        into = pixels.numpy()  # a copy by torch would start threads of its own
        for place in range(first, len(rows), step):
            into[place] = self._pack.pixels(rows[place]).numpy()

    def _part_of_last(self, row_B: Tensor) -> Tensor | None:
        if self._last is None or len(row_B) >= len(self._last[0]):
            return None
        place_of = {row: place for place, row in enumerate(self._last[0].tolist())}
        places = [place_of.get(row, -1) for row in row_B.tolist()]
        return None if -1 in places else self._last[1][torch.tensor(places)]
