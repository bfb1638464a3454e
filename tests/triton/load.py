"""Requests that take long, and a server that is busy with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from server.supervisor import TritonServer
from tests.patience import wait_until
from tests.triton.grpc_stream import infer_request, stream
from tests.triton.http_api import metrics, settled_metrics

TEXT = "회의는 내일 오후 두 시로 미루기로 했다."
LONG = {"num_beams": 8, "max_new_tokens": 1000, "min_new_tokens": 1000, "no_repeat_ngram_size": 0}


def long_request(parameters: Mapping[str, int] | None = None, **values: Any) -> Any:
    return infer_request({"text_input": TEXT, **LONG, **values}, parameters, model="narrow")


@contextmanager
def waiting(server: TritonServer, count: int) -> Iterator[ExitStack]:
    """The only slot is taken, and so many requests wait for it; closing the stack cancels all."""
    settled_metrics(server)  # what is seen from here on is not what was before
    with ExitStack() as stack:
        stack.enter_context(stream(server.grpc_url, long_request()))
        wait_until(lambda: metrics(server)["requests_active"] == 1)
        for _ in range(count):
            stack.enter_context(stream(server.grpc_url, long_request()))
        wait_until(lambda: metrics(server)["requests_waiting"] == count)
        yield stack


@contextmanager
def counted(server: TritonServer, **expected: int) -> Iterator[None]:
    """Asserts by how much counters have moved once all is quiet."""
    before = settled_metrics(server)
    yield
    after = settled_metrics(server)
    moved = {name: int(after[f"requests_{name}"] - before[f"requests_{name}"]) for name in expected}
    assert moved == expected
