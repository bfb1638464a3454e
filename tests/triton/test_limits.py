"""The limits of a build through the real server: memory of K/V, the queue, seconds of a request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from client import KobartClient
from server.supervisor import TritonServer
from tests.patience import PATIENCE_S
from tests.triton.conftest import running
from tests.triton.grpc_stream import error_of, infer_request, stream
from tests.triton.http_api import generate, metrics, settled_metrics
from tests.triton.limited import limited_copy
from tests.triton.load import LONG, counted, long_request, waiting

pytestmark = pytest.mark.triton

TEXT = "내일 오후 두 시에 만나기로 했다."
MEBIBYTE = 1 << 20
NUM_REFUSALS = 15
MAX_SECONDS = 0.5


@pytest.fixture(scope="module")
def small(mini_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """kobart-mini with 8 MiB for keys and values: a usual request takes up to 3."""
    folder = tmp_path_factory.mktemp("small")
    build = limited_copy(mini_build, folder / "build", max_cache_mib=8)
    with running(build, folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def hurried(narrow_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """The narrow build with half a second for each request."""
    folder = tmp_path_factory.mktemp("hurried")
    build = limited_copy(narrow_build, folder / "build", max_request_seconds=MAX_SECONDS)
    with running(build, folder / "log") as server:
        yield server
        server.kill()


def test_a_request_that_could_never_fit_is_refused(small: TritonServer) -> None:
    values: dict[str, Any] = {"text_input": TEXT, "num_beams": 8, "max_new_tokens": 250}
    told = error_of(small.grpc_url, infer_request(values))
    assert told.startswith("INVALID_ARGUMENT: ")
    assert "8 beams of 250 new tokens take up to 9.1 MiB of keys and values, limit 8.0" in told
    assert "--max-cache-mib" in told
    assert generate(small, **values) == {"error": told}
    assert generate(small, text_input=TEXT, max_new_tokens=8)["finish_reason"]


def test_requests_wait_until_they_fit(small: TritonServer, dialogues: list[str]) -> None:
    """All are answered as if alone, and admitted K/V never comes to more than the limit."""
    seen: list[dict[str, float]] = []
    with (
        KobartClient(small.grpc_url, timeout_s=PATIENCE_S) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        alone = [client.summarize(text, num_beams=4, max_new_tokens=48) for text in dialogues[:4]]
        many = pool.submit(
            client.summarize_many,
            dialogues[:4] * 8,
            concurrency=32,
            num_beams=4,
            max_new_tokens=48,
        )
        while not many.done():
            seen.append(metrics(small))
            time.sleep(0.05)
    assert many.result() == alone * 8
    assert max(values["requests_waiting"] for values in seen) > 0
    assert max(values["requests_active"] for values in seen) < 32
    largest = max(values["cache_bytes"] for values in seen)
    settled = settled_metrics(small)  # the first look may come before the first copy to /metrics
    assert 0 < largest <= settled["cache_limit_bytes"] == 8 * MEBIBYTE
    assert settled["cache_bytes"] == 0


def refuse_over_grpc(server: TritonServer) -> str:
    with stream(server.grpc_url, long_request()) as call:
        return str(next(call).error_message)


def refuse_over_http(server: TritonServer, **parameters: int) -> str:
    return str(generate(server, "narrow", text_input=TEXT, **parameters)["error"])


@pytest.mark.parametrize("refuse", [refuse_over_grpc, refuse_over_http])
def test_a_full_queue_refuses_all_while_it_is_full(
    narrow: TritonServer, refuse: Callable[[TritonServer], str]
) -> None:
    """How soon is measured in test_speed.py; the three that fill it are then cancelled."""
    with (
        counted(narrow, received=3 + NUM_REFUSALS, cancelled=3, rejected=NUM_REFUSALS),
        waiting(narrow, 2),
    ):
        for _ in range(NUM_REFUSALS):
            assert refuse(narrow).startswith("UNAVAILABLE: 2 requests are waiting, limit 2")


@pytest.mark.parametrize("timeout_us", [0, 60_000_000])
def test_no_request_may_take_longer_than_the_build_allows(
    hurried: TritonServer, timeout_us: int
) -> None:
    """While it is decoded and in the queue, over both protocols, whatever the caller allows."""
    told = f"DEADLINE_EXCEEDED: the request took longer than {MAX_SECONDS} s"
    limits = {"timeout": timeout_us}
    with counted(hurried, received=3, cancelled=3), ThreadPoolExecutor(3) as pool:
        requests = [
            *(pool.submit(error_of, hurried.grpc_url, long_request(limits)) for _ in range(2)),
            pool.submit(refuse_over_http, hurried, **LONG, **limits),
        ]
        for request in requests:
            assert request.result(PATIENCE_S).startswith(told)
