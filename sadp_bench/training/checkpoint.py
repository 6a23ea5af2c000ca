"""Files of tensors and plain values, which are read whole or refused, and the checkpoint of a run.

A file consists of one line that names the format, the SHA-256 of the rest, and the rest: the state as `torch.save` writes
it. `weights_only=True` makes the reader refuse all but tensors and plain values, whoever wrote the file. The hash is
needed because torch does not detect a flipped bit.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import STATE_BYTES, Unreadable, opened, read_bytes, remove, set_aside
from sadp_bench.records.store import atomic
from sadp_bench.training.state_checks import Accept, contents

FORMAT = b"sadp-bench state 3\n"
State = dict[str, Any]


def write_state(path: Path, state: State) -> None:
    """Writes a state atomically. Raises BadInput where the folder can't be written or is full."""
    content = io.BytesIO()
    torch.save(state, content)
    with atomic(path) as file:
        file.write(FORMAT + hashlib.sha256(content.getbuffer()).hexdigest().encode() + b"\n")
        file.write(content.getbuffer())


def read_state(path: Path, device: torch.device) -> State:
    """Returns a state, with tensors of any GPU placed on `device`. Raises BadInput for all but a whole state."""
    try:
        with opened(path) as file:
            is_ours = file.read(len(FORMAT)) == FORMAT
        content = read_bytes(path, STATE_BYTES) if is_ours else b""
    except Unreadable as error:
        raise BadInput(f"unreadable: {error.reason}") from None
    head, rest = content[: len(FORMAT) + 65], content[len(FORMAT) + 65 :]
    if head != FORMAT + hashlib.sha256(rest).hexdigest().encode() + b"\n":
        raise BadInput("cut short, damaged or of another version")

    def place(storage: Any, location: str) -> Any:
        return storage if location == "cpu" else storage.to(device=device)

    try:
        state = torch.load(io.BytesIO(rest), map_location=place, weights_only=True)
    except Exception as error:  # Files from elsewhere raise errors of many kinds.
        raise BadInput(f"no state of tensors and plain values ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise BadInput("no state of tensors and plain values")
    return state


class Checkpoint:
    """The newest state of an unfinished run, and the state before it in case the newest is damaged.

    Args:
        path: The newest state's file.
        every_seconds: Seconds from one state to the next.
        identity: A state is resumed only if it was written with an equal identity.
        report: Receives a line for the user.
    """

    def __init__(self, path: Path, every_seconds: float, identity: State, report: Callable[[str], None]) -> None:
        self.path, self.before = path, path.with_name(f"{path.name}.before")
        self.every_seconds, self.identity, self._report = every_seconds, identity, report
        self._since = time.monotonic()
        self._complaint = ""

    def read(self, device: torch.device, accept: Accept = lambda state: None) -> State | None:
        """Returns the newest whole state, or None. Damaged files are set aside.

        Args:
            device: Device for tensors of a GPU.
            accept: Raises BadInput for a state whose content is not the run's. Such a file is set aside too.
        """
        for path in (self.path, self.before):
            if os.path.lexists(path):
                try:
                    state = read_state(path, device)
                    with contents():
                        if state.get("identity") != self.identity:
                            raise BadInput("of other data or settings")
                        accept(state)
                    return state
                except BadInput as error:
                    self._report(f"checkpoint {path} is {error}: {set_aside(path)}")
        return None

    def due(self) -> bool:
        """Returns whether it is time to write the next state."""
        return time.monotonic() - self._since >= self.every_seconds

    def write(self, state: Callable[[], State]) -> None:
        """Writes a state. After a failure the run goes on, and tries again when the next state is due."""
        self._since = time.monotonic()
        try:
            content = {**state(), "identity": self.identity}
            if self.path.exists():
                self.path.replace(self.before)
            write_state(self.path, content)
        except (BadInput, OSError) as error:
            if str(error) != self._complaint:
                self._report(f"no checkpoint: {error}; the run goes on without")
            self._complaint = str(error)

    def discard(self) -> None:
        """Removes the states of a finished run."""
        for path in (self.path, self.before):
            remove(path)
