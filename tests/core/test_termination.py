"""SIGTERM within a block is an interruption; after the block its former handler is back."""

from __future__ import annotations

import os
import signal

import pytest

from sadp_bench.core.termination import terminable


def test_sigterm_interrupts_the_block_and_is_restored_after_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert signal.getsignal(signal.SIGTERM) is before
