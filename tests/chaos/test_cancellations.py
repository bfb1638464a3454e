"""Callers that leave at any moment: whatever they had comes back, and nobody else notices."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from client import KobartClient
from server.supervisor import TritonServer
from tests.chaos.disturbances import TEXT, WAYS, kill_the_client
from tests.patience import PATIENCE_S, wait_until
from tests.triton.conftest import NO_RETRY
from tests.triton.held import held_by
from tests.triton.http_api import settled_metrics

pytestmark = pytest.mark.triton

NUM_CALLERS = 12  # above the slots: some wait in the queue
PER_KILLED_CLIENT = 20
ENDS = ("finished", "cancelled", "rejected", "failed")


@pytest.mark.parametrize("count", [80, pytest.param(1000, marks=pytest.mark.chaos)])
def test_callers_that_leave(disturbed: TritonServer, count: int) -> None:
    with KobartClient(disturbed.grpc_url, timeout_s=PATIENCE_S, retry=NO_RETRY) as client:
        expected = client.summarize(TEXT)
        client.summarize_many([TEXT] * NUM_CALLERS, concurrency=NUM_CALLERS)  # warm
        before, held = settled_metrics(disturbed), held_by(disturbed)
        after, moved = before, dict.fromkeys(ENDS, 0)
        while moved["cancelled"] <= count // 2:  # once, unless callers leave before they arrive
            leave(disturbed, count)
            assert client.summarize(TEXT) == expected
            after = settled_metrics(disturbed)
            moved = {end: int(after[f"requests_{end}"] - before[f"requests_{end}"]) for end in ENDS}
    print(moved)
    assert moved["failed"] == 0
    assert sum(moved.values()) == after["requests_received"] - before["requests_received"]
    assert after["requests_active"] == after["requests_waiting"] == after["cache_bytes"] == 0
    wait_until(lambda: held_by(disturbed) == held)
    assert "died" not in disturbed.api.states()["kobart"].reason


def leave(server: TritonServer, count: int) -> None:
    """So many requests whose callers leave, one in ten in a process that is killed."""
    num_killed = count // 10 // PER_KILLED_CLIENT or 1
    ways = itertools.islice(itertools.cycle(WAYS), count - num_killed * PER_KILLED_CLIENT)
    with ThreadPoolExecutor(NUM_CALLERS) as pool:
        callers = [
            pool.submit(way, server, random.Random(number)) for number, way in enumerate(ways)
        ]
        callers += [
            pool.submit(kill_the_client, server, random.Random(number), PER_KILLED_CLIENT)
            for number in range(num_killed)
        ]
        for caller in callers:
            caller.result()
