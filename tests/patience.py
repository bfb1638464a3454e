"""How tests wait: for something to happen, and so long that only a hang takes longer.

No test may fail for what else runs on the machine. A test waits for events, counts steps or asks a
process for the CPU time it has used; it never compares a clock with what a quiet machine takes.
What is promised in seconds is measured by the tests marked `speed`, which run by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_S = 600.0  # below pytest's own timeout, so that a test says itself what did not happen
_POLL_S = 0.02


def wait_until(condition: Callable[[], object]) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {PATIENCE_S:g} s"
        time.sleep(_POLL_S)


@contextmanager
def before_patience_ends() -> Iterator[None]:
    """What is inside must end by itself, not by a time limit of `PATIENCE_S` that it was given."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < PATIENCE_S / 2
