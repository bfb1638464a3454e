"""The ways in which a caller leaves a request that it has made."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from client import KobartClient
from kobart_runtime.errors import KobartError
from server.supervisor import TritonServer
from tests.chaos.cut_proxy import CutProxy
from tests.conftest import REPOSITORY
from tests.triton.conftest import NO_RETRY
from tests.triton.grpc_stream import infer_request, stream

TEXT = "회의는 내일 오후 두 시로 미루기로 했다."
HTTP_LIMIT_US = 1_500_000  # a dropped HTTP request is noticed by nobody: time ends it
LONGEST_STAY_S = 0.8  # nobody stays longer

Leave = Callable[[TritonServer, random.Random], None]


def random_settings(rng: random.Random) -> dict[str, Any]:
    """Settings with which a summary takes longer than a caller's patience."""
    return {
        "num_beams": rng.choice([1, 2, 4, 8]),
        "max_new_tokens": 1000,
        "min_new_tokens": 1000,
        "no_repeat_ngram_size": 0,
    }


def cancel_the_call(server: TritonServer, rng: random.Random) -> None:
    values = {"text_input": TEXT, "stream": rng.random() < 0.5, **random_settings(rng)}
    with stream(server.grpc_url, infer_request(values)):
        time.sleep(rng.uniform(0.0, LONGEST_STAY_S))


def leave_the_stream(server: TritonServer, rng: random.Random) -> None:
    """After some chunks; it has ended by itself if the queue was full."""
    with (
        KobartClient(server.grpc_url, retry=NO_RETRY) as client,
        contextlib.suppress(KobartError),
    ):
        settings = {**random_settings(rng), "num_beams": 1}
        for number, _ in enumerate(client.stream(TEXT, **settings)):
            if number == rng.randrange(5):
                break


def cut_the_connection(server: TritonServer, rng: random.Random) -> None:
    proxy = CutProxy(int(server.grpc_url.rpartition(":")[2]))
    values = {"text_input": TEXT, "stream": rng.random() < 0.5, **random_settings(rng)}
    with contextlib.suppress(grpc.RpcError), stream(proxy.url, infer_request(values)) as call:
        time.sleep(rng.uniform(0.05, LONGEST_STAY_S))
        proxy.cut()
        list(call)


def drop_http(server: TritonServer, rng: random.Random) -> None:
    fields = {"text_input": TEXT, "timeout": HTTP_LIMIT_US, **random_settings(rng)}
    body = json.dumps(fields).encode()
    head = f"POST /v2/models/kobart/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    port = int(server.http_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        time.sleep(rng.uniform(0.0, LONGEST_STAY_S))


_MANY_CALLS = """
import sys, threading
from client import KobartClient
client = KobartClient(sys.argv[1])
settings = dict(num_beams=2, max_new_tokens=1000, min_new_tokens=1000, no_repeat_ngram_size=0)
for _ in range(int(sys.argv[2])):
    threading.Thread(target=client.summarize, args=(sys.argv[3],), kwargs=settings).start()
print("called", flush=True)
"""


def kill_the_client(server: TritonServer, rng: random.Random, num_requests: int) -> None:
    """A process that waits for several answers and is killed."""
    command = [sys.executable, "-c", _MANY_CALLS, server.grpc_url, str(num_requests), TEXT]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(rng.uniform(0.1, LONGEST_STAY_S))
        process.send_signal(signal.SIGKILL)


WAYS: Iterable[Leave] = (
    cancel_the_call,
    cancel_the_call,
    leave_the_stream,
    cut_the_connection,
    drop_http,
)
