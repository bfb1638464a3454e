"""Closing, cancelling and what each client leaves behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from contextlib import aclosing

import pytest

from client import AsyncKobartClient, ClientClosedError, KobartClient
from server.supervisor import TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.timeout(60)]

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
    before = count("cancelled")
    client = KobartClient(triton.grpc_url)
    timer = threading.Timer(0.3, client.close)
    timer.start()
    with pytest.raises(ClientClosedError):
        client.summarize("hang")
    timer.join()
    wait_for_count("cancelled", before + 1)


def test_no_thread_outlives_a_client(triton: TritonServer) -> None:
    before = set(threading.enumerate())
    with KobartClient(triton.grpc_url) as client:
        client.summarize_many([f"echo {i}" for i in range(20)])
        next(client.stream("hang"))
    deadline = time.monotonic() + 3
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)
    gc.collect()  # a ResourceWarning would be an error


def test_a_cancelled_task_cancels_its_request(
    triton: TritonServer, count: Count, wait_for_count: WaitForCount
) -> None:
    async def use() -> None:
        async with AsyncKobartClient(triton.grpc_url) as client:
            task = asyncio.ensure_future(client.summarize_many(["hang"] * 3))
            await asyncio.sleep(0.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    before = count("cancelled")
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
