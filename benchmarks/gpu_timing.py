"""Times and memory of passes: memory one by one, times in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from builders.forward_pass import Pass
from builders.measuring import Watch, percentiles, seconds
from kobart_runtime.errors import KobartError

Open = Callable[[], Pass]
ROUND = 10  # passes of one system before the next one's turn
IDLE_S, BUSY_S = 0.5, 2.0  # watched without and with passes


@dataclass(frozen=True)
class Timing:
    """What one system takes; or why it takes nothing."""

    ms: dict[str, float] | None = None  # mean, p50, p95, p99
    memory_mb: float | None = None  # of the GPU, more than before it was opened
    gpu_utilization: float | None = None  # in %, while it runs alone
    failure: str | None = None


def time_passes(
    systems: Mapping[str, Open], watch: Callable[[], Watch], iterations: int, warmup: int
) -> dict[str, Timing]:
    """Measure systems; one that fails does not keep the others from being measured.

    Args:
        systems: What opens each system, by name.
        watch: Makes what samples the GPU.
        iterations: Passes that are timed, of each system.
        warmup: Passes before them.
    """
    use: dict[str, Use] = {}
    failures: dict[str, str] = {}
    for name, open_system in systems.items():
        with _noted(failures, name):
            use[name] = _use(open_system, watch)
        _release()
    passes: dict[str, Pass] = {}
    for name in use:
        with _noted(failures, name):
            passes[name] = systems[name]()
    times = _times(passes, iterations, warmup)
    return {
        name: Timing(failure=failures[name])
        if name in failures
        else Timing(_summary(times[name]), use[name].memory_mb, use[name].gpu_utilization)
        for name in systems
    }


@dataclass(frozen=True)
class Use:
    """What a system takes of the GPU while it runs alone."""

    memory_mb: float  # more than before it was opened
    gpu_utilization: float  # in %


@contextmanager
def _noted(failures: dict[str, str], name: str) -> Iterator[None]:
    """Keep the reason of a failure, and go on with the next system."""
    try:
        yield
    except (KobartError, RuntimeError) as error:  # PyTorch's are RuntimeErrors
        failures[name] = f"{error}".splitlines()[0]


def _use(open_system: Open, watch: Callable[[], Watch]) -> Use:
    """Memory and utilization of a system that is open alone."""
    with (idle := watch()):
        time.sleep(IDLE_S)
    run = open_system()
    run()
    with (busy := watch()):
        _repeat(run, BUSY_S)
    before, during = idle.figures(), busy.figures()
    return Use(during["memory_mb"] - before["memory_mb"], during["gpu_utilization"])


def _times(passes: dict[str, Pass], iterations: int, warmup: int) -> dict[str, list[float]]:
    """Seconds of each pass, in rounds, so that a slow moment hits all systems."""
    for run in passes.values():
        for _ in range(warmup):
            run()
    times: dict[str, list[float]] = {name: [] for name in passes}
    while any(len(taken) < iterations for taken in times.values()):
        for name, run in passes.items():
            rest = min(ROUND, iterations - len(times[name]))
            times[name] += [seconds(run) for _ in range(rest)]
    return times


def _summary(taken: list[float]) -> dict[str, float]:
    milliseconds = np.array(taken) * 1e3
    return {"mean": float(milliseconds.mean()), **percentiles(milliseconds)}


def _repeat(run: Pass, at_least_s: float) -> None:
    end = time.perf_counter() + at_least_s
    while time.perf_counter() < end:
        run()


def _release() -> None:
    """Give back the memory of what is no longer in use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
