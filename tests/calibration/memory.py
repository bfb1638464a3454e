"""What a call takes of memory at most, as Python and numpy allocate it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable


def peak_bytes(call: Callable[[int], object], count: int) -> int:
    """Beyond what was there before."""
    tracemalloc.start()
    try:
        call(count)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
