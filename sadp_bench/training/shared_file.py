"""The result on disk of work before training, which one run makes and several runs use."""

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
from sadp_bench.training.state_checks import Accept, contents


class SharedFile:
    """A result that several runs would make alike: scores, or a search. One process makes it while the others wait.

    Args:
        path: The file.
        noun: The result in messages: "scores" or "search".
        made_in: Data and environment that the result must come from; its seconds are not valid elsewhere.
        device: Device of its tensors.
        progress: Receives lines for the user.
        fresh: Whether to make the result anew and replace the file.
        accept: Raises BadInput for a content that is no such result.
        limit: The command's time limit, which also ends the wait for another process.
    """

    def __init__(
        self,
        path: Path,
        noun: str,
        made_in: dict[str, Any],
        device: torch.device,
        progress: Progress,
        fresh: bool,
        accept: Accept,
        limit: TimeLimit,
    ) -> None:
        self.path, self.noun = path, noun
        self._made_in = made_in
        self._device = device
        self._progress = progress
        self._fresh = fresh
        self._accept = accept
        self._limit = limit
        self._lock = Lock(path.with_name(f"{path.name}.lock"))

    def find_or_lock(self) -> State | None:
        """Returns the result; None: this process must make it, and holds the lock until it calls `unlock`."""
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
                self._progress.message(f"another process makes {self.noun} {self.path}: waiting for it to end")
            waiting = True
            self._limit.check_alone(f"the run waited for its {self.noun}")
            time.sleep(1)

    def _find(self) -> State | None:
        if not self.path.exists():
            return None
        try:
            state = read_state(self.path, self._device)
            with contents():
                is_from_here = state.pop("made_in", None) == self._made_in
                self._accept(state)
        except BadInput as error:
            self._progress.message(f"{self.noun} {self.path}: the file is {error}: made anew")
            return None
        if not is_from_here:
            self._progress.message(f"{self.noun} {self.path}: made from other data or in another environment: not used")
            return None
        return state

    def write(self, state: State) -> None:
        """Writes the result. After a failure, which is reported, the run goes on."""
        if distributed.rank() > 0:
            return
        try:
            write_state(self.path, {**state, "made_in": self._made_in})
        except BadInput as error:
            self._progress.message(f"{self.noun} not kept for other runs: {error}")

    def unlock(self) -> None:
        """Releases the lock, so that waiting processes go on."""
        if distributed.rank() == 0:
            self._lock.release(finished=True)
