"""Tensors and plain values on disk, whole or refused, and the checkpoint of a run made of them.

A file is one line that names the format, the SHA-256 of the rest, and what `torch.save` made of the state. It is read with
`weights_only=True`: no object but tensors and plain values comes out of it, whoever made it. torch itself doesn't notice
a flipped bit, hence the sum.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.records.store import atomic

FORMAT = b"sadp-bench state 3\n"
State = dict[str, Any]


def write_state(path: Path, state: State) -> None:
    """Atomically. Raises BadInput where the folder can't be written or is full."""
    content = io.BytesIO()
    torch.save(state, content)
    with atomic(path) as file:
        file.write(FORMAT + hashlib.sha256(content.getbuffer()).hexdigest().encode() + b"\n")
        file.write(content.getbuffer())


def read_state(path: Path, device: torch.device) -> State:
    """What was written; tensors that lay on a GPU come to this run's. Raises BadInput for anything but a whole state."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"unreadable: {error.strerror}") from None
    head, rest = content[: len(FORMAT) + 65], content[len(FORMAT) + 65 :]
    if head != FORMAT + hashlib.sha256(rest).hexdigest().encode() + b"\n":
        raise BadInput("cut short, damaged or of another version")

    def place(storage: Any, location: str) -> Any:
        return storage if location == "cpu" else storage.to(device=device)

    try:
        state = torch.load(io.BytesIO(rest), map_location=place, weights_only=True)
    except Exception as error:  # of many kinds, from a file made by someone else
        raise BadInput(f"no state of tensors and plain values ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise BadInput("no state of tensors and plain values")
    return state


class Checkpoint:
    """The newest state of an unfinished run and, lest that be damaged, the one before it.

    identity: what a state must have been made with to be taken up again. say: is told what is worth reading once.
    """

    def __init__(self, path: Path, every_seconds: float, identity: State, say: Callable[[str], None]) -> None:
        self.path, self.before = path, path.with_name(f"{path.name}.before")
        self.every_seconds, self.identity, self.say = every_seconds, identity, say
        self._since = time.monotonic()
        self._complaint = ""

    def read(self, device: torch.device) -> State | None:
        """The newest whole state; a damaged one is set aside."""
        for path in (self.path, self.before):
            if path.exists():
                try:
                    state = read_state(path, device)
                    if state.get("identity") != self.identity:
                        raise BadInput("of other data or settings")
                    return state
                except BadInput as error:
                    aside = path.with_name(f"{path.name}.broken")
                    path.replace(aside)
                    self.say(f"checkpoint {path} is {error}: set aside as {aside.name}")
        return None

    def due(self) -> bool:
        return time.monotonic() - self._since >= self.every_seconds

    def write(self, state: Callable[[], State]) -> None:
        """A state that can't be written does not end the run: it goes on, and tries again when the next one is due."""
        self._since = time.monotonic()
        try:
            content = {**state(), "identity": self.identity}
            if self.path.exists():
                self.path.replace(self.before)
            write_state(self.path, content)
        except (BadInput, OSError) as error:
            if str(error) != self._complaint:
                self.say(f"no checkpoint: {error}; the run goes on without")
            self._complaint = str(error)

    def discard(self) -> None:
        for path in (self.path, self.before):
            path.unlink(missing_ok=True)
