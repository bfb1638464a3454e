from __future__ import annotations

import http.client
import io
from pathlib import Path

import pytest

from server.endpoints import Endpoints
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


def test_off_loopback_only_its_owner_may_load_models(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Endpoints, "is_loopback", False)
    with _server(build, io.StringIO()) as server:
        assert server.api.states()["echo"].state == "READY"
        connection = http.client.HTTPConnection("127.0.0.1", server.endpoints.http_port)
        connection.request("POST", "/v2/repository/models/echo/unload")
        assert connection.getresponse().status == 403
        connection.close()
