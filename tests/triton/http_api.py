"""Triton's HTTP endpoints as any program without a client library calls them."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from server.supervisor import TritonServer
from tests.patience import PATIENCE_S
from tests.server.served import Served

_METRIC = re.compile(r"^kobart_(\w+)\{.*\} (\S+)$", re.MULTILINE)
_ANSWERED = ("finished", "cancelled", "rejected", "failed")


def post(server: TritonServer, path: str, body: bytes) -> tuple[int, str]:
    """Status and body of a POST."""
    request = urllib.request.Request(f"{server.http_url}/v2/{path}", data=body)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.status, response.read().decode("utf-8")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode("utf-8")


def generate(server: TritonServer, model: str = "kobart", **fields: object) -> dict[str, Any]:
    """The answer of /generate, whatever its status."""
    body = json.dumps(fields).encode()
    answer: dict[str, Any] = json.loads(post(server, f"models/{model}/generate", body)[1])
    return answer


def generate_stream(server: TritonServer, **fields: object) -> list[dict[str, Any]]:
    """The server-sent events of /generate_stream."""
    body = json.dumps({**fields, "stream": True}).encode()
    status, text = post(server, "models/kobart/generate_stream", body)
    assert status == 200, text
    *events, rest = text.split("\n\n")
    assert rest == ""
    assert all(event.startswith("data: ") for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def metrics(server: TritonServer | Served) -> dict[str, float]:
    """The front model's metrics by name without `kobart_`."""
    with urllib.request.urlopen(server.metrics_url, timeout=PATIENCE_S) as response:
        text = response.read().decode("utf-8")
    return {name: float(value) for name, value in _METRIC.findall(text)}


def settled_metrics(server: TritonServer) -> dict[str, float]:
    """The metrics once nothing is on its way; they are copied to Triton twice a second."""
    deadline = time.monotonic() + PATIENCE_S
    last: dict[str, float] = {}
    seen = metrics(server)
    while last != seen or not is_idle(seen):
        assert time.monotonic() < deadline, f"requests are still on their way: {seen}"
        time.sleep(0.7)
        last, seen = seen, metrics(server)
    return seen


def is_idle(values: Mapping[str, float]) -> bool:
    """Whether every request was answered and no slot or place in the queue is taken."""
    answered = sum(values[f"requests_{name}"] for name in _ANSWERED)
    return (
        values["requests_received"] == answered
        and values["requests_active"] == values["requests_waiting"] == 0
    )
