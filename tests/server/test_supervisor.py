from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest

from server.stubs import find_stubs
from server.supervisor import ServerError, TritonServer, free_ports

pytestmark = pytest.mark.triton


def _server(build: Path, log: io.StringIO) -> TritonServer:
    http_port, grpc_port, metrics_port = free_ports(3)
    return TritonServer(
        build, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, log=log
    )


def test_is_a_context_manager_that_leaves_nothing_behind(build: Path) -> None:
    log = io.StringIO()
    with _server(build, log) as server:
        assert server.api.states()["echo"].state == "READY"
        (stub,) = find_stubs(server.pid)
    assert not stub.is_alive
    assert "Started HTTPService" in log.getvalue()


def test_a_server_that_was_not_started_says_so(build: Path) -> None:
    server = _server(build, io.StringIO())
    with pytest.raises(ServerError, match="was not started"):
        server.stop()


def test_kill_ends_it_where_the_guardian_was_killed_first(build: Path) -> None:
    with _server(build, io.StringIO()) as server:
        (stub,) = find_stubs(server.pid)
        for child in _children():
            if child != server.pid:
                os.kill(child, signal.SIGKILL)
        server.kill()
        assert not stub.is_alive
        assert server.pid not in _children()


def _children() -> list[int]:
    own = os.getpid()
    tasks = Path(f"/proc/{own}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]
