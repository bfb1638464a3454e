"""What is promised in seconds, on the real server: `make speed`, on a machine that does no more."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.cli import main
from client import KobartClient
from client.perf.driver import PerfAnalyzerDriver
from client.perf.load_generator import LoadGenerator
from client.perf.options import DISTRIBUTIONS, Concurrency, RequestRate
from client.perf.records import figures
from client.report.document import read_report
from kobart_runtime.errors import KobartError
from server.stubs import find_stubs
from server.supervisor import TritonServer
from tests.conftest import REPOSITORY
from tests.patience import wait_until
from tests.server.served import Served
from tests.triton.conftest import NO_RETRY, running
from tests.triton.load import TEXT, waiting
from tests.triton.test_health import stopped
from tests.triton.test_limits import refuse_over_grpc, refuse_over_http
from tests.triton.test_load import CONCURRENCY, asyncio_load, documents, perf_analyzer

__all__ = ["asyncio_load", "documents", "perf_analyzer"]  # fixtures

pytestmark = [pytest.mark.triton, pytest.mark.speed]

READY_S = 10.0
AT_ONCE_S = 0.05
NUM_REFUSALS = 15
SERVES_AGAIN_S = 10.0
PROBE_S = 1.5
START_UP_S = 8.0  # of Python
QUICK_REPORT_S = 60.0
NUM_REQUESTS = 80
TOLERANCE = 0.10
ATTEMPTS = 6


def test_ready_within_ten_seconds(mini_build: Path, serve: Callable[..., Served]) -> None:
    ready = re.match(r"kobart ready in (\S+) s", serve(mini_build).wait_ready().stdout)
    assert ready
    print(f"ready in {ready[1]} s")
    assert float(ready[1]) < READY_S


@pytest.mark.parametrize("refuse", [refuse_over_grpc, refuse_over_http])
def test_a_full_queue_answers_within_50_ms(
    narrow: TritonServer, refuse: Callable[[TritonServer], str]
) -> None:
    seconds = []
    with waiting(narrow, 2):
        for _ in range(NUM_REFUSALS):
            started = time.monotonic()
            assert refuse(narrow).startswith("UNAVAILABLE: 2 requests are waiting, limit 2")
            seconds.append(time.monotonic() - started)
    print(f"refused in {statistics.median(seconds):.3f} s, at most {max(seconds):.3f} s")
    assert statistics.median(seconds) < AT_ONCE_S


def test_a_killed_model_serves_again_within_ten_seconds(
    mini_build: Path, serve: Callable[..., Served]
) -> None:
    served = serve(mini_build).wait_ready()
    url = f"127.0.0.1:{served.grpc_port}"

    def is_answered() -> bool:
        with KobartClient(url, timeout_s=1.0, retry=NO_RETRY) as client:
            try:
                return bool(client.summarize(TEXT, max_new_tokens=2))
            except KobartError:
                return False

    (stub,) = find_stubs(served.server_pid)
    os.kill(stub.pid, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(is_answered)
    seconds = time.monotonic() - killed
    print(f"serves again after {seconds:.1f} s")
    assert seconds < SERVES_AGAIN_S


def test_a_probe_of_a_model_that_hangs_ends_in_time(mini_build: Path, tmp_path: Path) -> None:
    with running(mini_build, tmp_path / "log") as server:
        (stub,) = find_stubs(server.pid)
        command = [sys.executable, "-m", "client.health", "--url", server.grpc_url]
        with stopped(stub.pid):
            started = time.monotonic()
            probe = subprocess.run([*command, "--timeout", str(PROBE_S)], cwd=REPOSITORY)
            seconds = time.monotonic() - started
        server.kill()  # it would wait for the lost request
    assert probe.returncode == 1
    assert seconds < PROBE_S + START_UP_S


def test_a_quick_report_takes_less_than_a_minute(mini_build: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    flags = ("--quick", "--output", str(tmp_path), "--num-beams", "2", "--load", "50")
    assert main(["serve", str(mini_build), *flags]) == 0
    assert time.monotonic() - started < QUICK_REPORT_S
    levels = read_report(tmp_path / "report.json").table("levels")
    assert levels is not None
    rate, p50 = levels.rows[0]["requests"], levels.rows[0]["p50"]
    # One in flight: the rate is that of one request after the other.
    assert rate.median * p50.median == pytest.approx(1000, rel=0.5)  # type: ignore[union-attr]


def agree(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    """Medians of some rounds, in turns; further rounds as long as they do not agree."""
    values: tuple[list[float], list[float]] = ([], [])
    for _ in range(ATTEMPTS):
        values[0].append(first())
        values[1].append(second())
        a, b = map(statistics.median, values)
        if abs(a - b) <= TOLERANCE * b:
            break
    return a, b


def test_both_load_generators_measure_the_same_throughput(
    perf_analyzer: PerfAnalyzerDriver,
    asyncio_load: LoadGenerator,
) -> None:
    def run(driver: PerfAnalyzerDriver | LoadGenerator) -> float:
        records = driver.measure(
            Concurrency(CONCURRENCY), num_requests=NUM_REQUESTS, num_warmup=CONCURRENCY
        )
        found = figures(records)
        assert found.num_failed == 0
        # Little's law: what is in flight is the rate times the time in flight.
        in_flight = found.requests_per_s * found.latency_ms["avg"] / 1000
        assert in_flight == pytest.approx(CONCURRENCY, rel=0.25)
        return found.requests_per_s

    theirs, ours = agree(lambda: run(perf_analyzer), lambda: run(asyncio_load))
    assert theirs == pytest.approx(ours, rel=TOLERANCE)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_both_load_generators_hold_a_request_rate(
    perf_analyzer: PerfAnalyzerDriver,
    asyncio_load: LoadGenerator,
    distribution: str,
) -> None:
    load = RequestRate(6.0, distribution=distribution)
    for driver in (perf_analyzer, asyncio_load):
        records = driver.measure(load, num_requests=20, num_warmup=0)
        starts = [record.start_s for record in records]
        # The last pause lies behind the last request: a Poisson schedule may make it long.
        assert 19 / (max(starts) - min(starts)) == pytest.approx(6.0, rel=0.25)
        assert figures(records, is_rate=True).num_failed == 0
