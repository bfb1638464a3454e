"""Time a function, and what it takes of memory."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable

import numpy as np

from kobart_runtime.errors import BuildError

_NVIDIA_SMI = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
)


def measure(
    run: Callable[[], None],
    *,
    num_samples: int,
    num_iterations: int,
    num_warmup: int,
    on_gpu: bool = False,
) -> dict[str, float]:
    """Time each call.

    Args:
        run: Returns when its work is done.
        num_samples: That one call works on.
        num_iterations: Calls that are timed.
        num_warmup: Calls before them.
        on_gpu: Ask the GPU for its memory and utilization as well.

    Returns:
        `avg_time`, `p50`, `p95`, `p99` in seconds; `throughput` in samples a second; `memory_mb`,
        the process's peak or the GPU's use; with a GPU `gpu_utilization` in %.
    """
    for _ in range(num_warmup):
        run()
    times = np.array([_seconds(run) for _ in range(num_iterations)])
    usage = gpu_usage() if on_gpu else {"memory_mb": peak_memory_mb()}
    return {
        "avg_time": float(times.mean()),
        "throughput": num_samples * num_iterations / float(times.sum()),
        **{f"p{share}": float(np.percentile(times, share)) for share in (50, 95, 99)},
        **usage,
    }


def peak_memory_mb() -> float:
    """The most memory this process has had, in MB; Linux tells it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def gpu_usage() -> dict[str, float]:
    """The first GPU's utilization of the last moments in %, and its memory in use in MB.

    Raises:
        BuildError: nvidia-smi does not answer.
    """
    try:
        result = subprocess.run(_NVIDIA_SMI, capture_output=True, text=True, timeout=30, check=True)
        utilization, memory_mib = result.stdout.splitlines()[0].split(",")
        return {
            "gpu_utilization": float(utilization),
            "memory_mb": float(memory_mib) * (1 << 20) / 1e6,
        }
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise BuildError(f"nvidia-smi does not tell the GPU's use: {error}") from error


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
