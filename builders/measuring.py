"""Time a function, and what it takes of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np

from kobart_runtime.host_memory import own_peak_bytes

PERCENTILES = (50, 95, 99)


class Watch(AbstractContextManager, Protocol):
    """Looks at a machine's use while a block runs, such as `GpuSampler`."""

    def figures(self) -> dict[str, float]:
        """What was seen, by name; with the unit in the name."""


class ProcessMemory(nullcontext):
    """The most memory that this process has had, in MB, now or before."""

    def figures(self) -> dict[str, float]:
        """`memory_mb`."""
        return {"memory_mb": own_peak_bytes() / 1e6}


def measure(
    run: Callable[[], None],
    *,
    num_samples: int,
    num_iterations: int,
    num_warmup: int,
    watch: Watch | None = None,
) -> dict[str, float]:
    """Time each call.

    Args:
        run: Returns when its work is done.
        num_samples: That one call works on.
        num_iterations: Calls that are timed.
        num_warmup: Calls before them.
        watch: Looks on while the timed calls run (default: `ProcessMemory`).

    Returns:
        `avg_time`, `p50`, `p95`, `p99` in seconds; `throughput` in samples a second; and what the
        watch saw.
    """
    watch = watch or ProcessMemory()
    for _ in range(num_warmup):
        run()
    with watch:
        times = np.array([seconds(run) for _ in range(num_iterations)])
    return {
        "avg_time": float(times.mean()),
        "throughput": num_samples * num_iterations / float(times.sum()),
        **percentiles(times),
        **watch.figures(),
    }


def percentiles(values: np.ndarray) -> dict[str, float]:
    """`p50`, `p95` and `p99`, in the unit of the values."""
    return {f"p{share}": float(np.percentile(values, share)) for share in PERCENTILES}


def seconds(run: Callable[[], None]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
