from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client import KobartClient, RetryPolicy
from server.supervisor import TritonServer, free_ports
from tests.client.blocking_twin import BlockingTwin
from tests.patience import PATIENCE_S, wait_until

FAST_RETRY = RetryPolicy(max_attempts=4, initial_backoff_s=0.02)


@pytest.fixture(scope="session")
def triton() -> Iterator[TritonServer]:
    """The real server with the scripted front model."""
    http_port, grpc_port, metrics_port = free_ports(3)
    with TritonServer(
        Path(__file__).parent / "scripted_repository",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        exit_timeout_s=5.0,
    ) as server:
        yield server


@pytest.fixture(params=[KobartClient, BlockingTwin], ids=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Either client; both behave alike."""
    made: list[Any] = []

    def make(url: str, **options: Any) -> Any:
        client = request.param(url, **{"timeout_s": PATIENCE_S, "retry": FAST_RETRY, **options})
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(triton: TritonServer, make_client: Callable[..., Any]) -> Any:
    return make_client(triton.grpc_url)


@pytest.fixture
def count(triton: TritonServer) -> Iterator[Callable[[str], int]]:
    """How often the scripted model has counted something."""
    with KobartClient(triton.grpc_url, timeout_s=PATIENCE_S) as observer:
        yield lambda key: json.loads(observer.summarize("stats").text).get(key, 0)


@pytest.fixture
def wait_for_count(count: Callable[[str], int]) -> Callable[[str, int], None]:
    def wait(key: str, wanted: int) -> None:
        wait_until(lambda: count(key) >= wanted)

    return wait
