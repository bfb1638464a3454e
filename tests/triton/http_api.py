"""Triton's HTTP endpoints as any program without a client library calls them."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from server.supervisor import TritonServer
from tests.patience import PATIENCE_S, wait_until
from tests.server.served import Served

_LONGER_THAN_A_COPY_S = 0.7  # metrics are copied to Triton twice a second
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


def settled_metrics(server: TritonServer | Served) -> dict[str, float]:
    """The metrics once nothing is on its way and two looks, with a copy in between, are equal."""
    looks = [metrics(server)]

    def is_settled() -> bool:
        # As many programs as want a core may come before the one that copies.
        time.sleep(_LONGER_THAN_A_COPY_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
        looks.append(metrics(server))
        return looks[-1] == looks[-2] and is_idle(looks[-1])

    wait_until(is_settled)
    return looks[-1]


def is_idle(values: Mapping[str, float]) -> bool:
    """Whether every request was answered and no slot or place in the queue is taken."""
    if not values:  # the model has not yet told of itself
        return False
    answered = sum(values[f"requests_{name}"] for name in _ANSWERED)
    return (
        values["requests_received"] == answered
        and values["requests_active"] == values["requests_waiting"] == 0
    )
