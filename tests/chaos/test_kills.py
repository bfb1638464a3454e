"""What is killed: a model's process, the server, kobart-serve itself. And what is told to stop."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from client import KobartClient, Summary
from kobart_runtime.errors import KobartError
from server.guardian import SHARED_MEMORY
from server.stubs import find_stubs
from tests.chaos.disturbances import TEXT
from tests.patience import PATIENCE_S, wait_until
from tests.server.served import Served
from tests.triton.conftest import NO_RETRY
from tests.triton.http_api import metrics, settled_metrics

pytestmark = pytest.mark.triton
Serve = Callable[..., Served]

CALLER_LIMIT_S = 4.0
PROBE_LIMIT_S = 30.0  # of a request that may have been lost
LONG = {"num_beams": 4, "max_new_tokens": 1000, "min_new_tokens": 1000, "no_repeat_ngram_size": 0}
SHORT = {"num_beams": 2, "max_new_tokens": 12}
NUM_CALLERS = 6


def client_of(served: Served, timeout_s: float = PATIENCE_S) -> KobartClient:
    return KobartClient(f"127.0.0.1:{served.grpc_port}", timeout_s=timeout_s, retry=NO_RETRY)


def outcome(client: KobartClient, **settings: float) -> Summary | KobartError:
    """The summary or the error."""
    try:
        return client.summarize(TEXT, **settings)
    except KobartError as error:
        return error


@contextmanager
def callers(
    served: Served, timeout_s: float, **settings: float
) -> Iterator[list[Future[Summary | KobartError]]]:
    """Several that wait for an answer; the server has taken in what they ask for."""
    before = settled_metrics(served)["requests_received"]
    with client_of(served, timeout_s) as client, ThreadPoolExecutor(NUM_CALLERS) as pool:
        futures = [pool.submit(outcome, client, **settings) for _ in range(NUM_CALLERS)]
        wait_until(lambda: metrics(served)["requests_received"] >= before + NUM_CALLERS)
        yield futures


def checksum(folder: Path) -> str:
    """Of every file's name and bytes; what Python has compiled does not count."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def shared_memory_prefix(served: Served) -> str:
    """What the names of this server's files begin with; other servers have files of their own."""
    flags = Path(f"/proc/{served.server_pid}/cmdline").read_text(encoding="utf-8").split("\0")
    [prefix] = [flag.partition("prefix-name=")[2] for flag in flags if "prefix-name=" in flag]
    return prefix


def stub_of(served: Served) -> int:
    (stub,) = find_stubs(served.server_pid)
    return stub.pid


def answers_correctly(served: Served, expected: Summary) -> bool:
    with client_of(served, PROBE_LIMIT_S) as client:
        return outcome(client, **SHORT) == expected


def runs(pid: int) -> bool:
    """Whether a process has not ended; an orphan may wait as a zombie to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.chaos)])
def test_a_killed_model_serves_again_soon(disturbed_build: Path, serve: Serve, times: int) -> None:
    """Its callers get an error within their time, and the next ones their summaries."""
    served = serve(disturbed_build).wait_ready()
    with client_of(served) as client:
        expected = client.summarize(TEXT, **SHORT)
    for _ in range(times):
        with callers(served, CALLER_LIMIT_S, **LONG) as futures:
            os.kill(stub_of(served), signal.SIGKILL)
            wait_until(lambda: answers_correctly(served, expected))
        assert all(isinstance(future.result(), KobartError) for future in futures)
    assert served.stderr.count("serves again") == times
    assert served.signal(signal.SIGTERM).wait_exit() == 0


@pytest.mark.parametrize("victim", ["server", "kobart-serve"])
def test_a_killed_server_leaves_nothing_and_starts_again(
    disturbed_build: Path, serve: Serve, victim: str
) -> None:
    before = checksum(disturbed_build)
    served = serve(disturbed_build).wait_ready()
    prefix = shared_memory_prefix(served)
    assert list(SHARED_MEMORY.glob(f"{prefix}*"))
    with client_of(served) as client:
        expected = client.summarize(TEXT, **SHORT)
    pids = served.server_pid, stub_of(served)
    with callers(served, CALLER_LIMIT_S, **LONG) as futures:
        os.kill(pids[0] if victim == "server" else served.process.pid, signal.SIGKILL)
    assert all(isinstance(future.result(), KobartError) for future in futures)
    assert served.wait_exit() == (1 if victim == "server" else -signal.SIGKILL)
    wait_until(lambda: not any(map(runs, pids)))
    wait_until(lambda: not list(SHARED_MEMORY.glob(f"{prefix}*")))
    assert checksum(disturbed_build) == before
    again = serve(disturbed_build).wait_ready()
    assert answers_correctly(again, expected)
    assert again.signal(signal.SIGTERM).wait_exit() == 0


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.chaos)])
def test_told_to_stop_it_answers_what_it_has_accepted(
    disturbed_build: Path, serve: Serve, times: int
) -> None:
    """Over both protocols, ten times out of ten."""
    for _ in range(times):
        served = serve(disturbed_build, "--exit-timeout-s", str(PATIENCE_S))
        stop_under_load(served.wait_ready())


def stop_under_load(served: Served) -> None:
    settings = {"num_beams": 4, "max_new_tokens": 100, "min_new_tokens": 100}
    before = settled_metrics(served)["requests_received"]
    with (
        callers(served, PATIENCE_S, **settings) as over_grpc,
        ThreadPoolExecutor(NUM_CALLERS) as pool,
    ):
        over_http = [
            pool.submit(served.generate, TEXT, model="kobart", **settings)
            for _ in range(NUM_CALLERS)
        ]
        wait_until(lambda: metrics(served)["requests_received"] >= before + 2 * NUM_CALLERS)
        served.signal(signal.SIGTERM)
        with client_of(served) as late:
            while isinstance(told := outcome(late, **SHORT), Summary):
                pass  # it was accepted before the server had heard of its end
        assert told.code == "UNAVAILABLE"
        texts = {future.result() for future in over_http}
        for future in over_grpc:
            summary = future.result()
            assert isinstance(summary, Summary), summary
            texts.add(summary.text)
    assert len(texts) == 1
    assert served.wait_exit() == 0
    assert served.stderr.endswith("kobart-serve: stopped\n")
