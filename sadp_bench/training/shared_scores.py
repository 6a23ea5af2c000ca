"""Scores on disk, shared by runs that differ in the ratio alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from sadp_bench.core import distributed
from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.core.time_limit import TimeLimit
from sadp_bench.records.file_lock import Lock
from sadp_bench.records.store import remove_parts
from sadp_bench.training.checkpoint import State, read_state, write_state
from sadp_bench.training.state_checks import check_scores, contents


class SharedScores:
    """The scores of all runs that differ in the ratio alone. One process computes them while the others wait.

    Args:
        path: Their file.
        made_in: Data and environment that the scores must come from: their seconds hold nowhere else.
        device: Where the scores are placed.
        progress: Receives lines for the user.
        fresh: Computes them anew, whatever lies there.
        num_examples: The number of scores.
        limit: Ends also the wait for another process.
    """

    def __init__(
        self,
        path: Path,
        made_in: dict[str, Any],
        device: torch.device,
        progress: Progress,
        fresh: bool,
        num_examples: int,
        limit: TimeLimit,
    ) -> None:
        self.path = path
        self._made_in = made_in
        self._device = device
        self._progress = progress
        self._fresh = fresh
        self._num_examples = num_examples
        self._limit = limit
        self._lock = Lock(path.with_name(f"{path.name}.lock"))

    def find_or_lock(self) -> State | None:
        """Returns the scores. None: this process must compute them, and holds the lock until `unlock`."""
        found = None if distributed.rank() > 0 else self._find_or_lock()
        if not distributed.agreed(found is not None):
            return None
        return found or read_state(self.path, self._device)

    def _find_or_lock(self) -> State | None:
        waiting = False
        while True:
            if self._lock.acquire():
                remove_parts(self.path)
                found = None if self._fresh else self._find()
                if found is not None:
                    self.unlock()
                return found
            if not waiting:
                self._progress.message(f"another process computes the scores {self.path}: waiting for them")
            waiting = True
            self._limit.check_alone("the run waited for its scores")
            time.sleep(1)

    def _find(self) -> State | None:
        if not self.path.exists():
            return None
        try:
            state = read_state(self.path, self._device)
            with contents():
                is_from_here = state.pop("made_in", None) == self._made_in
                check_scores(state, self._num_examples)
        except BadInput as error:
            self._progress.message(f"scores {self.path} are {error}: computing them anew")
            return None
        if not is_from_here:
            self._progress.message(f"scores {self.path} were made from other data or in another environment: not used")
            return None
        return state

    def write(self, state: State) -> None:
        """Writes the scores; a failure is reported and ends nothing."""
        if distributed.rank() > 0:
            return
        try:
            write_state(self.path, {**state, "made_in": self._made_in})
        except BadInput as error:
            self._progress.message(f"scores not kept for other ratios: {error}")

    def unlock(self) -> None:
        """Lets the waiting processes go on."""
        if distributed.rank() == 0:
            self._lock.release(finished=True)
