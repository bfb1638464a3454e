"""Requests that end early: cancelled, out of time, or refused because the queue is full."""

from __future__ import annotations

import pytest

from client import KobartClient, RetryPolicy
from kobart_runtime.errors import DeadlineExceededError, OverloadedError
from server.supervisor import TritonServer
from tests.patience import PATIENCE_S, wait_until
from tests.triton.grpc_stream import RawResponse, error_of, stream
from tests.triton.http_api import generate, metrics
from tests.triton.load import LONG, TEXT, counted, long_request, waiting

pytestmark = pytest.mark.triton

TIMEOUT_US = 300_000


def test_leaving_a_stream_frees_the_slot(narrow: TritonServer) -> None:
    with (
        counted(narrow, received=2, cancelled=1, finished=1),
        KobartClient(narrow.grpc_url, model="narrow") as client,
    ):
        for chunk in client.stream(TEXT, **{**LONG, "num_beams": 1}):
            assert chunk.summary is None
            break
        client.summarize(TEXT, max_new_tokens=2)


def test_cancelled_in_the_queue(narrow: TritonServer) -> None:
    with counted(narrow, received=2, cancelled=2), waiting(narrow, 0):
        with stream(narrow.grpc_url, long_request()):
            wait_until(lambda: metrics(narrow)["requests_waiting"] == 1)
        wait_until(lambda: metrics(narrow)["requests_waiting"] == 0)
        assert metrics(narrow)["requests_active"] == 1


def test_a_full_queue_refuses_at_once(narrow: TritonServer) -> None:
    """The three that fill it have not ended when the others are refused: they are cancelled."""
    with counted(narrow, received=6, cancelled=3, rejected=3), waiting(narrow, 2):
        told = error_of(narrow.grpc_url, long_request())
        assert told.startswith("UNAVAILABLE: 2 requests are waiting, limit 2: try again later")
        assert generate(narrow, "narrow", text_input=TEXT) == {"error": told}
        with (
            KobartClient(
                narrow.grpc_url, model="narrow", retry=RetryPolicy(max_attempts=1)
            ) as client,
            pytest.raises(OverloadedError, match="limit 2"),
        ):
            client.summarize(TEXT)
        assert metrics(narrow)["requests_active"] == 1


def test_a_client_that_retries_gets_through(narrow: TritonServer) -> None:
    patient = RetryPolicy(max_attempts=10_000, initial_backoff_s=0.2, max_backoff_s=0.2)
    with KobartClient(narrow.grpc_url, model="narrow", retry=patient) as client:
        summaries = client.summarize_many([TEXT] * 8, concurrency=8, max_new_tokens=8)
    assert len({summary.text for summary in summaries}) == 1


def test_out_of_time_while_decoding(narrow: TritonServer) -> None:
    with counted(narrow, received=2, cancelled=2):
        for told in (
            error_of(narrow.grpc_url, long_request({"timeout": TIMEOUT_US})),
            generate(narrow, "narrow", text_input=TEXT, timeout=TIMEOUT_US, **LONG)["error"],
        ):
            assert told.startswith("DEADLINE_EXCEEDED: the request took longer than 0.3 s")


def test_out_of_time_in_the_queue(narrow: TritonServer) -> None:
    with counted(narrow, received=3, cancelled=3), waiting(narrow, 0):
        for told in (
            error_of(narrow.grpc_url, long_request({"timeout": TIMEOUT_US})),
            generate(narrow, "narrow", text_input=TEXT, timeout=TIMEOUT_US)["error"],
        ):
            assert told.startswith("DEADLINE_EXCEEDED: the request took longer than 0.3 s")
        assert metrics(narrow)["requests_active"] == 1


def test_out_of_time_in_the_midst_of_a_stream(narrow: TritonServer) -> None:
    timeout_us = TIMEOUT_US // 10
    chunks: list[RawResponse] = []
    while not chunks:  # more time, until it is enough for the first of 1,000 tokens
        timeout_us *= 10
        request = long_request({"timeout": timeout_us}, stream=True, num_beams=1)
        with stream(narrow.grpc_url, request) as call:
            *chunks, last = [RawResponse(message) for message in call]
    assert not any(chunk.error for chunk in chunks)
    assert last.error.startswith("DEADLINE_EXCEEDED")


def test_the_clients_own_deadline(narrow: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is told of it, and answers before the client gives up."""
    monkeypatch.setattr("client.exchange.GRACE_S", PATIENCE_S)
    with (
        counted(narrow, received=1, cancelled=1),
        KobartClient(narrow.grpc_url, model="narrow") as client,
        pytest.raises(DeadlineExceededError, match=r"took longer than 0\.3 s"),
    ):
        client.summarize(TEXT, timeout_s=0.3, **LONG)


@pytest.mark.parametrize("timeout", [-5, "soon"])
def test_a_timeout_that_is_none(narrow: TritonServer, timeout: object) -> None:
    told = generate(narrow, "narrow", text_input=TEXT, timeout=timeout)["error"]
    assert told.startswith("INVALID_ARGUMENT: timeout must be")
