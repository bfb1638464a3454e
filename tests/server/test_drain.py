from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.server.echo_build import make_build
from tests.server.served import EchoStream, Served, wait_until

pytestmark = pytest.mark.triton
Serve = Callable[..., Served]
REQUEST_S = 1.5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_http_requests_in_flight_are_answered(
    build: Path, serve: Serve, number: signal.Signals
) -> None:
    served = serve(build).wait_ready()
    with ThreadPoolExecutor(4) as callers:
        answers = [callers.submit(served.generate, f"{REQUEST_S} {i}") for i in range(4)]
        time.sleep(0.5)
        served.signal(number)
        time.sleep(0.3)
        with pytest.raises(AssertionError, match="no available versions"):
            served.generate("0 too late")
        assert [answer.result(timeout=10) for answer in answers] == ["0", "1", "2", "3"]
    assert served.wait_exit() == 0


def test_grpc_streams_in_flight_are_answered(build: Path, serve: Serve) -> None:
    served = serve(build).wait_ready()
    streams = [EchoStream(served.grpc_port) for _ in range(3)]
    for i, stream in enumerate(streams):
        stream.send(f"{REQUEST_S} {i}")
    time.sleep(0.5)
    served.signal(signal.SIGTERM)
    for i, stream in enumerate(streams):
        assert stream.receive() == str(i)
        stream.close()
    assert served.wait_exit() == 0
    assert served.stderr.endswith("kobart-serve: stopped\n")


def test_an_answered_stream_left_open_does_not_hold_it_up(build: Path, serve: Serve) -> None:
    served = serve(build).wait_ready()
    stream = EchoStream(served.grpc_port)
    stream.send(f"{REQUEST_S} kept")
    time.sleep(0.5)
    stopping = time.monotonic()
    served.signal(signal.SIGTERM)
    assert stream.receive() == "kept"
    assert served.wait_exit() == 0
    assert time.monotonic() - stopping < 15
    assert served.stderr.endswith("kobart-serve: stopped\n")
    stream.close()


def test_a_request_longer_than_the_exit_timeout_is_cut(build: Path, serve: Serve) -> None:
    served = serve(build, "--exit-timeout-s", "1").wait_ready()
    stream = EchoStream(served.grpc_port)
    stream.send("20 never")
    time.sleep(0.3)
    stopping = time.monotonic()
    assert served.signal(signal.SIGTERM).wait_exit() == 0
    assert time.monotonic() - stopping < 5
    assert "without an answer" in served.stderr
    stream.close()


def test_a_server_that_dies_while_it_drains_is_a_failure(build: Path, serve: Serve) -> None:
    served = serve(build).wait_ready()
    stream = EchoStream(served.grpc_port)
    stream.send("20 never")
    time.sleep(0.3)
    served.signal(signal.SIGTERM)
    wait_until(lambda: "answered first" in served.stderr, 5)
    os.kill(served.server_pid, signal.SIGKILL)
    assert served.wait_exit() == 1
    assert served.stderr.endswith("tritonserver died (killed by SIGKILL)\n")
    stream.close()


def test_a_signal_before_it_is_ready_stops_it(build: Path, serve: Serve) -> None:
    served = serve(build)
    time.sleep(0.4)
    assert served.signal(signal.SIGTERM).wait_exit() in (0, -signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait(build: Path, serve: Serve, number: signal.Signals) -> None:
    served = serve(build, "--exit-timeout-s", "600").wait_ready()
    server = served.server_pid
    stream = EchoStream(served.grpc_port)
    stream.send("600 never")
    wait_until(lambda: served.received() == 1, 30)
    served.signal(number)
    wait_until(lambda: "accepted requests are answered first" in served.stderr, 30)
    assert served.process.poll() is None
    served.signal(number)
    assert served.wait_exit() == 1
    assert served.stderr.endswith(
        "kobart-serve: stopped at once: accepted requests may be without an answer\n"
    )
    assert not Path(f"/proc/{server}").exists()


def test_a_signal_while_it_starts_stops_it(tmp_path: Path, serve: Serve) -> None:
    served = serve(make_build(tmp_path / "build", load_seconds=600))
    wait_until(lambda: "tritonserver" in served.children, 30)
    assert served.signal(signal.SIGINT).wait_exit() == 0
    assert served.stderr == "kobart-serve: stopped before it was ready\n"
