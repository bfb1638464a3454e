from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from client.perf.machine import Machine, Quietness
from client.perf.usage import UsageSampler
from tests.patience import wait_until

BUSY = "data = bytearray(60_000_000)\nprint(flush=True)\nwhile True: pass"
CPU_S = 0.5
TICK_S = 0.02  # two of those that the sampler counts


def test_machine() -> None:
    quietness = Quietness()
    machine = Machine.read()
    assert machine.cpu
    assert machine.num_cores == len(os.sched_getaffinity(0))
    assert machine.versions["kobart-triton"] == "0.1.0"
    assert 0 <= quietness.read()["steal_percent"] <= 100


@dataclass(frozen=True)
class Moment:
    time_s: float
    cpu_s: float  # that a process of one thread has used, as the scheduler counts it

    @classmethod
    def of(cls, pid: int) -> Moment:
        used_ns = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        return cls(time.monotonic(), used_ns / 1e9)


def test_usage_of_a_session() -> None:
    """However little of a core it gets."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline()
            before = Moment.of(process.pid)
            with UsageSampler(process.pid) as sampler:
                first = Moment.of(process.pid)
                wait_until(lambda: Moment.of(process.pid).cpu_s > first.cpu_s + CPU_S)
                last = Moment.of(process.pid)
            after = Moment.of(process.pid)
        finally:
            process.kill()
    # What was sampled lies between what was seen inside of the block and around it.
    least_s, most_s = last.cpu_s - first.cpu_s - TICK_S, after.cpu_s - before.cpu_s + TICK_S
    assert sampler.usage.cpu_percent >= 100 * least_s / (after.time_s - before.time_s)
    assert sampler.usage.cpu_percent <= 100 * most_s / (last.time_s - first.time_s)
    assert 60 < sampler.usage.peak_memory_mb < 200


def test_a_session_that_is_gone_uses_nothing() -> None:
    with UsageSampler(2**22) as sampler:
        pass
    assert (sampler.usage.cpu_percent, sampler.usage.peak_memory_mb) == (0, 0)
