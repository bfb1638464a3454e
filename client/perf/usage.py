"""What a group of processes, and the GPU, are doing while a load is measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_INTERVAL_S = 0.2
_GPU_QUERY = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Over one measurement."""

    cpu_percent: float  # of one core: two busy cores are 200
    peak_memory_mb: float  # resident, summed over the processes: shared pages count in each
    gpu_percent: float | None  # of the busiest GPU, on average; None: there is no GPU
    gpu_memory_mb: float | None  # of the fullest GPU, at most


class UsageSampler:
    """Watches while its block runs; `usage` tells afterwards."""

    def __init__(self, session: int) -> None:
        """Watch all processes of a session.

        Args:
            session: The process id of its leader, such as a server started by `TritonServer`.
        """
        self._session = session
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="usage", daemon=True)
        self._memory_bytes: list[int] = []
        self._gpu: list[tuple[float, float]] = []

    def __enter__(self) -> UsageSampler:
        self._started_s, self._started_ticks = time.monotonic(), self._cpu_ticks()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._seconds = time.monotonic() - self._started_s
        self._ticks = self._cpu_ticks() - self._started_ticks

    @property
    def usage(self) -> Usage:
        """What was seen, once the block has ended."""
        return Usage(
            cpu_percent=100 * self._ticks / _TICKS_PER_S / max(self._seconds, 1e-9),
            peak_memory_mb=max(self._memory_bytes, default=0) / 1e6,
            gpu_percent=_mean([percent for percent, _ in self._gpu]),
            gpu_memory_mb=max((memory for _, memory in self._gpu), default=None),
        )

    def _watch(self) -> None:
        has_gpu = shutil.which(_GPU_QUERY[0]) is not None
        while True:
            self._memory_bytes.append(
                sum(stat.resident_bytes for stat in _processes(self._session))
            )
            if has_gpu:
                self._gpu.extend(_gpu_sample())
            if self._stopped.wait(_INTERVAL_S):
                return

    def _cpu_ticks(self) -> int:
        return sum(process.cpu_ticks for process in _processes(self._session))


@dataclass(frozen=True)
class _Process:
    cpu_ticks: int
    resident_bytes: int


def _processes(session: int) -> Iterator[_Process]:
    """The processes of a session; see proc(5) for the fields of `stat`."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[3]) == session:
            yield _Process(int(fields[11]) + int(fields[12]), int(fields[21]) * _PAGE_BYTES)


def _gpu_sample() -> list[tuple[float, float]]:
    """Utilization in % and memory in MB of the busiest GPU; empty if nvidia-smi fails."""
    try:
        done = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=10, check=True)
        gpus = [tuple(map(float, line.split(","))) for line in done.stdout.splitlines()]
        return [(max(gpu[0] for gpu in gpus), max(gpu[1] for gpu in gpus) * (1 << 20) / 1e6)]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return []


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
