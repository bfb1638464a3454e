from __future__ import annotations

import os
import subprocess
import sys
import time

from client.perf.machine import Machine, Quietness
from client.perf.usage import UsageSampler

BUSY = "data = bytearray(60_000_000)\nwhile True: pass"


def test_machine() -> None:
    quietness = Quietness()
    machine = Machine.read()
    assert machine.cpu
    assert machine.num_cores == len(os.sched_getaffinity(0))
    assert machine.versions["kobart-triton"] == "0.1.0"
    assert 0 <= quietness.read()["steal_percent"] <= 100


def test_usage_of_a_session() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True) as process:
        try:
            time.sleep(0.5)
            with UsageSampler(process.pid) as sampler:
                time.sleep(1.0)
        finally:
            process.kill()
    assert 1 < sampler.usage.cpu_percent < 130  # other programs may want the same core
    assert 60 < sampler.usage.peak_memory_mb < 200


def test_a_session_that_is_gone_uses_nothing() -> None:
    with UsageSampler(2**22) as sampler:
        pass
    assert (sampler.usage.cpu_percent, sampler.usage.peak_memory_mb) == (0, 0)
