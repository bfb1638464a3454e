"""Two load generators that share no code put the same load on one server.

That they tell the same of its speed is in test_speed.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest

from client.perf.driver import PerfAnalyzerDriver
from client.perf.input_data import perf_input, write_json
from client.perf.load_generator import LoadGenerator
from client.perf.options import DISTRIBUTIONS, Concurrency, RequestRate
from client.perf.records import RequestRecord, figures
from client.perf_analyzer import PerfAnalyzerError, find_perf_analyzer
from kobart_runtime.settings import GenerationSettings
from server.supervisor import TritonServer
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.triton

NUM_TOKENS = 32
# Summaries of one length for all: what is compared is the measuring, not the luck of the draw.
# And of many beams: the generators share two cores with the server, and its work must outweigh
# theirs, or the one in Python slows what it measures (greedy, by 9 %).
SETTINGS = GenerationSettings(
    num_beams=8, max_new_tokens=NUM_TOKENS, min_new_tokens=NUM_TOKENS, no_repeat_ngram_size=0
)
CONCURRENCY = 4
NUM_REQUESTS = 24
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
        url=triton.grpc_url,
        model="kobart",
        documents=documents,
        settings=settings,
        timeout_s=PATIENCE_S,
    )


def most_in_flight(records: Sequence[RequestRecord]) -> int:
    """The most requests that were on their way at one moment."""
    starts = [(record.start_s, 1) for record in records]
    ends = [(record.chunks[-1].time_s, -1) for record in records]
    return max(accumulate(step for _, step in sorted(starts + ends)))


def test_both_keep_as_many_in_flight_as_asked_for(
    perf_analyzer: PerfAnalyzerDriver, asyncio_load: LoadGenerator
) -> None:
    for driver in (perf_analyzer, asyncio_load):
        records = driver.measure(Concurrency(CONCURRENCY), num_requests=NUM_REQUESTS, num_warmup=0)
        assert len(records) == NUM_REQUESTS
        assert most_in_flight(records) == CONCURRENCY
        found = figures(records)
        assert found.num_failed == 0
        assert found.output_tokens_per_s == pytest.approx(NUM_TOKENS * found.requests_per_s)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_both_send_at_a_rate_and_wait_for_no_answer(
    perf_analyzer: PerfAnalyzerDriver, asyncio_load: LoadGenerator, distribution: str
) -> None:
    """A server that has not answered the first one is sent the next."""
    load = RequestRate(20.0, distribution=distribution)
    for driver in (perf_analyzer, asyncio_load):
        records = driver.measure(load, num_requests=20, num_warmup=0)
        assert len(records) == 20
        assert figures(records, is_rate=True).num_failed == 0
        assert most_in_flight(records) > 1


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
