"""Closing, cancelling and what each client leaves behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from contextlib import aclosing

import pytest

from client import AsyncKobartClient, ClientClosedError, KobartClient
from server.supervisor import TritonServer
from tests.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.triton

Count = Callable[[str], int]
WaitForCount = Callable[[str, int], None]


def test_closed_client_says_so(triton: TritonServer) -> None:
    with KobartClient(triton.grpc_url) as client:
        assert client.summarize("echo a").text == "a"
    client.close()
    for use in (client.check_ready, lambda: client.summarize("echo a")):
        with pytest.raises(ClientClosedError, match="make a new one"):
            use()
    assert not client.is_ready()


def test_closed_async_client_says_so(triton: TritonServer) -> None:
    async def use() -> None:
        async with AsyncKobartClient(triton.grpc_url) as client:
            assert (await client.summarize("echo a")).text == "a"
        await client.close()
        with pytest.raises(ClientClosedError, match="make a new one"):
            await client.summarize("echo a")

    asyncio.run(use())


def test_never_used_clients_close(triton: TritonServer) -> None:
    KobartClient(triton.grpc_url).close()
    asyncio.run(AsyncKobartClient(triton.grpc_url).close())


def test_close_ends_a_request_of_another_thread(
    triton: TritonServer, count: Count, wait_for_count: WaitForCount
) -> None:
    before, hanging = count("cancelled"), count("hanging") + 1
    client = KobartClient(triton.grpc_url, timeout_s=PATIENCE_S)

    def close_once_it_hangs() -> None:
        wait_for_count("hanging", hanging)
        client.close()

    closer = threading.Thread(target=close_once_it_hangs)
    closer.start()
    with pytest.raises(ClientClosedError):
        client.summarize("hang")
    closer.join()
    wait_for_count("cancelled", before + 1)


def test_no_thread_outlives_a_client(triton: TritonServer) -> None:
    before = set(threading.enumerate())
    with KobartClient(triton.grpc_url) as client:
        client.summarize_many([f"echo {i}" for i in range(20)])
        next(client.stream("hang"))
    wait_until(lambda: set(threading.enumerate()) <= before)
    gc.collect()  # a ResourceWarning would be an error


def test_a_cancelled_task_cancels_its_request(
    triton: TritonServer, count: Count, wait_for_count: WaitForCount
) -> None:
    async def use() -> None:
        async with AsyncKobartClient(triton.grpc_url) as client:
            task = asyncio.ensure_future(client.summarize_many(["hang"] * 3))
            await asyncio.to_thread(wait_for_count, "hanging", hanging)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    before, hanging = count("cancelled"), count("hanging") + 3
    asyncio.run(use())
    wait_for_count("cancelled", before + 3)


@pytest.mark.parametrize("managed", [True, False])
def test_leaving_an_async_loop_cancels(
    triton: TritonServer, count: Count, wait_for_count: WaitForCount, managed: bool
) -> None:
    async def read_one(client: AsyncKobartClient) -> None:
        chunks = client.stream("hang")
        if managed:
            async with aclosing(chunks):
                assert (await anext(chunks)).text == "first"
            return
        async for chunk in chunks:
            assert chunk.text == "first"
            break

    async def use() -> None:
        async with AsyncKobartClient(triton.grpc_url) as client:
            await read_one(client)
            await asyncio.to_thread(wait_for_count, "cancelled", before + 1)

    before = count("cancelled")
    asyncio.run(use())
