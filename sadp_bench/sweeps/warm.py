"""Processes of runs that are forked from a warm process. It has imported all modules, so a run starts in milliseconds.

The warm process is `python -m sadp_bench.sweeps.warm DESCRIPTOR`. For each run the sweep sends the words of `sadp-bench`,
the pipe for the run's output, and one end of a pair of sockets. The warm process returns the run's process number and exit
code through this socket. It never trains and starts no thread, because a fork would lose the threads and keep their locks.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module

from sadp_bench.sweeps.processes import SPEAKING, Child, tied

CAN_FORK = sys.platform == "linux" and hasattr(os, "pidfd_open")  # elsewhere, system libraries do not survive a fork
IMPORTED = (
    "sadp_bench.backbones.spiking",
    "sadp_bench.cli.run_view",
    "sadp_bench.cli.train",
    "sadp_bench.runs.resolve",
    "sadp_bench.runs.run",
)
MESSAGE_BYTES = 1 << 20  # bytes of a run's words and variables
LOST = -signal.SIGKILL  # exit code of a run that was killed with its warm process
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Warm:
    """The warm process. It starts with the first run, and again after it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Starts `sadp-bench words...` in a fork of the warm process. The arguments are those of `processes.fresh`."""
        if self._process is None or self._process.poll() is not None:
            self._launch()
        assert self._requests is not None
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output, written = os.pipe()
        message = json.dumps({"words": list(words), "environment": dict(environment)}).encode()
        try:
            socket.send_fds(self._requests, [message], [written, theirs.fileno()])
        finally:  # the warm process has its own copies
            os.close(written)
            theirs.close()
        return Child(_Forked(answers), os.fdopen(output, errors="replace"))

    def _launch(self) -> None:
        self.close()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*tied(), sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **SPEAKING},
            )

    def close(self) -> None:
        """Ends the warm process and all its runs."""
        if self._requests is not None:
            self._requests.close()
        if self._process is not None:
            self._process.wait()
        self._requests = self._process = None


class _Forked:
    """The process of a run.

    Args:
        answers: The socket that receives two messages, the process number and the exit code. It is closed where the warm
            process has ended.
    """

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self._pid: int | None = None
        self._code: int | None = None

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        while self._code is None:
            self._receive(timeout)
        return self._code

    def _receive(self, timeout: float | None) -> None:
        self._answers.settimeout(timeout)
        try:
            answer = self._answers.recv(32)
        except (TimeoutError, BlockingIOError):
            raise subprocess.TimeoutExpired("sadp-bench run", timeout or 0.0) from None
        if answer and self._pid is None:
            self._pid = int(answer)
        else:
            self._code = int(answer) if answer else LOST
            self._answers.close()

    def terminate(self) -> None:
        while self._pid is None and self._code is None:  # while the warm process is importing
            self._receive(None)
        if self.poll() is None and self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None and self._pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)


def serve(requests: socket.socket) -> list[str] | None:
    """Forks a process for each request.

    Args:
        requests: The socket with the messages of `Warm.start`.

    Returns:
        The words of its run in a fork; None in the warm process, after the sweep has ended.
    """
    runs: dict[int, tuple[int, socket.socket]] = {}  # by a process's descriptor: its number and the socket for answers
    parent = os.getpid()
    while True:
        ready, _, _ = select.select([requests.fileno(), *runs], [], [])
        for descriptor in runs.keys() & set(ready):
            pid, answers = runs.pop(descriptor)
            os.close(descriptor)
            _answer(answers, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            answers.close()
        if requests.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 2)
        if not message:
            return None
        output, descriptor = descriptors
        request, answers = json.loads(message), socket.socket(fileno=descriptor)
        try:
            pid = os.fork()
        except OSError:  # too little memory for another process; the closed socket ends the run for the sweep
            os.close(output)
            answers.close()
            continue
        if pid == 0:
            _become_a_run(output, request["environment"], parent)
            for descriptor, (_, other) in runs.items():
                os.close(descriptor)
                other.close()
            answers.close()
            requests.close()
            return list(request["words"])
        os.close(output)
        _answer(answers, pid)
        runs[os.pidfd_open(pid)] = pid, answers


def _answer(answers: socket.socket, number: int) -> None:
    with suppress(OSError):  # the sweep may have ended; `serve` then ends at the next message
        answers.send(str(number).encode())


def _become_a_run(output: int, environment: Mapping[str, str], parent: int) -> None:
    """Gives a fork its own group, streams and variables, like a new process, and an end together with its parent."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent was killed before the call of prctl
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    sys.stdout, sys.stderr = (  # the inherited ones belong to a file and may seek
        io.TextIOWrapper(os.fdopen(stream, "wb", 0, closefd=False), errors="replace", write_through=True)
        for stream in (1, 2)
    )
    os.environ.update(environment)


def _main() -> None:
    for name in IMPORTED:
        import_module(name)
    main = import_module("sadp_bench.cli.app").main
    with suppress(SystemExit):
        main(["run", "--ratio", "none"])  # refused, but it imports the modules of parsing
    words = serve(socket.socket(fileno=int(sys.argv[1])))
    if words is not None:
        sys.argv = ["sadp-bench", *words]
        main()


if __name__ == "__main__":
    _main()
