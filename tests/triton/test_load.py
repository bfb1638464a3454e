"""Two load generators that share no code must tell the same of one server."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from client.perf.driver import PerfAnalyzerDriver
from client.perf.input_data import perf_input, write_json
from client.perf.load_generator import LoadGenerator
from client.perf.options import DISTRIBUTIONS, Concurrency, RequestRate
from client.perf.records import figures
from client.perf_analyzer import PerfAnalyzerError, find_perf_analyzer
from kobart_runtime.settings import GenerationSettings
from server.supervisor import TritonServer

pytestmark = pytest.mark.triton

# Summaries of one length for all: what is compared is the measuring, not the luck of the draw.
# And of many beams: the generators share two cores with the server, and its work must outweigh
# theirs, or the one in Python slows what it measures (greedy, by 9 %).
SETTINGS = GenerationSettings(
    num_beams=8, max_new_tokens=32, min_new_tokens=32, no_repeat_ngram_size=0
)
CONCURRENCY = 4
NUM_REQUESTS = 80
TOLERANCE = 0.10
ATTEMPTS = 6
UNANSWERABLE = "127.0.0.1:9"


@pytest.fixture(scope="module")
def documents(dialogues: list[str]) -> list[str]:
    return [text[:200] for text in dialogues[:8]]


@pytest.fixture
def perf_analyzer(triton: TritonServer, documents: list[str], tmp_path: Path) -> PerfAnalyzerDriver:
    data = perf_input(documents, SETTINGS, stream=True)
    return PerfAnalyzerDriver(
        analyzer=find_perf_analyzer(),
        url=triton.grpc_url,
        model="kobart",
        input_data=write_json(tmp_path / "input.json", data),
        folder=tmp_path,
        check=triton.check_alive,
    )


@pytest.fixture
def asyncio_load(triton: TritonServer, documents: list[str]) -> LoadGenerator:
    settings = dict(vars(SETTINGS))
    return LoadGenerator(
        url=triton.grpc_url, model="kobart", documents=documents, settings=settings
    )


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


def test_both_measure_the_same_throughput(
    perf_analyzer: PerfAnalyzerDriver, asyncio_load: LoadGenerator
) -> None:
    def run(driver: PerfAnalyzerDriver | LoadGenerator) -> float:
        records = driver.measure(
            Concurrency(CONCURRENCY), num_requests=NUM_REQUESTS, num_warmup=CONCURRENCY
        )
        assert len(records) == NUM_REQUESTS
        found = figures(records)
        assert found.num_failed == 0
        assert found.output_tokens_per_s == pytest.approx(32 * found.requests_per_s)
        # Little's law: what is in flight is the rate times the time in flight.
        in_flight = found.requests_per_s * found.latency_ms["avg"] / 1000
        assert in_flight == pytest.approx(CONCURRENCY, rel=0.25)
        return found.requests_per_s

    theirs, ours = agree(lambda: run(perf_analyzer), lambda: run(asyncio_load))
    assert theirs == pytest.approx(ours, rel=TOLERANCE)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_both_hold_a_request_rate(
    perf_analyzer: PerfAnalyzerDriver, asyncio_load: LoadGenerator, distribution: str
) -> None:
    load = RequestRate(6.0, distribution=distribution)
    for driver in (perf_analyzer, asyncio_load):
        records = driver.measure(load, num_requests=20, num_warmup=0)
        starts = [record.start_s for record in records]
        # The last pause lies behind the last request: a Poisson schedule may make it long.
        assert 19 / (max(starts) - min(starts)) == pytest.approx(6.0, rel=0.25)
        assert figures(records, is_rate=True).num_failed == 0


def test_no_server_is_one_clear_error(
    perf_analyzer: PerfAnalyzerDriver, asyncio_load: LoadGenerator, tmp_path: Path
) -> None:
    lost = replace(perf_analyzer, url=UNANSWERABLE)
    with pytest.raises(PerfAnalyzerError, match=r"(?i)connect"):
        lost.measure(Concurrency(1), num_requests=2, num_warmup=0)
    nobody = replace(asyncio_load, url=UNANSWERABLE)
    (record,) = nobody.measure(Concurrency(1), num_requests=1, num_warmup=0)
    assert "no Triton gRPC server answers" in record.error


def test_a_wrong_model_is_named(perf_analyzer: PerfAnalyzerDriver) -> None:
    other = replace(perf_analyzer, model="bart")
    with pytest.raises(PerfAnalyzerError, match="bart"):
        other.measure(Concurrency(1), num_requests=2, num_warmup=0)
