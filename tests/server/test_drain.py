from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S, before_patience_ends, wait_until
from tests.server.echo_build import make_build
from tests.server.served import EchoStream, Served

pytestmark = pytest.mark.triton
Serve = Callable[..., Served]

PATIENT = ("--exit-timeout-s", str(PATIENCE_S))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Requests that begin with this path are answered once the file is there."""
    return tmp_path / "release"


@pytest.fixture(
    params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"]
)
def inherited(request: pytest.FixtureRequest) -> Iterator[None]:
    """A shell starts the jobs of a script's background with SIGINT ignored, `nohup` with SIGHUP."""
    numbers = (signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, request.param) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def wait_for_requests(served: Served, count: int) -> None:
    wait_until(lambda: served.received() == count)


def refuses(served: Served) -> bool:
    try:
        return not served.generate("0 accepted")
    except AssertionError as error:
        return "no available versions" in str(error)


@pytest.mark.usefixtures("inherited")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_http_requests_in_flight_are_answered(
    build: Path, serve: Serve, release: Path, number: signal.Signals
) -> None:
    served = serve(build, *PATIENT).wait_ready()
    with ThreadPoolExecutor(4) as callers:
        answers = [callers.submit(served.generate, f"{release} {i}") for i in range(4)]
        wait_for_requests(served, 4)
        served.signal(number)
        wait_until(lambda: refuses(served))
        release.touch()
        assert [answer.result() for answer in answers] == ["0", "1", "2", "3"]
    assert served.wait_exit() == 0


def test_grpc_streams_in_flight_are_answered(build: Path, serve: Serve, release: Path) -> None:
    served = serve(build, *PATIENT).wait_ready()
    streams = [EchoStream(served.grpc_port) for _ in range(3)]
    for i, stream in enumerate(streams):
        stream.send(f"{release} {i}")
    wait_for_requests(served, 3)
    served.signal(signal.SIGTERM)
    wait_until(lambda: refuses(served))
    release.touch()
    for i, stream in enumerate(streams):
        assert stream.receive() == str(i)
        stream.close()
    assert served.wait_exit() == 0
    assert served.stderr.endswith("kobart-serve: stopped\n")


def test_an_answered_stream_left_open_does_not_hold_it_up(
    build: Path, serve: Serve, release: Path
) -> None:
    served = serve(build, *PATIENT).wait_ready()
    stream = EchoStream(served.grpc_port)
    stream.send(f"{release} kept")
    wait_for_requests(served, 1)
    with before_patience_ends():
        served.signal(signal.SIGTERM)
        wait_until(lambda: refuses(served))
        release.touch()
        assert stream.receive() == "kept"
        assert served.wait_exit() == 0
    assert served.stderr.endswith("kobart-serve: stopped\n")
    stream.close()


def test_a_request_longer_than_the_exit_timeout_is_cut(
    build: Path, serve: Serve, release: Path
) -> None:
    served = serve(build, "--exit-timeout-s", "1").wait_ready()
    stream = EchoStream(served.grpc_port)
    stream.send(f"{release} never")
    wait_for_requests(served, 1)
    assert served.signal(signal.SIGTERM).wait_exit() == 0
    assert "without an answer" in served.stderr
    stream.close()


def test_a_server_that_dies_while_it_drains_is_a_failure(
    build: Path, serve: Serve, release: Path
) -> None:
    served = serve(build, *PATIENT).wait_ready()
    stream = EchoStream(served.grpc_port)
    stream.send(f"{release} never")
    wait_for_requests(served, 1)
    served.signal(signal.SIGTERM)
    wait_until(lambda: "answered first" in served.stderr)
    os.kill(served.server_pid, signal.SIGKILL)
    assert served.wait_exit() == 1
    assert served.stderr.endswith("tritonserver died (killed by SIGKILL)\n")
    stream.close()


@pytest.mark.usefixtures("inherited")
def test_a_signal_before_it_is_ready_stops_it(build: Path, serve: Serve) -> None:
    served = serve(build)
    wait_until(lambda: "tritonserver" in served.children)
    assert served.signal(signal.SIGTERM).wait_exit() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait(build: Path, serve: Serve, number: signal.Signals) -> None:
    served = serve(build, "--exit-timeout-s", "600").wait_ready()
    server = served.server_pid
    stream = EchoStream(served.grpc_port)
    stream.send("600 never")
    wait_until(lambda: served.received() == 1)
    served.signal(number)
    wait_until(lambda: "accepted requests are answered first" in served.stderr)
    assert served.process.poll() is None
    served.signal(number)
    assert served.wait_exit() == 1
    assert served.stderr.endswith(
        "kobart-serve: stopped at once: accepted requests may be without an answer\n"
    )
    assert not Path(f"/proc/{server}").exists()


def test_a_signal_while_it_starts_stops_it(tmp_path: Path, serve: Serve) -> None:
    served = serve(make_build(tmp_path / "build", load_seconds=600))
    wait_until(lambda: "tritonserver" in served.children)
    assert served.signal(signal.SIGINT).wait_exit() == 0
    assert served.stderr == "kobart-serve: stopped before it was ready\n"
