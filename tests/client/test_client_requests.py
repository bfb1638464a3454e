"""Both clients against the real server with the scripted front model."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient

from client import (
    ModelNotReadyError,
    RetryPolicy,
    ServerError,
    ServerUnreachableError,
    Summary,
)
from kobart_runtime.errors import (
    ConfigError,
    DeadlineExceededError,
    InvalidArgumentError,
    KobartError,
    OverloadedError,
    RequestCancelledError,
)
from server.supervisor import TritonServer, free_ports
from tests.patience import PATIENCE_S, before_patience_ends

pytestmark = pytest.mark.triton

PERF_INPUT = Path(__file__).parents[2] / "assets" / "perf_input.json"
Count = Callable[[str], int]
WaitForCount = Callable[[str, int], None]


def test_unary_answer_is_typed(client: Any) -> None:
    assert client.summarize("echo 안녕 하세요 🤣") == Summary(
        text="안녕 하세요 🤣",
        finish_reason="stop",
        num_input_tokens=100,
        num_output_tokens=3,
        truncated=False,
        output_ids=(2, 3, 1),
    )


@pytest.mark.parametrize("verb", ["echo", "late"])
def test_stream_equals_unary(client: Any, verb: str) -> None:
    text = f"{verb} 긴 회의 끝에 결정 했다"
    *pieces, last = client.stream(text)
    assert "".join(chunk.text for chunk in [*pieces, last]) == "긴 회의 끝에 결정 했다"
    assert [chunk.num_output_tokens for chunk in [*pieces, last]] == [1, 2, 3, 4, 5]
    assert [chunk.summary for chunk in pieces] == [None] * 4
    assert last.summary == client.summarize(text)


def test_settings_arrive_and_the_rest_is_left_out(client: Any) -> None:
    given = {"num_beams": 2, "length_penalty": 2, "early_stopping": False}
    seen = json.loads(client.summarize("settings", timeout_s=PATIENCE_S, **given).text)
    assert 0.9e6 * PATIENCE_S < seen.pop("timeout_us") <= 1e6 * PATIENCE_S
    assert seen == {"num_beams": 2, "length_penalty": 2.0, "early_stopping": False}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("INVALID_ARGUMENT", InvalidArgumentError),
        ("UNAVAILABLE", OverloadedError),
        ("CANCELLED", RequestCancelledError),
        ("DEADLINE_EXCEEDED", DeadlineExceededError),
        ("INTERNAL", ServerError),
    ],
)
@pytest.mark.parametrize("method", ["summarize", "stream"])
def test_errors_of_the_model_are_typed(
    client: Any, method: str, code: str, error: type[KobartError]
) -> None:
    with pytest.raises(error) as caught:
        list(getattr(client, method)(f"fail {code} num_beams must be 1..8, got 12"))
    assert type(caught.value) is error
    assert caught.value.status_message == f"{code}: num_beams must be 1..8, got 12"


def test_errors_that_are_not_the_models_are_server_errors(client: Any) -> None:
    with pytest.raises(ServerError, match="CUDA died"):
        client.summarize("raw CUDA died")
    with pytest.raises(ServerError, match="after 0 responses and before the last"):
        client.summarize("empty")


def test_overload_is_retried_with_backoff(client: Any, count: Count) -> None:
    key = uuid.uuid4().hex
    started = time.monotonic()
    assert client.summarize(f"overload 3 {key}").text == key
    assert time.monotonic() - started >= 0.5 * (0.02 + 0.04 + 0.08)
    assert count(key) == 4


def test_overload_ends_with_the_servers_message(client: Any, count: Count) -> None:
    key = uuid.uuid4().hex
    with pytest.raises(OverloadedError, match="256 requests wait"):
        client.summarize(f"overload 99 {key}")
    assert count(key) == 4


def test_no_retry_past_the_deadline(triton: TritonServer, make_client: Any, count: Count) -> None:
    key = uuid.uuid4().hex
    never_s = 10 * PATIENCE_S
    retry = RetryPolicy(initial_backoff_s=never_s, max_backoff_s=never_s)
    slow = make_client(triton.grpc_url, retry=retry)
    with pytest.raises(OverloadedError):
        slow.summarize(f"overload 99 {key}")
    assert count(key) == 1


@pytest.mark.parametrize("method", ["summarize", "stream"])
def test_a_deadline_cancels_on_the_server(
    client: Any, method: str, count: Count, wait_for_count: WaitForCount
) -> None:
    before, arrived, timeout_s = count("cancelled"), count("hanging"), 0.03
    while count("hanging") == arrived:  # more time, until it is enough for the way there
        timeout_s *= 10
        with pytest.raises(DeadlineExceededError, match=rf"no summary within {timeout_s:g} s"):
            list(getattr(client, method)("hang", timeout_s=timeout_s))
    wait_for_count("cancelled", before + 1)


def test_leaving_a_stream_early_cancels_on_the_server(
    client: Any, count: Count, wait_for_count: WaitForCount
) -> None:
    before = count("cancelled")
    chunks = client.stream("hang")
    assert next(chunks).text == "first"
    chunks.close()
    wait_for_count("cancelled", before + 1)


def test_many_keeps_order_and_reports_progress(client: Any) -> None:
    progress: list[tuple[int, int]] = []
    texts = [f"sleep {(7 - i) * 0.03} 문서 {i}" for i in range(8)]
    summaries = client.summarize_many(texts, on_progress=lambda *seen: progress.append(seen))
    assert [summary.text for summary in summaries] == [f"문서 {i}" for i in range(8)]
    assert progress == [(i, 8) for i in range(1, 9)]
    assert client.summarize_many([]) == []


def test_sixty_four_at_once(client: Any) -> None:
    """None is answered before the last has arrived."""
    meet = f"meet {uuid.uuid4().hex} 64"
    texts = [f"{meet} echo {i}" for i in range(64)]
    summaries = client.summarize_many(texts, concurrency=64)
    assert [summary.text for summary in summaries] == [str(i) for i in range(64)]


def test_concurrency_is_bounded(client: Any) -> None:
    started = time.monotonic()
    client.summarize_many(["sleep 0.2 x"] * 6, concurrency=2)
    assert time.monotonic() - started >= 0.6


def test_first_error_of_many_cancels_the_rest(
    client: Any, count: Count, wait_for_count: WaitForCount
) -> None:
    before = count("cancelled")
    meet = f"meet {uuid.uuid4().hex} 3"
    texts = [f"{meet} hang", f"{meet} hang", "sleep 0.3 fine", f"{meet} fail INTERNAL boom"]
    with pytest.raises(ServerError, match="boom"):
        client.summarize_many([*texts, "hang", *["echo no"] * 100], concurrency=4)
    wait_for_count("cancelled", before + 2)


def test_errors_of_many_in_their_place(client: Any) -> None:
    texts = ["echo a", "fail INVALID_ARGUMENT text_input is blank", "echo b"]
    first, second, third = client.summarize_many(texts, return_errors=True)
    assert (first.text, third.text) == ("a", "b")
    assert isinstance(second, InvalidArgumentError)


def test_mistakes_are_found_before_anything_is_sent(client: Any, count: Count) -> None:
    before = count("requests")
    with pytest.raises(InvalidArgumentError, match="unknown setting num_beam: valid are num_beams"):
        client.stream("echo a", num_beam=4)
    with pytest.raises(InvalidArgumentError, match="text must be a str, got int"):
        client.summarize_many(["echo a", 7])
    with pytest.raises(InvalidArgumentError, match="wrap it"):
        client.summarize_many("echo a")
    with pytest.raises(ConfigError, match="concurrency must be at least 1, got 0"):
        client.summarize_many(["echo a"], concurrency=0)
    with pytest.raises(ConfigError, match="timeout_s must be above 0"):
        client.summarize("echo a", timeout_s=float("nan"))
    assert count("requests") == before + 1  # the counting itself


def test_nothing_listens(make_client: Any) -> None:
    url = f"127.0.0.1:{free_ports(1)[0]}"
    client = make_client(url, retry=RetryPolicy())
    assert not client.is_ready()
    with (
        before_patience_ends(),
        pytest.raises(ServerUnreachableError, match=f"{url}.*kobart-serve"),
    ):
        client.summarize("echo a")


def test_the_http_port_is_not_the_grpc_port(triton: TritonServer, make_client: Any) -> None:
    client = make_client(triton.http_url.removeprefix("http://"))
    with pytest.raises(ServerUnreachableError, match="gRPC port is usually 8001"):
        client.summarize("echo a")


def test_a_port_that_never_answers(make_client: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = make_client(f"127.0.0.1:{silent.getsockname()[1]}")
        with before_patience_ends(), pytest.raises(ServerUnreachableError):
            client.summarize("echo a")


def test_a_model_that_does_not_exist(triton: TritonServer, make_client: Any) -> None:
    url = triton.grpc_url
    client = make_client(url, model="kobard")
    assert not client.is_ready()
    for method in (client.summarize, lambda text: list(client.stream(text))):
        with pytest.raises(ModelNotReadyError, match=f"'kobard' is not loaded at {url}"):
            method("echo a")
    with pytest.raises(ModelNotReadyError):
        client.check_ready()


def test_a_model_that_is_being_reloaded(triton: TritonServer, make_client: Any) -> None:
    client = make_client(triton.grpc_url, retry=RetryPolicy(max_attempts=10_000))
    assert client.is_ready(timeout_s=PATIENCE_S)
    with InferenceServerClient(triton.grpc_url) as control:
        headers = triton.admin_key.grpc_headers
        control.unload_model("kobart", headers=headers)
        try:
            assert not client.is_ready()
        finally:
            load = partial(control.load_model, "kobart", headers=headers)
            reload = threading.Thread(target=load)
            reload.start()
        assert client.summarize("echo back").text == "back"
        reload.join()
    assert client.is_ready(timeout_s=PATIENCE_S)


def test_perf_analyzers_input_is_the_contracts(client: Any) -> None:
    for entry in json.loads(PERF_INPUT.read_text(encoding="utf-8"))["data"]:
        values = {name: value for name, (value,) in entry.items()}
        text = values.pop("text_input")
        assert values.pop("stream") is True
        assert values["num_beams"] == 4
        assert [*client.stream(text, **values)][-1].summary.text == text
